"""What is known of a value before any data is: its numbers, and where they may yet change.

An axis along which all is the same has size 1 here, whatever its size in the program: a channel
that is zero takes one entry, not one for each pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROUNDING = 1e-6  # of the largest


class Known(NamedTuple):
  """A value's numbers, right where nothing else says that they may change.

  Attributes:
    value: the numbers, of any number where they may change.
    varies: where a value depends on the data, or on what is trained further.
    shape: the shape in the program; both arrays have these sizes or 1.
  """

  value: np.ndarray
  varies: np.ndarray
  shape: tuple[int, ...]

  @property
  def is_fixed(self) -> bool:
    return not self.varies.any()

  def maybe(self) -> np.ndarray:
    """Returns where this may be other than zero."""
    return self.varies | (self.value != 0)

  def fixed_part(self) -> np.ndarray:
    """Returns the numbers, zero where they may change."""
    return np.where(self.varies, np.zeros((), self.value.dtype), self.value)

  def full(self) -> np.ndarray:
    return np.broadcast_to(self.value, self.shape)


def fixed(value: np.ndarray, shape: Sequence[int] | None = None) -> Known:
  """Returns what is known of a constant.

  Example:
    >>> fixed(np.zeros((1, 2)), (4, 2)).maybe().tolist()
    [[False, False]]
  """
  shape = tuple(np.shape(value) if shape is None else shape)
  return Known(np.asarray(value), np.zeros((1,) * len(shape), bool), shape)


def unknown(shape: Sequence[int]) -> Known:
  """Returns what is known of a value that may be anything."""
  ones = (1,) * len(shape)
  return Known(np.zeros(ones, np.float32), np.ones(ones, bool), tuple(shape))


def zeros(varies: np.ndarray, shape: Sequence[int], dtype=np.float32) -> Known:
  """Returns what is zero wherever it does not vary."""
  return Known(np.zeros((1,) * len(shape), dtype), varies, tuple(shape))


def of(value, varies: np.ndarray | None = None) -> Known:
  """Returns what is known of an array that is given; nothing of random keys."""
  if jnp.issubdtype(jnp.result_type(value), jax.dtypes.extended):
    return unknown(jnp.shape(value))
  known = fixed(np.asarray(value))
  return known if varies is None else known._replace(varies=varies)


def spread(array: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
  """Returns an array with some axes at their full sizes."""
  wanted = [shape[i] if i in axes else n for i, n in enumerate(array.shape)]
  return np.broadcast_to(array, wanted)


def collapse(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
  """Returns whether anything along some axes is true, which keep the size 1."""
  return np.asarray(array.any(tuple(axes), keepdims=True)) if axes else array


def compressed(known: Known) -> Known:
  """Returns the same with the size 1 wherever all along an axis are equal."""
  return known._replace(value=_compressed(known.value, 0), varies=_compressed(known.varies, 0))


def rounded(known: Known) -> Known:
  """Returns the same, where what differs by a sum's rounding alone counts as equal."""
  value = known.fixed_part()  # what else stands where numbers may change, is none
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
  """Returns what is known of a value that may be either."""
  values = np.broadcast_arrays(one.value, other.value)
  varies = one.varies | other.varies | (values[0] != values[1])
  return Known(np.asarray(values[0]), varies, one.shape)
