"""Allocation: the number of groups to keep in each layer, as integers whose sum is exact.

An allocation is a pair of functions. `plan` runs once for each density on the host and depends only
on the sizes and shapes of layers. It uses float64 and Python integers, because 23.5 million times a
fraction is not exact in float32. `counts` runs on the device and turns the planned row into one
int32 count for each layer; an allocation that ranks all layers together uses the scores there.

A density is an active fraction: of the groups of the pruned layers or, if the allocation has
`costs`, of the cost of the whole network in weights or multiply-accumulates, including the layers
that are not pruned.

Every allocation respects a floor, the least number of groups that each layer keeps (all, if it has
fewer): otherwise a global rank at 99 % sparsity would empty whole layers.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.counting.costs import Costs, Layer
from sparsejax.sparsity.parts import wide
from sparsejax.sparsity.parts.granularity import Granularity
from sparsejax.sparsity.parts.schedules import PruningSchedule
from sparsejax.sparsity.parts.selection import after, count_true, largest_threshold, ordered_bits


class Allocation(NamedTuple):
  """How densities become counts.

  plan: (layers, density, floor) -> row.
  counts: (scores, row, floor, sizes) -> counts. `scores` has an array (stacked layers, *groups) for
  each leaf, in which removed groups are -inf; the result has an array (stacked layers,) for each.
  `sizes` has the number of weights in a group for each leaf, or an array that broadcasts against
  its scores, if the allocation is `priced`; else 1.
  absolute: whether densities are thresholds on the scores instead of fractions.
  priced: whether the number of weights in a group matters.
  by_layer: whether densities are given by layer.
  """

  plan: Callable[[Sequence[Layer], Any, int], np.ndarray]
  counts: Callable[..., list[jax.Array]]
  absolute: bool = False
  priced: bool = False
  by_layer: bool = False


def total_to_keep(sizes: Sequence[int], active_fraction: float, floor: int) -> int:
  """Returns round(active_fraction * sum(sizes)), or the sum of the layers' floors if larger.

  Example:
    >>> total_to_keep([90, 10], 0.05, floor=1)
    5
  """
  if not 0 <= active_fraction <= 1:
    raise ValueError(f'density={active_fraction} must be an active fraction from 0 to 1')
  return max(round(active_fraction * sum(sizes)), sum(min(size, floor) for size in sizes))


def _prices_and_budget(costs: Costs, layers: Sequence[Layer], density: float, floor: int):
  """Returns the cost of a weight in each layer, and the budget: at least the cost of the floors."""
  total_to_keep((), density, floor)  # raises if the density is not a fraction
  prices = np.array([costs.price(layer) for layer in layers])
  least = prices @ np.array([layer.largest(min(layer.groups, floor)) for layer in layers])
  return prices, max(costs.budget(layers, density), least)


def global_rank(costs: Costs | None = None) -> Allocation:
  """One ranking over all layers: the largest scores are kept, whichever layer they are in.

  The `floor` best groups of each layer are kept first, and the others by rank: up to the exact
  number of groups or, with `costs`, within the budget (a float32 sum, so to one part in a million).
  Among equal scores the first are kept, in the order of the leaves.

  Args:
    costs: the costs of groups, for densities that are a share of the network's weights or MACs.

  Example:
    >>> rule, scores = global_rank(), [jnp.array([[3.0, 1.0]]), jnp.array([[5.0, 4.0]])]
    >>> row = rule.plan([Layer('a', (2,), 2), Layer('b', (2,), 2)], 0.5, 1)
    >>> [int(count[0]) for count in rule.counts(scores, row, 1, [1, 1])]
    [1, 1]
    >>> [int(count[0]) for count in rule.counts(scores, row, 0, [1, 1])]
    [0, 2]
  """

  if costs is None:
    return GLOBAL_RANK

  def plan(layers, density, floor):
    prices, budget = _prices_and_budget(costs, layers, density, floor)
    return np.array([budget, *prices], np.float32)

  def counts(scores, row, floor, sizes):
    keys = [ordered_bits(score) for score in scores]
    return _count_affordable(keys, row[0], _by_leaf(row[1:], scores), floor, sizes)

  return Allocation(plan, counts, priced=True)


def _words_to_keep(layers, density, floor) -> np.ndarray:
  """Returns the number n of groups to keep in all, which may exceed an int32.

  The two words that stand for it are n // 2**31 and n % 2**31.
  """
  return np.array(
    divmod(total_to_keep([n.groups for n in layers], density, floor), 2**31), np.int32
  )


def _count_ranked(scores, row, floor, sizes):
  """Returns how many of the largest scores are in each layer.

  The threshold is the largest at which enough scores are kept. All above it are kept, and then
  scores equal to it, in the order of the layers, until there are exactly enough.

  Args:
    scores: the scores of every leaf, as in `Allocation`.
    row: the number to keep in all, from `_words_to_keep`.
    floor: the least number of groups that every layer keeps.
    sizes: not read, since every group counts as one.
  """
  del sizes
  keys = [ordered_bits(score) for score in scores]
  to_keep = row[1]  # the low word of the number, whose high word is 0 below 2**31 scores
  if sum(key.size for key in keys) >= 2**31:
    return wide.ranked(keys, wide.of_words(row), floor)

  def kept_from(threshold, compare=jnp.greater_equal):
    """Returns how many are kept in each layer: at or above the threshold, at least the floor."""
    found = []
    for layers in keys:
      threshold = after(threshold, found[-1] if found else None)
      axes = tuple(range(1, layers.ndim))
      size = math.prod(layers.shape[1:])
      found.append(jnp.maximum(count_true(compare(layers, threshold), axes), min(floor, size)))
    return found

  def total(counts):
    return sum(jnp.sum(count, dtype=jnp.int32) for count in counts)

  least = largest_threshold(lambda trial: total(kept_from(trial)) >= to_keep)
  above = kept_from(least, jnp.greater)
  room = to_keep - total(above)  # for scores equal to the last one kept
  found = []
  at_or_above = kept_from(after(least, above[-1]))
  for more, most in zip(above, at_or_above, strict=True):
    equal = most - more
    before = jnp.cumsum(equal, dtype=jnp.int32) - equal
    found.append(more + jnp.clip(room - before, 0, equal))
    room = room - jnp.sum(equal, dtype=jnp.int32)
  return found


GLOBAL_RANK = Allocation(_words_to_keep, _count_ranked)


def _count_kept(mask, floor):
  """Returns the number of true entries in each layer, raised to the floor or the layer's size."""
  least = min(floor, math.prod(mask.shape[1:]))
  return jnp.maximum(count_true(mask, tuple(range(1, mask.ndim))), least)


