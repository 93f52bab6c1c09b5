"""Convolution, on CPU as the products that XLA computes fastest there.

An accelerator gets XLA's own convolution. On CPU that falls off its fast path for many shapes, and
a matrix product or a sum of elementwise products, equal in value and gradient, takes its place.
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
    x: images (examples, height, width, channels).
    kernel: (kernel height, kernel width, channels / groups, features).
    strides: along height and width.
    padding: zeros (before, after) along height and width.
    groups: the parts into which channels and features are split.
  """
  if jax.default_backend() != 'cpu':
    return direct(x, kernel, strides, padding, groups)
  kernel, padding = visible(x.shape, kernel, strides, padding)
  return fastest(x.shape, kernel.shape, strides, groups)(x, kernel, strides, padding, groups)


def fastest(
  image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Pair, groups: int
) -> Formulation:
  """Returns the formulation that is fastest on CPU for shapes after `visible`.

  Time of the direct convolution over that of the one chosen, forward and backward, float32, batch
  64-128, JAX 0.10.2, two cores (image x channels):
    grouped: depthwise 4.3 (32x32x32, 16x16x128), 21-32 (2x2x1024, 8x8x256 at stride 2);
      butterfly pairs 40-600; butterfly tree 1.3-200.
    pointwise: 1.3 (4x4, 512 to 2048), 1.4-2.7 (wider images), 3.3 (32x32, 256 to 512 at stride 2).
    strided 3x3: 1.2-1.5, against 0.9 in the worst case (32x32x16).
    4x4 images: 1.2; 2x2: 74; 1x1, where `visible` leaves a dense layer: 47.
  Elsewhere the patches of a 3x3 kernel cost more memory traffic than they save: 0.4-1.1, with
  1.3 at 24 channels.
  """
  height, width, inputs, features = kernel_shape
  if groups > 1:
    return multiply_add if inputs * features <= 4 * groups else direct
  pointwise, small = height * width == 1, image_shape[1] * image_shape[2] <= 16
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
  """One matrix product of the image's patches with the kernel (im2col); not for groups."""
  del groups
  columns = jnp.concatenate(taps(x, kernel.shape, strides, padding), axis=-1)
  return jnp.dot(columns, kernel.reshape(-1, kernel.shape[-1]))


def multiply_add(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int
) -> jax.Array:
  """Sums of elementwise products, a term for each tap and input of a group, in float32."""
  inputs = kernel.shape[2]
  terms = [
    tap[..., index::inputs].astype(jnp.float32)
    for tap in taps(x, kernel.shape, strides, padding)
    for index in range(inputs)
  ]
  # (outputs of a group, terms, 1, 1, 1, groups)
  weights = jnp.moveaxis(kernel.astype(jnp.float32).reshape(len(terms), groups, -1), -1, 0)
  weights = weights[:, :, None, None, None, :]
  outputs = [sum(map(jnp.multiply, terms, weight)) for weight in weights]
  y = jnp.stack(outputs, axis=-1)
  return y.reshape(*y.shape[:3], -1).astype(x.dtype)


def taps(
  x: jax.Array, kernel_shape: tuple[int, ...], strides: Pair, padding: Padding
) -> list[jax.Array]:
  """Returns what each position of the kernel sees, in reading order: images of the output's size.

  The stride of a slice ends it: the last start is the last that leaves room for a whole kernel.
  """
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x
  rows, columns = (
    [slice(start, start + size - length + 1, stride) for start in range(length)]
    for size, length, stride in zip(padded.shape[1:3], kernel_shape[:2], strides, strict=True)
  )
  return [padded[:, row, column] for row in rows for column in columns]


def visible(
  x_shape: tuple[int, ...], kernel: jax.Array, strides: Pair, padding: Padding
) -> tuple[jax.Array, Padding]:
  """Returns the kernel and padding less the outer taps that see nothing but padding.

  Over a 1x1 image a 3x3 kernel with one pixel of padding is its middle alone.
  """
  spans = [
    _visible_span(*axis)
    for axis in zip(x_shape[1:3], kernel.shape[:2], strides, padding, strict=True)
  ]
  (rows, row_padding), (columns, column_padding) = spans
  return kernel[rows, columns], (row_padding, column_padding)


def _visible_span(size: int, length: int, stride: int, padding: Pair) -> tuple[slice, Pair]:
  """The taps of one axis that see a pixel of the image somewhere, and the padding they need."""
  before, after = padding
  last = (size + before + after - length) // stride * stride - before  # the last window's start
  seen = [
    tap
    for tap in range(length)
    if any(0 <= start + tap < size for start in range(-before, last + 1, stride))
  ]
  first, stop = (seen[0], seen[-1] + 1) if seen else (0, length)
  # Where the last window ends short of the image, no padding is needed after it.
  return slice(first, stop), (before - first, max(last + stop - size, 0))
