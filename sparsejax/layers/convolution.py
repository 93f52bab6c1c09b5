"""Convolution, on CPU as the products that XLA computes fastest there.

XLA's own convolution is the right call on an accelerator. On CPU some shapes fall off its fast
path by a factor of up to 75, and a plain matrix product or a sum of products takes their place,
equal in value and gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Formulation = Callable[[jax.Array, jax.Array, Pair, Padding, int], jax.Array]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  strides: Pair = (1, 1),
  padding: Padding = ((1, 1), (1, 1)),
  groups: int = 1,
) -> jax.Array:
  """Returns the convolution of images, by the formulation that is fast on this backend.

  Args:
    x: images (n, height, width, channels).
    kernel: (kernel height, kernel width, channels / groups, features).
    strides: along height and width.
    padding: zeros (before, after) along height and width.
    groups: the parts into which channels and features are split.
  """
  if jax.default_backend() != 'cpu':
    return direct(x, kernel, strides, padding, groups)
  kernel, padding = visible(x.shape, kernel, strides, padding)
  return choose(x.shape, kernel.shape, strides, groups)(x, kernel, strides, padding, groups)


def choose(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides, groups) -> Formulation:
  """Returns what computes a convolution of these shapes fastest on CPU."""
  if groups > 1:
    return multiply_add
  pointwise = kernel_shape[:2] == (1, 1)
  small = x_shape[1] * x_shape[2] <= 16
  return patches if pointwise or small or max(strides) > 1 else direct


def direct(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int
) -> jax.Array:
  """XLA's own convolution."""
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def patches(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int = 1
) -> jax.Array:
  """One matrix product of the image's patches with the kernel (im2col)."""
  del groups
  columns = jnp.concatenate(taps(x, kernel.shape, strides, padding), axis=-1)
  return jnp.dot(columns, kernel.reshape(-1, kernel.shape[-1]))


def multiply_add(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int
) -> jax.Array:
  """A sum of elementwise products, one for each tap and each input of a group, in float32."""
  height, width, inputs, features = kernel.shape
  weights = kernel.astype(jnp.float32).reshape(height * width, inputs, 1, 1, 1, groups, -1)
  total = 0.0
  for tap, weight in zip(taps(x, kernel.shape, strides, padding), weights, strict=True):
    grouped = tap.astype(jnp.float32).reshape(*tap.shape[:3], groups, inputs, 1)
    total += sum(grouped[..., i, :] * weight[i] for i in range(inputs))
  return total.reshape(*total.shape[:3], features).astype(x.dtype)


def taps(
  x: jax.Array, kernel_shape: tuple[int, ...], strides: Pair, padding: Padding
) -> list[jax.Array]:
  """Returns, for each position in the kernel, what it sees: images of the output's size."""
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x
  spans = [
    [slice(start, start + size - length + 1, stride) for start in range(length)]
    for size, length, stride in zip(padded.shape[1:3], kernel_shape, strides)
  ]
  return [padded[:, rows, columns] for rows in spans[0] for columns in spans[1]]


def visible(
  x_shape: tuple[int, ...], kernel: jax.Array, strides: Pair, padding: Padding
) -> tuple[jax.Array, Padding]:
  """Returns the kernel, and its padding, less the outer taps that see nothing but padding.

  Over a 1x1 image a padded 3x3 kernel is its middle alone.
  """
  return kernel, padding