def _count_affordable(keys, budget, prices, floor, sizes):
  """Returns how many of the best groups of each layer are affordable together.

  Args:
    keys: the scores of every leaf as integers of the same order.
    budget: the most that the groups kept may cost together.
    prices: the cost of a weight in each layer of every leaf.
    floor: the least number of groups that every layer keeps.
    sizes: the number of weights in a group, as in `Allocation`.
  """

  def costs_of(masks):
    return [_cost_of_kept(*leaf, floor) for leaf in zip(masks, prices, sizes, strict=True)]

  def exceeds_budget(threshold):
    return sum(jnp.sum(cost) for cost in costs_of([k >= threshold for k in keys])) > budget

  last = largest_threshold(exceeds_budget)  # only some groups with this score are affordable
  above = [k > last for k in keys]
  left = budget - sum(jnp.sum(cost) for cost in costs_of(above))
  found = []
  for mask, key, price, size in zip(above, keys, prices, sizes, strict=True):
    equal = _count_kept(mask | (key == last), floor) - _count_kept(mask, floor)
    each = price * jnp.max(jnp.asarray(size, jnp.float32))
    taken = []
    for n, one in zip(equal.astype(jnp.float32), each, strict=True):
      some = jnp.where(one > 0, jnp.floor(left / jnp.where(one > 0, one, 1.0)), n)
      some = jnp.clip(some, 0.0, n)
      taken.append(some.astype(jnp.int32))
      left = left - some * one
    found.append(_count_kept(mask, floor) + jnp.stack(taken))
  return found


