"""The input gradient and the kernel gradient of a convolution, each computed in several ways."""

import jax
import jax.numpy as jnp

from sparsejax.cpu_conv.formulations import Padding, Pair, direct, im2col, taps
from sparsejax.cpu_conv.image_blocks import sum_over_blocks


def input_gradient_by_direct(
  x: jax.Array,
  kernel: jax.Array,
  gradient: jax.Array,
  strides: Pair,
  padding: Padding,
  groups: int = 1,
) -> jax.Array:
  """Returns the input gradient, as XLA transposes its own convolution."""
  return jax.vjp(lambda x: direct(x, kernel, strides, padding, groups), x)[1](gradient)[0]


def input_gradient_by_im2col(
  x: jax.Array, kernel: jax.Array, gradient: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
  """Returns the input gradient, from the gradient of the images' patches."""
  return jax.vjp(lambda x: im2col(x, kernel, strides, padding), x)[1](gradient)[0]


def kernel_gradient_by_direct(
  x: jax.Array,
  kernel: jax.Array,
  gradient: jax.Array,
  strides: Pair,
  padding: Padding,
  groups: int = 1,
) -> jax.Array:
  """Returns the kernel gradient, as XLA transposes its own convolution."""
  return jax.vjp(lambda kernel: direct(x, kernel, strides, padding, groups), kernel)[1](gradient)[0]


def kernel_gradient_by_blocks(
  x: jax.Array, kernel: jax.Array, gradient: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
  """Returns the kernel gradient, by the patches of a few images at a time, in float32.

  The patches of a whole batch are many times as large as the images and fit no cache; those of a
  block do. The gradient is the left factor, because XLA is fast at products of rows by columns.
  """
  features = kernel.shape[-1]

  def block_gradient(images, gradient):
    columns = jnp.concatenate(taps(images, kernel.shape, strides, ((0, 0), (0, 0))), axis=-1)
    columns = columns.reshape(-1, columns.shape[-1])
    rows = gradient.reshape(-1, features).T
    return jnp.dot(rows, columns, preferred_element_type=jnp.float32)

  shape = features, kernel.size // features
  total = sum_over_blocks(block_gradient, x, gradient, padding, shape)
  return total.T.reshape(kernel.shape).astype(kernel.dtype)
