"""Exact selection of the largest of millions of scores, in programs that may be jitted or sharded.

Nothing is sorted, flattened or gathered: scores are compared and counted in place.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def keep_largest(scores: jax.Array, count: jax.Array | int) -> jax.Array:
  """Returns the mask of exactly the `count` largest scores; among equals the first are kept.

  Sorting 23.5 million scores takes XLA 8 s on a CPU. Finding the smallest kept score bit by bit
  takes 32 counts and 0.3 s, and is just as exact.

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
  least = largest_threshold(lambda trial: count_true(keys >= trial) >= count)
  above = keys > least
  return above | keep_first(keys == least, count - count_true(above))


def keep_first(among: jax.Array, count: jax.Array | int) -> jax.Array:
  """Returns the mask of the first `count` true entries, in memory order.

  Takes whole slices along the first axis while they fit, then recurs into the next slice.

  Example:
    >>> keep_first(jnp.array([False, True, True]), 1).tolist()
    [False, True, False]
  """
  if among.ndim == 0:
    return among & (count > 0)
  each = count_true(among, tuple(range(1, among.ndim)))
  up_to = jnp.cumsum(each)
  if among.ndim == 1:
    return among & (up_to <= count)
  whole = jnp.sum(up_to <= count, dtype=jnp.int32)  # the number of slices kept whole
  partial = jnp.minimum(whole, len(among) - 1)
  before = up_to[partial] - each[partial]
  inside = keep_first(jax.lax.dynamic_index_in_dim(among, partial, keepdims=False), count - before)
  slices = jax.lax.broadcasted_iota(jnp.int32, among.shape, 0)
  return among & ((slices < whole) | ((slices == whole) & inside[None]))


def count_true(mask: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
  """Returns the number of true entries along the axes, all by default, as int32.

  XLA on CPU materialises the operand of a sum; a short axis is summed in int16, half the bytes.

  Example:
    >>> int(count_true(jnp.array([[True, False], [True, True]])))
    3
  """
  axes = tuple(range(mask.ndim)) if axes is None else axes
  if axes and mask.shape[axes[-1]] < 2**15:
    mask = jnp.sum(mask, axes[-1], dtype=jnp.int16)
    axes = axes[:-1]
  return jnp.sum(mask, axes, dtype=jnp.int32)


def after(value: jax.Array, earlier: jax.Array | None) -> jax.Array:
  """Returns `value` unchanged, but makes XLA compute `earlier` first.

  XLA on CPU computes leaves concurrently and so holds the temporaries of all, unless one waits for
  the other. It removes optimisation barriers, so this adds a zero that XLA cannot prove to be zero:
  the sign of a count, or whether a score is NaN.

  Args:
    value: numbers, or random keys.
    earlier: nonnegative counts, a mask, or scores without NaN.
  """
  if earlier is None or not earlier.size:
    return value
  if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
    bits = after(jax.random.key_data(value), earlier)
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(value))
  first = earlier[(0,) * earlier.ndim]
  is_score = jnp.issubdtype(first.dtype, jnp.floating)
  zero = jnp.isnan(first) if is_score else first.astype(jnp.int32) >> 31
  return value + zero.astype(value.dtype)


def ordered_bits(scores: jax.Array) -> jax.Array:
  """Returns uint32 in the order of the floats: -inf is lowest, both zeros equal, NaN highest."""
  scores = scores.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)
  return jnp.where((bits >> 31).astype(bool), ~bits, bits | jnp.uint32(1 << 31))


def largest_threshold(holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
  """Returns the largest uint32 for which `holds` is true, or 0; it must be true below that too."""

  def set_bit(i, least):
    trial = least | (jnp.uint32(1 << 31) >> jnp.uint32(i))
    return jnp.where(holds(trial), trial, least)

  return jax.lax.fori_loop(0, 32, set_bit, jnp.uint32(0))
