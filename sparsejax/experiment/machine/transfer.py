"""Trees of arrays between the devices and the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_host(state: Any) -> Any:
  """Returns the state as plain NumPy arrays, with keys as the numbers that they consist of."""
  return jax.device_get(jax.tree.map(_data, state))


def shaped_as_on_host(state: Any) -> Any:
  """Returns arrays with the shapes and dtypes of `to_host`, but meaningless values."""
  shapes = jax.eval_shape(lambda tree: jax.tree.map(_data, tree), state)
  return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def from_host(arrays: Any, like: Any) -> Any:
  """Returns the state whose arrays `to_host` returned.

  Args:
    arrays: the arrays on the host.
    like: a state of the same structure, or its shapes.
  """

  def restore_leaf(array, old):
    return jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(old) else array

  return jax.tree.map(restore_leaf, arrays, like)


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
  return jax.random.key_data(leaf) if _is_key(leaf) else leaf
