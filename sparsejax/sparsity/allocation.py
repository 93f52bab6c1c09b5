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
  """plan: (sizes, target, floor) -> row; counts: (scores, row, floor) -> count for each layer."""

  plan: Callable[[Sequence[int], float, int], np.ndarray]
  counts: Callable[[list[jax.Array], jax.Array, int], list[jax.Array]]


def keep_largest(scores: jax.Array, count: jax.Array | int) -> jax.Array:
  """Returns the mask of the `count` largest scores: exactly so many, the first of equals kept.

  Args:
    scores: any shape.
    count: shape (), an integer in [0, scores.size].

  Example:
    >>> keep_largest(jnp.array([1.0, 3.0, 3.0, 2.0]), 2).tolist()
    [False, True, True, False]
    >>> keep_largest(jnp.zeros(3), 1).tolist()
    [True, False, False]
  """
  order = jnp.argsort(scores.reshape(-1), descending=True, stable=True)
  kept = jnp.zeros(scores.size, bool).at[order].set(jnp.arange(scores.size) < count)
  return kept.reshape(scores.shape)


def total_to_keep(sizes: Sequence[int], active_fraction: float, floor: int) -> int:
  """Returns round(fraction * all), raised where the layers' floors alone need more.

  Example:
    >>> total_to_keep([90, 10], 0.05, floor=1)
    5
  """
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
    total = total_to_keep(sizes, target, floor)
    lowest = np.minimum(np.array(sizes), floor)
    wanted = np.clip(target * np.array(sizes, float), lowest, sizes)
    return _round_to_total(wanted, total, lowest, np.array(sizes)).astype(np.int32)

  return Allocation(plan, lambda scores, row, floor: list(row))


def _round_to_total(wanted, total, lowest, highest) -> np.ndarray:
  """Integers within [lowest, highest] that sum to `total`, by largest remainder of `wanted`."""
  counts = np.floor(wanted).astype(np.int64)
  while (missing := total - counts.sum()) != 0:
    sign = 1 if missing > 0 else -1
    room = counts < highest if sign > 0 else counts > lowest
    gain = np.where(room, sign * (wanted - counts), -np.inf)
    chosen = np.argsort(-gain, kind='stable')[: min(abs(missing), int(room.sum()))]
    counts[chosen] += sign
  return counts


def absolute_threshold() -> Allocation:
  """What scores above the target stays: |p| <= 0.02 goes in Deep Compression as the log had it.

  The target is the threshold, in the criterion's unit; it must be at least 0.
  """

  def plan(sizes, target, floor):
    del sizes, floor
    return np.array([target], np.float32)

  def counts(scores, row, floor):
    above = [jnp.sum(score > row[0], dtype=jnp.int32) for score in scores]
    return [jnp.maximum(n, min(floor, score.size)) for n, score in zip(above, scores, strict=True)]

  return Allocation(plan, counts)
