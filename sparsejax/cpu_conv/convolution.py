"""Convolution, on CPU by the products that XLA computes fastest there.

An accelerator gets XLA's own convolution. On CPU XLA's convolution leaves its fast path for many
shapes, so matrix products or sums of elementwise products, equal in value and gradient, replace it.
A program that is traced on CPU and lowered for another platform has XLA's own convolution there.

The CPU formulations support reverse mode, and forward mode over it, but not forward mode alone;
those that `choice.plain` selects support all three.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.cpu_conv import choice
from sparsejax.cpu_conv.convolution_gradients import (
  input_gradient_by_direct,
  input_gradient_by_im2col,
  kernel_gradient_by_blocks,
  kernel_gradient_by_direct,
)
from sparsejax.cpu_conv.formulations import Padding, Pair, direct, im2col
from sparsejax.cpu_conv.multiply_add import multiply_add
from sparsejax.cpu_conv.strips import input_gradient_by_strips, kernel_gradient_by_strips, strips
from sparsejax.cpu_conv.winograd import (
  input_gradient_by_winograd,
  kernel_gradient_by_winograd,
  winograd,
)

FEW = 64  # pixels of a whole batch, up to which transforming the kernel costs more than it saves
Formulation = Callable[[jax.Array, jax.Array, Pair, Padding], jax.Array]
Gradient = Callable[[jax.Array, jax.Array, jax.Array, Pair, Padding], jax.Array]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  strides: Pair = (1, 1),
  padding: Padding = ((1, 1), (1, 1)),
  groups: int = 1,
) -> jax.Array:
  """Returns the convolution of images, by the formulation that is fastest on this backend.

  Args:
    x: images (examples, height, width, channels).
    kernel: (kernel height, kernel width, channels / groups, features).
    strides: along height and width.
    padding: zeros (before, after) along height and width.
    groups: the parts into which channels and features are split.
  """
  if choice.is_plain() or _is_empty(x.shape, kernel.shape, padding):
    return direct(x, kernel, strides, padding, groups)
  kernel, padding = visible(x.shape, kernel, strides, padding)
  with choice.reverse_mode():
    if groups > 1:
      return fastest_grouped(kernel.shape, groups)(x, kernel, strides, padding, groups)
    parts = fastest(x.shape, kernel.shape, strides, padding, x.dtype)
    return assembled(x, kernel, parts, strides, padding)


def _is_empty(image_shape, kernel_shape, padding) -> bool:
  """Returns whether the result is empty, for lack of examples or of pixels under a whole kernel."""
  sides = zip(image_shape[1:3], kernel_shape[:2], padding, strict=True)
  return 0 in image_shape or any(size + sum(pad) < length for size, length, pad in sides)


class Parts(NamedTuple):
  """The functions that compute a convolution and its two gradients.

  Attributes:
    forward: (x, kernel, strides, padding) -> y.
    input_gradient: (x, kernel, gradient, strides, padding) -> the gradient of the images.
    kernel_gradient: the same arguments -> the gradient of the kernel.
  """

  forward: Formulation
  input_gradient: Gradient
  kernel_gradient: Gradient


def fastest(
  image_shape: tuple[int, ...],
  kernel_shape: tuple[int, ...],
  strides: Pair,
  padding: Padding,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> Parts:
  """Returns the fastest parts on CPU for an ungrouped kernel, after `visible`.

  The figures are milliseconds: float32, JAX 0.10.2, two quiet cores; "input" and "kernel" are the
  gradients. At batch 128, the best other formulation / Winograd (at the machine's rate the nine
  products of each case but the last take 23):
    3x3, 32x32, 64 to 64: forward 45 / 25, input 46 / 24, kernel 46 / 55.
    3x3, 16x16, 128 to 128: forward 24 / 22, input 25 / 21, kernel 54 / 26.
    3x3, 8x8, 256 to 256: forward 24 / 16, input 26 / 15, kernel 44 / 19.
    3x3, 4x4, 512 to 512: forward 25 / 12, input 21 / 12, kernel 30 / 15.
    3x3, 2x2, 512 to 512: forward 6 / 4, input 5 / 4, kernel 7 / 4.
  Batch 32 is alike (96 to 96 over 32x32: 17 / 14, 17 / 14, 23 / 14), except for few channels,
  where the saved products do not repay the sums: 16 to 16 over 32x32 takes 0.8 / 1.5, 0.8 / 1.9,
  1.2 / 3.5.
  At batch 64, direct / im2col / blocks:
    3x3 at stride 2, 32x32, 64 to 128: forward 24 / 42 / -, input 44 / 27 / -, kernel 53 / 56 / 27.
    pointwise, 32x32, 64 to 256: forward 48 / 28 / -, input 60 / 14 / -, kernel 154 / 60 / 30.
  At batch 128, direct / im2col or blocks / strips:
    5x5 without padding, 12x12, 20 to 50: forward 5 / 3 / 2, input 5 / 4 / 2, kernel 5 / 2.5 / 2.
    the same, 28x28, 1 to 20: forward 1 / 2 / 0.5, kernel 4 / 2.2 / 0.7.
    3x3, 32x32, 3 to 32: forward 8 / 2 / 1.4, kernel 10 / 3.6 / 3.1; 3 to 64: forward 3.6 / 3.1 / 2,
      kernel 10 / 7 / 7; but 16 to 16: forward 6 / 10 / 7, input 3 / 7 / 8, kernel 7 / 5 / 9.
  At batch 1 on one core with AVX2, forward by direct / im2col / Winograd, whose transform of the
  kernel is most of the work up to about 64 pixels, of all images together:
    3x3, 16x16, 128 to 128: 1.6 / 1.5 / 1.0.
    3x3, 8x8, 256 to 256: 2.5 / 2.1 / 2.7; at batch 2: 2.2 / 2.2 / 2.1.
    3x3, 4x4, 512 to 512: 5.1 / 4.7 / 7.1; at batch 4: 6.5 / 4.6 / 8.5; at batch 16: 26 / 21 / 13.
    3x3, 2x2, 512 to 512: 28 / 3.1 / 4.5; at batch 16: 431 / 6.2 / 12; at batch 64: - / 18 / 12.
  Over 2x2 images the direct convolution takes 74 times as long as im2col; over 1x1 images, where
  `visible` leaves a dense layer, 47 times.
  """
  pixels = image_shape[1] * image_shape[2]
  channels = min(kernel_shape[2:])
  # Winograd's differences need digits that its sums would round away in bfloat16.
  tiled = kernel_shape[:2] == (3, 3) and max(strides) == 1 and max(map(max, padding)) <= 2
  if tiled and channels >= 32 and dtype == jnp.float32:
    by_winograd = pixels <= 256 or channels >= 96
    kernel_gradient = kernel_gradient_by_winograd if by_winograd else kernel_gradient_by_blocks
    forward = im2col if _are_few(image_shape) else winograd
    return Parts(forward, input_gradient_by_winograd, kernel_gradient)
  pointwise = kernel_shape[:2] == (1, 1)
  small = pixels <= 16
  strided = max(strides) > 1
  if pointwise or small or strided:
    return Parts(
      im2col if pointwise or small else direct, input_gradient_by_im2col, kernel_gradient_by_blocks
    )
  positions = (image_shape[1] - kernel_shape[0] + 1) * (image_shape[2] - kernel_shape[1] + 1)
  # The input gradient of an unpadded convolution would be mostly products with padding.
  unpadded = not any(map(any, padding)) and pixels >= 2 * positions
  if unpadded or kernel_shape[2] <= 4:
    return Parts(strips, input_gradient_by_strips, kernel_gradient_by_strips)
  return Parts(
    direct,
    input_gradient_by_direct,
    kernel_gradient_by_direct if pixels <= 64 else kernel_gradient_by_blocks,
  )


def _are_few(image_shape) -> bool:
  """Returns whether images have few pixels together; a symbolic number of images counts as many."""
  examples, height, width, _ = image_shape
  return isinstance(examples, int) and examples * height * width <= FEW


def fastest_grouped(kernel_shape: tuple[int, ...], groups: int) -> Callable[..., jax.Array]:
  """Returns the formulation that is fastest on CPU for a grouped convolution.

  Over `multiply_add` the direct convolution takes, forward and backward: depthwise 4.3 times as
  long (32x32x32, 16x16x128) or 21-32 times (2x2x1024, 8x8x256 at stride 2); butterfly pairs 40-600
  times; butterfly tree 1.3-200 times.
  """
  return multiply_add if kernel_shape[2] * kernel_shape[3] <= 4 * groups else direct


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def assembled(
  x: jax.Array, kernel: jax.Array, parts: Parts, strides: Pair, padding: Padding
) -> jax.Array:
  """The convolution without groups, with its gradients computed as `parts` says."""
  return _assembled_forward(x, kernel, parts, strides, padding)[0]


def _assembled_forward(x, kernel, parts, strides, padding):
  arrays = x, kernel
  return choice.select_by_platform(parts.forward, direct, arrays, (strides, padding)), arrays


def _assembled_backward(parts, strides, padding, kept, gradient):
  arrays, rest = (*kept, gradient), (strides, padding)
  return (
    choice.select_by_platform(parts.input_gradient, input_gradient_by_direct, arrays, rest),
    choice.select_by_platform(parts.kernel_gradient, kernel_gradient_by_direct, arrays, rest),
  )


assembled.defvjp(_assembled_forward, _assembled_backward)


def visible(
  x_shape: tuple[int, ...], kernel: jax.Array, strides: Pair, padding: Padding
) -> tuple[jax.Array, Padding]:
  """Returns the kernel and padding without the outer taps that see only padding.

  Over a 1x1 image only the middle of a 3x3 kernel with one pixel of padding remains.
  """
  spans = [
    _visible_span(*axis)
    for axis in zip(x_shape[1:3], kernel.shape[:2], strides, padding, strict=True)
  ]
  (rows, row_padding), (columns, column_padding) = spans
  return kernel[rows, columns], (row_padding, column_padding)


def _visible_span(size: int, length: int, stride: int, padding: Pair) -> tuple[slice, Pair]:
  """The taps along one axis that see at least one pixel of the image, and the padding they need."""
  before, after = padding
  last = (size + before + after - length) // stride * stride - before  # the last window's start
  seen = [
    tap
    for tap in range(length)
    if any(0 <= start + tap < size for start in range(-before, last + 1, stride))
  ]
  first, stop = (seen[0], seen[-1] + 1) if seen else (0, length)
  # If the last window ends short of the image, no padding is needed after it.
  return slice(first, stop), (before - first, max(last + stop - size, 0))
