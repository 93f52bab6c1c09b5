"""Counts that are too large for an integer of the device, as two halves.

JAX has no 64-bit integers by default, and networks may have more than 2^31 parameters.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.sparsity.parts.selection import after, count_true, largest_threshold


class Wide(NamedTuple):
  """The number high * 2^h + low, where h is half the bits of their dtype and low is below 2^h."""

  high: jax.Array
  low: jax.Array


def widen(count: jax.Array, dtype=jnp.uint32) -> Wide:
  """Returns an integer as two halves.

  Example:
    >>> wide = widen(jnp.uint32(70_000))
    >>> int(wide.high), int(wide.low)
    (1, 4464)
  """
  count = count.astype(dtype)
  return Wide(count >> _half(dtype), count & _mask(dtype))


def of_words(words: jax.Array, dtype=jnp.uint32) -> Wide:
  """Returns the number whose words `to_words` returned, as two halves."""
  half = _half(dtype)
  high, low = (word.astype(dtype) for word in words)
  return add(Wide(high << (half - 1), jnp.zeros_like(low)), widen(low, dtype))


def to_words(count: int, bits: int = 31) -> list[int]:
  """Returns a Python integer as two words that fit into int32.

  Example:
    >>> to_words(7), to_words(2**31 + 7)
    ([0, 7], [1, 7])
  """
  return [count >> bits, count & ((1 << bits) - 1)]


def add(a: Wide, b: Wide) -> Wide:
  """Returns a + b."""
  return _carried(a.high + b.high, a.low + b.low)


def total(counts: jax.Array, dtype=jnp.uint32) -> Wide:
  """Returns the sum of a vector of counts, fewer than 2^h of them.

  Example:
    >>> wide = total(jnp.array([2**31 - 1, 2**31 - 1, 2]))
    >>> int(wide.high) * 2**16 + int(wide.low) == 2**32
    True
  """
  wide = widen(counts, dtype)
  return _carried(jnp.sum(wide.high, dtype=dtype), jnp.sum(wide.low, dtype=dtype))


def before(counts: jax.Array, dtype=jnp.uint32) -> Wide:
  """Returns, for each entry of a vector of counts, the sum of those before it."""
  wide = widen(counts, dtype)
  high, low = (jnp.cumsum(half, dtype=dtype) - half for half in wide)
  return _carried(high, low)


def at_least(a: Wide, b: Wide) -> jax.Array:
  """Returns whether a >= b."""
  return (a.high > b.high) | ((a.high == b.high) & (a.low >= b.low))


def minus(a: Wide, b: Wide) -> Wide:
  """Returns a - b, or 0 where b is larger."""
  borrow = (a.low < b.low).astype(a.low.dtype)
  high = a.high - b.high - borrow
  low = a.low + (borrow << _half(a.low.dtype)) - b.low
  fits = at_least(a, b)
  return Wide(jnp.where(fits, high, 0), jnp.where(fits, low, 0))


def at_most(a: Wide, limit: jax.Array) -> jax.Array:
  """Returns min(a, limit), as one integer of the limit's dtype."""
  small = (a.high << _half(a.low.dtype)) | a.low
  return jnp.where(at_least(a, widen(limit, a.low.dtype)), limit, small.astype(limit.dtype))


def ranked(
  keys: Sequence[jax.Array], to_keep: Wide, floor: int, dtype=jnp.uint32
) -> list[jax.Array]:
  """Returns how many of the `to_keep` largest keys are in each layer; among equals, the first.

  This is the count of `global_rank`, for more scores than an integer of the device can count.

  Args:
    keys: unsigned integers to compare, an array (layers, *groups) for each leaf.
    to_keep: the number of groups to keep in all layers together.
    floor: the least number that each layer keeps, or all if it has fewer.
    dtype: the unsigned dtype whose halves are used for counting.
  """

  def kept_from(threshold, compare=jnp.greater_equal):
    found = []
    for layers in keys:
      threshold = after(threshold, found[-1] if found else None)
      axes = tuple(range(1, layers.ndim))
      size = math.prod(layers.shape[1:])
      found.append(jnp.maximum(count_true(compare(layers, threshold), axes), min(floor, size)))
    return found

  def in_all(counts):
    return functools.reduce(add, [total(count, dtype) for count in counts])

  least = largest_threshold(lambda t: at_least(in_all(kept_from(t)), to_keep))
  above = kept_from(least, jnp.greater)
  room = minus(to_keep, in_all(above))
  found = []
  for sure, both in zip(above, kept_from(after(least, above[-1])), strict=True):
    equal = both - sure
    taken = [
      at_most(minus(room, Wide(high, low)), n)
      for n, high, low in zip(equal, *before(equal, dtype), strict=True)
    ]
    found.append(sure + jnp.stack(taken))
    room = minus(room, total(equal, dtype))
  return found


def _carried(high, low) -> Wide:
  return Wide(high + (low >> _half(low.dtype)), low & _mask(low.dtype))


def _half(dtype) -> int:
  return jnp.iinfo(dtype).bits // 2


def _mask(dtype) -> int:
  return (1 << _half(dtype)) - 1