def _cost_of_kept(mask, price, size, floor):
  """Returns the cost of the kept groups in each stacked layer of a leaf."""
  axes = tuple(range(1, mask.ndim))
  size = jnp.asarray(size, jnp.float32)
  weights = jnp.sum(jnp.where(mask, size, 0.0), axes)
  least = min(floor, math.prod(mask.shape[1:])) * jnp.max(size)
  few = count_true(mask, axes) < floor
  return price * jnp.where(few, least, weights)


def _by_leaf(row, scores):
  """Splits a row over all layers into one vector for each leaf."""
  ends = np.cumsum([len(score) for score in scores])[:-1].tolist()
  return jnp.split(row, ends)


def uniform(costs: Costs | None = None) -> Allocation:
  """The same active fraction in every layer, rounded so that the total is exact.

  Args:
    costs: as in `global_rank`.

  Example:
    >>> layers = [Layer('a', (10,), 10), Layer('b', (10,), 10), Layer('c', (5,), 5)]
    >>> uniform().plan(layers, 0.5, 1).tolist()
    [5, 5, 2]
  """
  return _by_density(lambda shape: 1.0, costs)


def erk(costs: Costs | None = None) -> Allocation:
  r"""Erdos-Renyi-Kernel: layers with few weights for their size stay denser.

  .. math:: density \propto \frac{k_h + k_w + inputs + outputs}{k_h k_w \cdot inputs \cdot outputs}

  the sum of the kernel's shape over its product, for any rank; 1 for vectors and scalars. Layers
  whose density would exceed 1 stay whole, and the others share the rest.

  Args:
    costs: as in `global_rank`.

  Example:
    >>> lenet300 = [Layer(n, s, s[0] * s[1]) for n, s in (
    ...   ('fc1', (784, 300)), ('fc2', (300, 100)), ('fc3', (100, 10)))]
    >>> kept = erk().plan(lenet300, 0.1, 1)
    >>> [round(int(n) / layer.groups, 4) for n, layer in zip(kept, lenet300)]
    [0.0796, 0.2302, 1.0]

  References:
    Mocanu et al. 2018, https://arxiv.org/abs/1707.04780
    Evci et al. 2020, https://arxiv.org/abs/1911.11134
  """
  return _by_density(lambda shape: sum(shape or (1,)) / max(math.prod(shape), 1), costs)


def _by_density(relative, costs):
  """Returns an allocation whose densities are proportional to a function of the layer's shape."""

  def plan(layers, density, floor):
    return planned(tuple(layers), density, floor)

  @functools.cache
  def planned(layers, density, floor):
    sizes = np.array([layer.groups for layer in layers], int)
    weights = sizes * np.array([relative(layer.shape) for layer in layers])
    lowest = np.minimum(sizes, floor)
    if costs is None:
      total = total_to_keep(sizes.tolist(), density, floor)
      return apportion(weights, total, lowest, sizes).astype(np.int32)
    prices, budget = _prices_and_budget(costs, layers, density, floor)
    return _within(weights, budget, prices, layers, lowest, sizes).astype(np.int32)

  def counts(scores, row, floor, sizes):
    del floor, sizes
    return _by_leaf(row, scores)

  return Allocation(plan, counts, priced=costs is not None)


def _within(weights, budget, prices, layers, lowest, highest):
  """Returns the largest apportionment within the budget, whichever groups are kept."""

  def spent(counts):
    most = [layer.largest(int(count)) for layer, count in zip(layers, counts, strict=True)]
    return prices @ np.array(most)

  low, high = int(lowest.sum()), int(highest.sum())
  while low < high:
    middle = (low + high + 1) // 2
    fits = spent(apportion(weights, middle, lowest, highest)) <= budget
    low, high = (middle, high) if fits else (low, middle - 1)
  return apportion(weights, low, lowest, highest)


