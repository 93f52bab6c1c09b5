"""Whether two answers of a function agree, measured by how far the expected ones spread."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Apart(NamedTuple):
  """How far two arrays are apart.

  Attributes:
    difference: the largest difference of two entries.
    spread: the spread of the expected array.
  """

  difference: float
  spread: float


def apart(actual: Any, expected: Any, tolerance: float) -> Apart | None:
  """Returns how far two answers are apart, or None if they agree.

  Answers agree if no entry differs by more than a share of the spread of its array. Integers and
  booleans must be equal. Equal infinities do not differ, nor does NaN in both. Random keys are not
  compared.

  Args:
    actual: a pytree of arrays.
    expected: a pytree with the same structure and shapes.
    tolerance: the largest difference of two numbers, relative to their spread.

  Returns:
    The largest difference in an array that disagrees, and the spread of this array; None if all
    agree.

  Example:
    >>> apart(np.array([1.0, 2.1]), np.array([1.0, 2.0]), 0.25)
    >>> difference, spread = apart(np.array([1.0, 2.1]), np.array([1.0, 2.0]), 1e-5)
    >>> round(difference, 3), spread
    (0.1, 0.5)
  """
  pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
  return max((found for pair in pairs if (found := _apart(*pair, tolerance))), default=None)


def _apart(actual: Any, expected: Any, tolerance: float) -> Apart | None:
  """Returns the difference and the spread of two arrays, or None if they agree."""
  dtype = jnp.result_type(expected)
  if jnp.issubdtype(dtype, jax.dtypes.extended):
    return None
  actual, expected = np.asarray(actual), np.asarray(expected)
  is_same = (actual == expected) | ((actual != actual) & (expected != expected))
  if is_same.all():
    return None
  kind = np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64
  actual, expected = actual.astype(kind), expected.astype(kind)
  differences = np.abs(np.subtract(actual, expected, out=np.zeros_like(expected), where=~is_same))
  difference = float(np.where(np.isnan(differences), np.inf, differences).max())
  spread = _spread(expected)
  is_close = difference <= tolerance * (spread or 1.0)
  return None if is_close and jnp.issubdtype(dtype, jnp.inexact) else Apart(difference, spread)


def _spread(values: np.ndarray) -> float:
  """Returns the largest distance of a finite number from the mean of the finite ones.

  If they are all equal, this is their magnitude; if none is finite, it is zero.

  Args:
    values: floating-point or complex numbers.

  Example:
    >>> _spread(np.array([1.0, 2.0, 6.0])), _spread(np.array([-3.0, -3.0]))
    (3.0, 3.0)
  """
  finite = values[np.isfinite(values)]
  if not finite.size:
    return 0.0
  return float(np.abs(finite - finite.mean()).max() or np.abs(finite).max())
