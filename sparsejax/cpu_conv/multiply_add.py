"""Convolutions with small groups, above all depthwise ones, as sums of elementwise products."""

import functools

import jax
import jax.numpy as jnp

from sparsejax.cpu_conv import choice
from sparsejax.cpu_conv.convolution_gradients import (
  input_gradient_by_direct,
  kernel_gradient_by_direct,
)
from sparsejax.cpu_conv.formulations import Padding, Pair, direct, taps
from sparsejax.cpu_conv.image_blocks import sum_over_blocks


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def multiply_add(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int
) -> jax.Array:
  """Sums of elementwise products in float32, with a term for each tap and each input of a group.

  For the kernel gradient XLA would by itself write out the image once for every tap: for a
  depthwise 3x3 over 32x32x32 that takes 54 ms (batch 32, one core), where a few images at a time
  take 3 ms.
  """
  return _multiply_add_forward(x, kernel, strides, padding, groups)[0]


def _sums_of_products(x, kernel, strides, padding, groups):
  terms = _terms(x, kernel.shape, strides, padding)
  # (outputs of a group, terms, 1, 1, 1, groups)
  weights = jnp.moveaxis(kernel.astype(jnp.float32).reshape(len(terms), groups, -1), -1, 0)
  weights = weights[:, :, None, None, None, :]
  outputs = [sum(map(jnp.multiply, terms, weight)) for weight in weights]
  y = jnp.stack(outputs, axis=-1)
  return y.reshape(*y.shape[:3], -1).astype(x.dtype)


def _terms(x, kernel_shape, strides, padding) -> list[jax.Array]:
  inputs = kernel_shape[2]
  return [
    tap[..., index::inputs].astype(jnp.float32)
    for tap in taps(x, kernel_shape, strides, padding)
    for index in range(inputs)
  ]


def _multiply_add_forward(x, kernel, strides, padding, groups):
  arrays, rest = (x, kernel), (strides, padding, groups)
  return choice.select_by_platform(_sums_of_products, direct, arrays, rest), arrays


def _multiply_add_backward(strides, padding, groups, kept, gradient):
  arrays, rest = (*kept, gradient), (strides, padding, groups)
  return (
    choice.select_by_platform(grouped_input_gradient, input_gradient_by_direct, arrays, rest),
    choice.select_by_platform(
      grouped_kernel_gradient_by_blocks, kernel_gradient_by_direct, arrays, rest
    ),
  )


multiply_add.defvjp(_multiply_add_forward, _multiply_add_backward)


def grouped_input_gradient(
  x: jax.Array,
  kernel: jax.Array,
  gradient: jax.Array,
  strides: Pair,
  padding: Padding,
  groups: int,
) -> jax.Array:
  """Returns the input gradient: sums with the kernel turned round.

  At stride 2 the taps that see a pixel depend on whether its row and its column are even or odd:
  each of the four kinds of pixel is a sum of its own, and the four are interleaved. Every term is
  then a slice, and one loop over all cores makes a sum; in the gradient that JAX derives every term
  is instead padded with zeros. Milliseconds on one core at batch 128, JAX's gradient a few images
  at a time / this one:
    32x32x64 at stride 2: 26.8 / 5.5, 16x16x128: 12.9 / 3.1, 8x8x256: 0.7 / 0.9.
  At stride 1 JAX's gradient takes twice as long (32x32x32: 5.5 / 2.2, 16x16x128: 5.1 / 2.4, on two
  cores).
  """
  padded = [size + sum(axis) for size, axis in zip(x.shape[1:3], padding, strict=True)]
  counts = [-(-size // stride) for size, stride in zip(padded, strides, strict=True)]

  def part_gradient(row, column):
    part = kernel[row :: strides[0], column :: strides[1]]
    if 0 in part.shape:  # no tap sees these pixels
      return jnp.zeros((len(x), *counts, x.shape[3]), x.dtype)
    sizes = zip(part.shape[:2], counts, gradient.shape[1:3], strict=True)
    around = tuple((length - 1, count - size) for length, count, size in sizes)
    return _sums_of_products(gradient, _turned(part, groups), (1, 1), around, groups)

  kinds = [
    [part_gradient(row, column) for column in range(strides[1])] for row in range(strides[0])
  ]
  between = jnp.stack([jnp.stack(row, axis=3) for row in kinds], axis=2)
  shape = [count * stride for count, stride in zip(counts, strides, strict=True)]
  (top, _), (left, _) = padding
  whole = between.reshape(len(x), *shape, x.shape[3])
  return whole[:, top : top + x.shape[1], left : left + x.shape[2]]


def _turned(kernel, groups):
  """The kernel that maps features back to channels, within each group."""
  height, width, inputs, _ = kernel.shape
  by_group = jnp.flip(kernel, (0, 1)).reshape(height, width, inputs, groups, -1)
  return jnp.moveaxis(by_group, -1, 2).swapaxes(3, 4).reshape(height, width, -1, groups * inputs)


def grouped_kernel_gradient_by_blocks(
  x: jax.Array,
  kernel: jax.Array,
  gradient: jax.Array,
  strides: Pair,
  padding: Padding,
  groups: int,
) -> jax.Array:
  """Returns the gradient of a grouped kernel, by the terms of a few images at a time."""
  outputs = kernel.shape[3] // groups

  def block_gradient(images, gradient):
    terms = _terms(images, kernel.shape, strides, ((0, 0), (0, 0)))
    each = [gradient[..., index::outputs].astype(jnp.float32) for index in range(outputs)]
    sums = [jnp.stack([jnp.sum(term * part, (0, 1, 2)) for term in terms]) for part in each]
    return jnp.stack(sums, -1)

  shape = kernel.size // (groups * outputs), groups, outputs
  total = sum_over_blocks(block_gradient, x, gradient, padding, shape)
  return total.reshape(kernel.shape).astype(kernel.dtype)
