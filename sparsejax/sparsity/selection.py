"""Selecting the largest of millions of scores, exactly, in a program that may be jitted or sharded.

Nothing is sorted, flattened or gathered: scores are compared and counted where they lie.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def keep_largest(scores: jax.Array, count: jax.Array | int) -> jax.Array:
  """Returns the mask of the `count` largest scores: exactly so many, the first of equals kept.

  Sorting 23.5 million scores takes XLA 8 s on a CPU; finding the smallest score that stays, one bit
  after the other, takes 32 counts and 0.3 s, and is as exact.

  Args:
    scores: any shape, fewer than 2^31 of them; compared as float32.
    count: shape (), an integer in [0, scores.size].

  Example:
    >>> keep_largest(jnp.array([1.0, 3.0, 3.0, 2.0]), 2).tolist()
    [False, True, True, False]
    >>> keep_largest(jnp.zeros(3), 1).tolist()
    [True, False, False]
  """
  keys = ordered_bits(scores)
  least = largest_threshold(lambda trial: _count(keys >= trial) >= count)
  above = keys > least
  return above | keep_first(keys == least, count - _count(above))


def keep_first(among: jax.Array, count: jax.Array | int) -> jax.Array:
  """Returns the mask of the first `count` that are true, in the order of the memory.

  Example:
    >>> keep_first(jnp.array([False, True, True]), 1).tolist()
    [False, True, False]
  """
  place = _places(among.shape)
  end = jnp.int32(among.size)

  def halve(bounds):
    low, high = bounds
    middle = low + (high - low + 1) // 2
    found = _count(among & (place < middle))
    fits = found <= count
    return jnp.where(fits, middle, low), jnp.where(
      fits, jnp.where(found == count, middle, high), middle - 1
    )

  all_fit = _count(among) <= count
  bounds = jnp.where(all_fit, end, 0), end
  low, _ = jax.lax.while_loop(lambda bounds: bounds[0] < bounds[1], halve, bounds)
  return among & (place < low)


def _places(shape: tuple[int, ...]) -> jax.Array:
  """Each entry's place in the order of the memory."""
  place = jnp.zeros(shape, jnp.int32)
  for axis in range(len(shape)):
    place += jax.lax.broadcasted_iota(jnp.int32, shape, axis) * math.prod(shape[axis + 1 :])
  return place


def _count(mask: jax.Array) -> jax.Array:
  return jnp.sum(mask, dtype=jnp.int32)


def ordered_bits(scores: jax.Array) -> jax.Array:
  """Unsigned integers in the order of the floats: -inf least, the two zeros equal, NaN most."""
  scores = scores.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)
  return jnp.where((bits >> 31).astype(bool), ~bits, bits | jnp.uint32(1 << 31))


def largest_threshold(holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
  """Returns the largest uint32 for which `holds`, true up to some threshold, is true; else 0."""

  def set_bit(i, least):
    trial = least | (jnp.uint32(1 << 31) >> jnp.uint32(i))
    return jnp.where(holds(trial), trial, least)

  return jax.lax.fori_loop(0, 32, set_bit, jnp.uint32(0))
