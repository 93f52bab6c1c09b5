"""Allocation: how many to keep in each layer, as integers whose sum is exact.

An allocation is a pair of functions. `plan` runs once for each target on the host, on the layers'
sizes and shapes alone, in float64 and Python integers: 23.5 million times a fraction is no exact
product in float32. `counts` runs on the device and turns the planned row into one int32 count a
layer; an allocation that ranks all layers together looks at the scores there.

A target is an active fraction: of the groups of the layers that are pruned or, where an allocation
is given `costs`, of what the whole network costs, in weights or in multiply-accumulates, with the
layers that are not pruned in it.

A floor (a number of groups that every layer keeps, itself at most the layer's size) is part of
every allocation: a global rank at 99 % empties whole layers otherwise.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.sparsity.costs import Costs, Layer
from sparsejax.sparsity.granularity import Granularity
from sparsejax.sparsity.selection import keep_largest, largest_threshold, ordered_bits


class Allocation(NamedTuple):
  """plan: (layers, target, floor) -> row; counts: (scores, row, floor) -> count for each layer.

  What is gone already comes to `counts` with the score -inf. `absolute` says that targets are
  thresholds on the scores and not fractions.
  """

  plan: Callable[[Sequence[Layer], float, int], np.ndarray]
  counts: Callable[[list[jax.Array], jax.Array, int], list[jax.Array]]
  absolute: bool = False


def total_to_keep(sizes: Sequence[int], active_fraction: float, floor: int) -> int:
  """Returns round(fraction * all), raised where the layers' floors alone need more.

  Example:
    >>> total_to_keep([90, 10], 0.05, floor=1)
    5
  """
  _check_fraction(active_fraction)
  return max(round(active_fraction * sum(sizes)), sum(min(size, floor) for size in sizes))


def _check_fraction(target: float) -> None:
  if not 0 <= target <= 1:
    raise ValueError(f'target={target}: allowed is an active fraction from 0 to 1')


def _prices_and_budget(costs: Costs, layers: Sequence[Layer], target: float, floor: int):
  """What a group of each layer costs, and what all may cost: their floors' worth at least."""
  _check_fraction(target)
  prices = np.array([costs.of_group(layer) for layer in layers])
  least = prices @ np.array([min(layer.groups, floor) for layer in layers])
  return prices, max(costs.budget(layers, target), least)


def global_rank(costs: Costs | None = None) -> Allocation:
  """One ranking over all layers: the largest scores stay, wherever they are.

  Each layer's `floor` best are kept first, and the rest goes by rank: up to the exact number of
  groups; with `costs`, as far as the budget goes (a sum in float32, so to one part in a million).

  Args:
    costs: what groups cost, for targets that are a share of the whole network's weights or MACs.

  Example:
    >>> rule, scores = global_rank(), [jnp.array([3.0, 1.0]), jnp.array([5.0, 4.0])]
    >>> row = rule.plan([Layer('a', (2,), 2), Layer('b', (2,), 2)], 0.5, 1)
    >>> [int(count) for count in rule.counts(scores, row, 1)]
    [1, 1]
    >>> [int(count) for count in rule.counts(scores, row, 0)]
    [0, 2]
  """

  def plan(layers, target, floor):
    if costs is None:
      return np.array([total_to_keep([n.groups for n in layers], target, floor)], np.int32)
    prices, budget = _prices_and_budget(costs, layers, target, floor)
    return np.array([budget, *prices], np.float32)

  def counts(scores, row, floor):
    flat = [_raise_best(score.reshape(-1), floor) for score in scores]
    if costs is not None:
      found = _affordable(flat, row[0], list(row[1:]))
      return [jnp.maximum(n, min(floor, part.size)) for n, part in zip(found, flat, strict=True)]
    kept = keep_largest(jnp.concatenate(flat), row[0])
    ends = np.cumsum([score.size for score in scores])[:-1].tolist()
    return [jnp.sum(part, dtype=jnp.int32) for part in jnp.split(kept, ends)]

  return Allocation(plan, counts)


def _affordable(flat, budget, prices):
  """How many of each layer score at least the lowest score at which all of them are in budget."""
  keys = [ordered_bits(scores) for scores in flat]

  def above(threshold):
    return [jnp.sum(layer >= threshold, dtype=jnp.int32) for layer in keys]

  def too_dear(threshold):
    found = above(threshold)
    spent = sum(n.astype(jnp.float32) * price for n, price in zip(found, prices, strict=True))
    return spent > budget

  return above(largest_threshold(too_dear) + 1)


