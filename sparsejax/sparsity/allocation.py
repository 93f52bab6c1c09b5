"""Allocation: how many to keep in each layer, as integers whose sum is exact.

An allocation is a pair of functions. `plan` runs once for each target on the host, on the layers'
sizes and shapes alone, in float64 and Python integers: 23.5 million times a fraction is no exact
product in float32. `counts` runs on the device and turns the planned row into one int32 count a
layer; an allocation that ranks all layers together looks at the scores there.

A floor (a number of weights that every layer keeps, itself at most the layer's size) is part of
every allocation: a global rank at 99 % empties whole layers otherwise.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Allocation(NamedTuple):
  """plan: (sizes, target, floor) -> row; counts: (scores, row, floor) -> count for each layer.

  What is gone already comes to `counts` with the score -inf.
  """

  plan: Callable[[Sequence[int], float, int], np.ndarray]
  counts: Callable[[list[jax.Array], jax.Array, int], list[jax.Array]]


def keep_largest(scores: jax.Array, count: jax.Array | int) -> jax.Array:
  """Returns the mask of the `count` largest scores: exactly so many, the first of equals kept.

  Sorting 23.5 million scores takes XLA 8 s on a CPU; finding the smallest score that stays, one bit
  after the other, takes 32 counts and 0.3 s, and is as exact.

  Args:
    scores: any shape; compared as float32.
    count: shape (), an integer in [0, scores.size].

  Example:
    >>> keep_largest(jnp.array([1.0, 3.0, 3.0, 2.0]), 2).tolist()
    [False, True, True, False]
    >>> keep_largest(jnp.zeros(3), 1).tolist()
    [True, False, False]
  """
  keys = _ordered_bits(scores.reshape(-1))

  def set_bit(i, least):
    trial = least | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(jnp.sum(keys >= trial, dtype=jnp.int32) >= count, trial, least)

  least = jax.lax.fori_loop(0, 32, set_bit, jnp.uint32(0))
  above, equal = keys > least, keys == least
  room = count - jnp.sum(above, dtype=jnp.int32)
  return (above | (equal & (jnp.cumsum(equal) <= room))).reshape(scores.shape)


def _ordered_bits(scores: jax.Array) -> jax.Array:
  """Unsigned integers in the order of the floats: -inf least, the two zeros equal, NaN most."""
  scores = scores.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)
  return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def total_to_keep(sizes: Sequence[int], active_fraction: float, floor: int) -> int:
  """Returns round(fraction * all), raised where the layers' floors alone need more.

  Example:
    >>> total_to_keep([90, 10], 0.05, floor=1)
    5
  """
  if not 0 <= active_fraction <= 1:
    raise ValueError(f'target={active_fraction}: allowed is an active fraction from 0 to 1')
  return max(round(active_fraction * sum(sizes)), sum(min(size, floor) for size in sizes))


def global_rank() -> Allocation:
  """One ranking over all layers: the largest scores stay, wherever they are.

  The target is the active fraction of all the chosen parameters together. Each layer's `floor`
  best are kept first, and the rest of the total goes by rank.
  """

  def plan(sizes, target, floor):
    return np.array([total_to_keep(sizes, target, floor)], np.int32)

  def counts(scores, row, floor):
    flat = [_raise_best(score.reshape(-1), floor) for score in scores]
    kept = keep_largest(jnp.concatenate(flat), row[0])
    ends = np.cumsum([score.size for score in scores])[:-1].tolist()
    return [jnp.sum(part, dtype=jnp.int32) for part in jnp.split(kept, ends)]

  return Allocation(plan, counts)


def _raise_best(scores: jax.Array, floor: int) -> jax.Array:
  """Scores with the `floor` largest of them at infinity, so that no ranking can drop them."""
  floor = min(floor, scores.size)
  return scores.at[jax.lax.top_k(scores, floor)[1]].set(jnp.inf) if floor else scores


def uniform() -> Allocation:
  """The same active fraction in every layer, rounded so that the total is exact.

  Example:
    >>> uniform().plan([10, 10, 5], 0.5, 1).tolist()
    [5, 5, 2]
  """

  def plan(sizes, target, floor):
    sizes = np.array(sizes)
    total = total_to_keep(sizes.tolist(), target, floor)
    return apportion(sizes, total, np.minimum(sizes, floor), sizes).astype(np.int32)

  return Allocation(plan, lambda scores, row, floor: list(row))


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


def absolute_threshold() -> Allocation:
  """What scores above the target stays: |p| <= 0.02 goes in Deep Compression as the log had it.

  The target is the threshold, in the criterion's unit.
  """

  def plan(sizes, target, floor):
    del sizes, floor
    return np.array([target], np.float32)

  def counts(scores, row, floor):
    above = [jnp.sum(score > row[0], dtype=jnp.int32) for score in scores]
    return [jnp.maximum(n, min(floor, score.size)) for n, score in zip(above, scores, strict=True)]

  return Allocation(plan, counts)
