"""Max-pooling whose gradient is fast on CPU."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax.cpu_conv import choice


def max_pool(x: jax.Array) -> jax.Array:
  """Returns the maximum of each 2x2 window of NHWC images, at stride 2; odd edges are dropped.

  The result equals `nn.max_pool(x, (2, 2), (2, 2))`, gradient included. On CPU the gradient of
  `nn.max_pool`, XLA's select-and-scatter, takes ten times as long as the gradient of comparisons
  between the window's corners.
  """
  if choice.is_plain():
    return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
  return max_of_corners(x)


def max_of_corners(x: jax.Array) -> jax.Array:
  """The same maximum, by comparing the four corners of every window in reading order."""
  n, h, w, c = x.shape
  windows = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
  top = _first_max(windows[:, :, 0, :, 0], windows[:, :, 0, :, 1])
  bottom = _first_max(windows[:, :, 1, :, 0], windows[:, :, 1, :, 1])
  return _first_max(top, bottom)


def _first_max(a: jax.Array, b: jax.Array) -> jax.Array:
  """The larger of two, NaN if either is; a tie sends its whole gradient to the first."""
  return jnp.where((a >= b) | jnp.isnan(a), a, b)