def _raise_best(scores: jax.Array, floor: int) -> jax.Array:
  """Scores with the `floor` largest of them at infinity, so that no ranking can drop them."""
  floor = min(floor, scores.size)
  return scores.at[jax.lax.top_k(scores, floor)[1]].set(jnp.inf) if floor else scores


def uniform(costs: Costs | None = None) -> Allocation:
  """The same active fraction in every layer, rounded so that the total is exact.

  Args:
    costs: as of `global_rank`.

  Example:
    >>> layers = [Layer('a', (10,), 10), Layer('b', (10,), 10), Layer('c', (5,), 5)]
    >>> uniform().plan(layers, 0.5, 1).tolist()
    [5, 5, 2]
  """
  return _by_density(lambda shape: 1.0, costs)


def erk(costs: Costs | None = None) -> Allocation:
  r"""Erdos-Renyi-Kernel: layers with few weights for their size stay denser.

  .. math:: density \propto \frac{k_h + k_w + inputs + outputs}{k_h k_w \cdot inputs \cdot outputs}

  the sum over the product of the kernel's shape, whatever its rank. Layers that would exceed 1 stay
  whole, and the rest is solved again.

  Args:
    costs: as of `global_rank`.

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
  return _by_density(lambda shape: sum(shape) / math.prod(shape), costs)


def _by_density(density, costs):
  """Counts in proportion to a density that depends on the shape alone, planned on the host."""

  def plan(layers, target, floor):
    sizes = np.array([layer.groups for layer in layers])
    weights = sizes * np.array([density(layer.shape) for layer in layers])
    lowest = np.minimum(sizes, floor)
    if costs is None:
      total = total_to_keep(sizes.tolist(), target, floor)
      return apportion(weights, total, lowest, sizes).astype(np.int32)
    prices, budget = _prices_and_budget(costs, layers, target, floor)
    return _within(weights, budget, prices, lowest, sizes).astype(np.int32)

  return Allocation(plan, lambda scores, row, floor: list(row))


def _within(weights, budget, prices, lowest, highest):
  """The largest total whose apportionment is in budget: it never costs less with more to share."""
  low, high = int(lowest.sum()), int(highest.sum())
  while low < high:
    middle = (low + high + 1) // 2
    spent = prices @ apportion(weights, middle, lowest, highest)
    low, high = (middle, high) if spent <= budget else (low, middle - 1)
  return apportion(weights, low, lowest, highest)


def apportion(weights: np.ndarray, total: int, lowest: np.ndarray, highest: np.ndarray):
  """Returns integers within [lowest, highest] that sum to `total`, in proportion to the weights.

  One rate for all, counts = round(rate * weights) within their bounds, is found by bisection
  (the divisor method of Webster). A smaller total never gives any layer more, which the largest
  remainders don't promise, and without which nested masks could miss their total.

  Args:
    weights: positive, one for each layer.
    total: between the sums of the bounds.
    lowest: integers, one for each layer.
    highest: integers, one for each layer.

  Example:
    >>> apportion(np.array([6.0, 3.0, 1.0]), 5, np.array([0, 0, 1]), np.array([9, 9, 9])).tolist()
    [3, 1, 1]
  """

  def at(rate):
    return np.clip(np.floor(rate * weights + 0.5).astype(np.int64), lowest, highest)

  low, high = 0.0, float(np.max((highest + 1) / weights))
  while low < (middle := (low + high) / 2) < high:
    low, high = (middle, high) if at(middle).sum() <= total else (low, middle)
  counts = at(low)
  next_up = np.flatnonzero(at(high) > counts)  # these tie: the first of them are rounded up
  counts[next_up[: total - counts.sum()]] += 1
  return counts


def default(granularity: Granularity | None) -> Allocation:
  """One global rank; of N:M sparsity the same share everywhere, or N would differ by layer."""
  return uniform() if granularity is not None and granularity.evenly else global_rank()


def absolute_threshold() -> Allocation:
  """What scores above the target stays: |p| <= 0.02 goes in Deep Compression as the log had it.

  The target is the threshold, in the criterion's unit.

  Example:
    >>> rule = absolute_threshold()
    >>> row = rule.plan([], 0.02, 0)
    >>> [int(count) for count in rule.counts([jnp.array([0.5, 0.02, 0.1])], row, 0)]
    [2]
  """

  def plan(layers, target, floor):
    del layers, floor
    return np.array([target], np.float32)

  def counts(scores, row, floor):
    above = [jnp.sum(score > row[0], dtype=jnp.int32) for score in scores]
    return [jnp.maximum(n, min(floor, score.size)) for n, score in zip(above, scores, strict=True)]

  return Allocation(plan, counts, absolute=True)
