"""Checks of exports: example batches of two sizes, and a comparison of outputs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.answers import apart

CHECKED_SIZES = (1, 3)  # batch sizes at which an exported network is compared


def shapes_of(examples: Sequence[Any]) -> list[tuple[tuple[int, ...], Any]]:
  """Returns the shape and dtype of every array of the examples, whose first axis is the batch.

  Raises:
    ValueError: there is no array, or the arrays differ in their batch size.

  Example:
    >>> shapes_of([np.zeros((2, 3), np.float32)])
    [((2, 3), dtype('float32'))]
  """
  specs = [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(list(examples))]
  firsts = [shape[0] if shape else None for shape, _ in specs]
  if not specs or len(set(firsts)) > 1 or not firsts[0]:
    shapes = ', '.join(str(shape) for shape, _ in specs) or 'none'
    raise ValueError(
      f'the shapes of the examples, {shapes}, must each begin with the same batch size, 1 or more'
    )
  return specs


def resize(examples: Sequence[Any], size: int) -> list[Any]:
  """Returns the examples, repeated or cut to a batch size.

  Shapes become random numbers, and so do floats that are all equal, such as zeros, since a network
  may give the right answer to them whatever its weights are.

  Example:
    >>> resize([np.array([[1.0], [2.0]])], 3)[0].tolist()
    [[1.0], [2.0], [1.0]]
  """
  random = np.random.default_rng(0)

  def resize_leaf(leaf):
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    shape = (size, *jnp.shape(leaf)[1:])
    if is_float and (is_shape or np.ptp(np.asarray(leaf, np.float64)) == 0):
      return random.normal(size=shape).astype(jnp.result_type(leaf))
    if is_shape:
      return np.zeros(shape, leaf.dtype)
    values = np.asarray(leaf)
    return values[np.arange(size) % len(values)]

  return [jax.tree.map(resize_leaf, example) for example in examples]


def check_close(name: str, actual: Any, expected: Any, tolerance: float) -> None:
  """Raises an OSError if outputs differ by more than a share of their spread.

  Args:
    name: the file, for the message.
    actual: a pytree of its outputs.
    expected: a pytree of the function's outputs.
    tolerance: the largest difference, relative to their spread.

  Example:
    >>> check_close('model', np.array([1.0, 2.1]), np.array([1.0, 2.0]), 1e-5)
    Traceback (most recent call last):
    OSError: model was not written: read back, its answers differ by 0.1, where they spread by 0.5
  """
  for have, want in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    if jnp.shape(have) != jnp.shape(want):
      raise OSError(f'{name} was not written: read back, its answers have shape {jnp.shape(have)}')
  if found := apart(actual, expected, tolerance):
    raise OSError(
      f'{name} was not written: read back, its answers differ by {found.difference:.3g}, where '
      f'they spread by {found.spread:.3g}'
    )
