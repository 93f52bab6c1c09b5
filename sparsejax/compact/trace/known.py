"""Values known before any input is: their entries, and which of them may still vary.

An axis along which all entries are equal has size 1 here, whatever its size in the program: a zero
channel takes one entry, not one for each pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROUNDING = 1e-6  # relative to the largest entry


class Known(NamedTuple):
  """The entries of a value, known except where they may vary.

  Attributes:
    value: the entries; arbitrary where they vary.
    varies: whether each entry depends on the inputs, or on parameters that may be trained further.
    shape: the shape in the program; each axis of both arrays has its size here, or size 1.
  """

  value: np.ndarray
  varies: np.ndarray
  shape: tuple[int, ...]

  @property
  def is_fixed(self) -> bool:
    return not self.varies.any()

  def maybe_nonzero(self) -> np.ndarray:
    """Returns whether each entry may be nonzero."""
    return self.varies | (self.value != 0)

  def fixed_part(self) -> np.ndarray:
    """Returns the entries, with zeros where they vary."""
    return np.where(self.varies, np.zeros((), self.value.dtype), self.value)

  def full(self) -> np.ndarray:
    return np.broadcast_to(self.value, self.shape)


def fixed(value: np.ndarray, shape: Sequence[int] | None = None) -> Known:
  """Returns a constant as a known value.

  Example:
    >>> fixed(np.zeros((1, 2)), (4, 2)).maybe_nonzero().tolist()
    [[False, False]]
  """
  shape = tuple(np.shape(value) if shape is None else shape)
  return Known(np.asarray(value), np.zeros((1,) * len(shape), bool), shape)


def unknown(shape: Sequence[int]) -> Known:
  """Returns a value of which nothing is known."""
  ones = (1,) * len(shape)
  return Known(np.zeros(ones, np.float32), np.ones(ones, bool), tuple(shape))


def zeros(varies: np.ndarray, shape: Sequence[int], dtype=np.float32) -> Known:
  """Returns a value that is zero wherever it does not vary."""
  return Known(np.zeros((1,) * len(shape), dtype), varies, tuple(shape))


def from_array(value, varies: np.ndarray | None = None) -> Known:
  """Returns an array as a known value; nothing is known of random keys."""
  if jnp.issubdtype(jnp.result_type(value), jax.dtypes.extended):
    return unknown(jnp.shape(value))
  known = fixed(np.asarray(value))
  return known if varies is None else known._replace(varies=varies)


def spread(array: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
  """Returns an array with the given axes broadcast to their full sizes."""
  wanted = [shape[i] if i in axes else n for i, n in enumerate(array.shape)]
  return np.broadcast_to(array, wanted)


def collapse(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
  """Returns whether any entry along the given axes is true, keeping these axes at size 1."""
  return np.asarray(array.any(tuple(axes), keepdims=True)) if axes else array


def compressed(known: Known) -> Known:
  """Returns the same value, with size 1 along every axis whose entries are all equal."""
  return known._replace(value=_compressed(known.value, 0), varies=_compressed(known.varies, 0))


def rounded(known: Known) -> Known:
  """Compresses a value, treating entries that differ only by a sum's rounding as equal."""
  value = known.fixed_part()  # entries that vary are arbitrary
  if value.dtype.kind != 'f' or not value.size or not np.isfinite(value).all():
    return compressed(known)
  value = _compressed(value, ROUNDING * np.abs(value).max())
  return Known(value, _compressed(known.varies, 0), known.shape)


def _compressed(array: np.ndarray, close: float) -> np.ndarray:
  for axis, size in enumerate(array.shape):
    first = np.take(array, [0], axis) if size > 1 else array
    same = array == first if not close else np.abs(array - first) <= close
    if size > 1 and same.all():
      array = first
  return array


def join(one: Known, other: Known) -> Known:
  """Returns what is known of a value that may equal either of two."""
  values = np.broadcast_arrays(one.value, other.value)
  varies = one.varies | other.varies | (values[0] != values[1])
  return Known(np.asarray(values[0]), varies, one.shape)