def apportion(weights: np.ndarray, total: int, lowest: np.ndarray, highest: np.ndarray):
  """Returns integers within [lowest, highest] that sum to `total`, in proportion to the weights.

  Bisection finds one rate such that counts = round(rate * weights) within the bounds (Webster's
  divisor method). A smaller total never gives any layer more. The method of largest remainders does
  not ensure this, and without it nested masks could miss their total.

  Args:
    weights: positive, one for each layer; 0 where the layer has no group.
    total: between the sums of the bounds.
    lowest: integers, one for each layer.
    highest: integers, one for each layer.

  Example:
    >>> apportion(np.array([6.0, 3.0, 1.0]), 5, np.array([0, 0, 1]), np.array([9, 9, 9])).tolist()
    [3, 1, 1]
  """

  def at(rate):
    return np.clip(np.floor(rate * weights + 0.5).astype(np.int64), lowest, highest)

  some = weights > 0
  low, high = 0.0, float(np.max((highest[some] + 1) / weights[some], initial=0.0))
  while low < (middle := (low + high) / 2) < high:
    low, high = (middle, high) if at(middle).sum() <= total else (low, middle)
  counts = at(low)
  next_up = np.flatnonzero(at(high) > counts)  # ties: the first of them are rounded up
  counts[next_up[: total - counts.sum()]] += 1
  return counts


def by_layer() -> Allocation:
  """Each layer keeps its own density, from {pattern: density}.

  The first pattern that matches a path counts; a layer without a match stays whole. `prune` uses
  this allocation by default if the schedule has densities by layer.

  Example:
    >>> layers = [Layer('conv1/kernel', (3, 3), 9), Layer('fc/kernel', (4, 5), 20)]
    >>> by_layer().plan(layers, (('conv', 0.5), ('fc', 0.25)), 1).tolist()
    [4, 5]
    >>> by_layer().plan(layers, (('fd', 0.25),), 1)
    Traceback (most recent call last):
    ValueError: density: the pattern 'fd' must match a layer that is pruned: did you mean 'fc'?
  """

  def plan(layers, density, floor):
    named = [tuple(path for path, _ in layer.leaves) or (layer.path,) for layer in layers]
    _check_patterns([pattern for pattern, _ in density], [p for paths in named for p in paths])
    counts = [
      max(round(_density(paths, density) * layer.groups), min(floor, layer.groups))
      for paths, layer in zip(named, layers, strict=True)
    ]
    return np.array(counts, np.int32)

  def counts(scores, row, floor, sizes):
    del floor, sizes
    return _by_leaf(row, scores)

  return Allocation(plan, counts, by_layer=True)


def _density(paths, density) -> float:
  found = (d for pattern, d in density if any(re.search(pattern, path) for path in paths))
  return next(found, 1.0)


def _check_patterns(patterns: Sequence[str], paths: Sequence[str]) -> None:
  for pattern in patterns:
    if paths and not any(re.search(pattern, path) for path in paths):
      names = dict.fromkeys(part for path in paths for part in (path, *_modules(path)))
      hint = nearest(pattern, names, cutoff=0.5) or f' there are {", ".join(dict.fromkeys(paths))}'
      raise ValueError(f"density: the pattern '{pattern}' must match a layer that is pruned:{hint}")


def _modules(path: str) -> list[str]:
  """Returns the paths of the modules that a leaf is in, outermost first, and their names."""
  parts = path.split('/')[:-1]
  return [*('/'.join(parts[:n]) for n in range(1, len(parts) + 1)), *parts]


def default(granularity: Granularity | None, schedule: PruningSchedule) -> Allocation:
  """Returns the allocation that `prune` uses by default.

  This is `by_layer` for densities by layer, `uniform` for N:M sparsity, whose N must not differ by
  layer, and otherwise `global_rank`.
  """
  if schedule.by_layer:
    return by_layer()
  return uniform() if getattr(granularity, 'evenly', False) else global_rank()


def absolute_threshold() -> Allocation:
  """Keeps the groups that score above a threshold, such as |p| > 0.02 in Deep Compression.

  The density is the threshold, in the unit of the criterion.

  Example:
    >>> rule = absolute_threshold()
    >>> row = rule.plan([], 0.02, 0)
    >>> [int(count[0]) for count in rule.counts([jnp.array([[0.5, 0.02, 0.1]])], row, 0, [1])]
    [2]
  """

  def plan(layers, density, floor):
    del layers, floor
    return np.array([density], np.float32)

  def counts(scores, row, floor, sizes):
    del sizes
    return [_count_kept(score > row[0], floor) for score in scores]

  return Allocation(plan, counts, absolute=True)
