"""How many weights a rule keeps: a number for the layer, or n of each m inputs of an output."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Keep = int | tuple[int, int]


def check(kernel: Any, moments: Any, keep: Any) -> None:
  """Raises a ValueError unless a rule's arguments go together.

  Args:
    kernel: (groups, outputs, inputs).
    moments: the `Moments` of the inputs.
    keep: a number of weights for the whole layer, or (n, m).

  Example:
    >>> from sparsejax.second_order.moments import moments_of
    >>> check(jnp.ones((1, 2, 3)), moments_of(jnp.ones((1, 5, 3))), 7)
    Traceback (most recent call last):
    ValueError: keep=7 must be a number of weights from 0 to 6, or (n, m) with 1 <= n <= m...
  """
  shape = jnp.shape(kernel)
  if len(shape) != 3:
    raise ValueError(f'kernel of shape {shape} must be (groups, outputs, inputs)')
  groups, _, inputs = shape
  if moments.total.shape not in ((groups, inputs), (groups, inputs, inputs)):
    raise ValueError(
      f'moments of shape {moments.total.shape} must have {groups} groups of {inputs} inputs, as a '
      f'kernel of shape {shape}'
    )
  if isinstance(keep, tuple):
    is_right = len(keep) == 2 and all(map(_is_whole, keep))
    is_right = is_right and 1 <= keep[0] <= keep[1] and keep[1] >= 2
  else:
    is_right = _is_whole(keep) and 0 <= keep <= math.prod(shape)
  if not is_right:
    raise ValueError(
      f'keep={keep} must be a number of weights from 0 to {math.prod(shape)}, or (n, m) with '
      '1 <= n <= m and m >= 2'
    )


def _is_whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def shares(count: int, sizes: np.ndarray) -> np.ndarray:
  """Splits a count in proportion to sizes, as integers of this sum, none above its size.

  Each partial sum is the nearest integer to the count's own share.

  Example:
    >>> shares(5, np.array([4, 4, 2])).tolist()
    [2, 2, 1]
  """
  count, total = int(count), int(np.sum(sizes))
  ends = [0, *np.cumsum(sizes).tolist()]
  # In Python's integers: the product of two counts may exceed 64 bits.
  return np.diff([(2 * count * end + total) // (2 * total) if total else 0 for end in ends])


def best_of_each(scores: jax.Array, n: int, m: int) -> jax.Array:
  """Returns the mask of the n largest of each m consecutive scores along the last axis.

  Among equal scores the first are kept. The last group may be shorter.

  Example:
    >>> best_of_each(jnp.array([3.0, 1.0, 2.0, 2.0, 5.0]), 1, 2).tolist()
    [True, False, True, False, True]
  """
  size = scores.shape[-1]
  padding = [(0, 0)] * (scores.ndim - 1) + [(0, -size % m)]
  padded = jnp.pad(scores, padding, constant_values=-jnp.inf)
  groups = padded.reshape(*scores.shape[:-1], -1, m)
  best_first = jnp.argsort(-groups, axis=-1, stable=True)
  place = jnp.argsort(best_first, axis=-1)
  return (place < n).reshape(padded.shape)[..., :size]
