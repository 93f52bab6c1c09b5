"""Trying an export: batches of two sizes made from the examples, and a comparison of answers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIZES = (1, 3)


def shapes_of(examples: Sequence[Any]) -> list[tuple[tuple[int, ...], Any]]:
  """Returns the shape and dtype of every array of the examples, whose first axis is the batch.

  Raises:
    ValueError: if there is no array, or they do not share their batch size.

  Example:
    >>> shapes_of([np.zeros((2, 3), np.float32)])
    [((2, 3), dtype('float32'))]
  """
  found = [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(list(examples))]
  firsts = [shape[0] if shape else None for shape, _ in found]
  if not found or len(set(firsts)) > 1 or not firsts[0]:
    shapes = ', '.join(str(shape) for shape, _ in found) or 'none'
    raise ValueError(
      f'the shapes of the examples, {shapes}, must each begin with the same batch size, 1 or more'
    )
  return found


def of_size(examples: Sequence[Any], size: int) -> list[Any]:
  """Returns the examples repeated to another batch size; shapes become random numbers.

  Example:
    >>> of_size([np.array([[1.0], [2.0]])], 3)[0].tolist()
    [[1.0], [2.0], [1.0]]
  """
  random = np.random.default_rng(0)

  def resized(leaf):
    if not isinstance(leaf, jax.ShapeDtypeStruct):
      values = np.asarray(leaf)
      return values[np.arange(size) % len(values)]
    shape = (size, *leaf.shape[1:])
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      return random.normal(size=shape).astype(leaf.dtype)
    return np.zeros(shape, leaf.dtype)

  return [jax.tree.map(resized, example) for example in examples]


def check_alike(what: str, found: Any, wanted: Any, close: float) -> None:
  """Raises an OSError where answers differ by more than `close` of their spread.

  Args:
    what: the file, for the message.
    found: its answers.
    wanted: the function's answers.
    close: the largest difference, as a share of the largest distance of an answer from their mean.

  Example:
    >>> check_alike('model', np.array([1.0, 2.1]), np.array([1.0, 2.0]), 1e-5)
    Traceback (most recent call last):
    OSError: model was not written: read back, its answers differ by 0.1, where they spread by 0.5
  """
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
  for one, other in pairs:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
      raise OSError(f'{what} was not written: read back, its answers have shape {one.shape}')
    one, other = one.astype(np.float64), other.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    apart = np.abs(np.subtract(one, other, out=np.zeros_like(one), where=~same)).max(initial=0)
    spread = _spread(other)
    if not apart <= close * (spread or 1.0):
      raise OSError(
        f'{what} was not written: read back, its answers differ by {apart:.3g}, where they '
        f'spread by {spread:.3g}'
      )


def _spread(values: np.ndarray) -> float:
  finite = values[np.isfinite(values)]
  if not finite.size:
    return 0.0
  return float(np.abs(finite - finite.mean()).max() or np.abs(finite).max())
