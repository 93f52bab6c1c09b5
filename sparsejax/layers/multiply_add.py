"""The convolution of small groups, depthwise above all, as sums of elementwise products."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.layers.formulations import Padding, Pair, taps
from sparsejax.layers.image_blocks import images_a_block, in_blocks, summed_over_blocks


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def multiply_add(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int
) -> jax.Array:
  """Sums of elementwise products, a term for each tap and input of a group, in float32.

  Left to itself XLA would write out the image once for every tap, for the kernel's gradient: of a
  depthwise 3x3 over 32x32x32 that takes 54 ms (batch 32, one core) where a few images at a time
  take 3.
  """
  return _sums_of_products(x, kernel, strides, padding, groups)


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
  return multiply_add(x, kernel, strides, padding, groups), (x, kernel)


def _multiply_add_backward(strides, padding, groups, kept, gradient):
  x, kernel = kept
  return (
    images_of_groups(x, kernel, gradient, strides, padding, groups),
    kernel_of_groups_by_blocks(x, kernel, gradient, strides, padding, groups),
  )


multiply_add.defvjp(_multiply_add_forward, _multiply_add_backward)


def images_of_groups(
  x: jax.Array,
  kernel: jax.Array,
  gradient: jax.Array,
  strides: Pair,
  padding: Padding,
  groups: int,
) -> jax.Array:
  """Returns the gradient of the images: at stride 1 by sums with the kernel turned round.

  So each term is a slice; of what JAX makes of it each is a gradient among zeros, which takes twice
  as long (32x32x32, 16x16x128: 5.5 / 2.2, 5.1 / 2.4 ms at batch 128 on two quiet cores). At stride
  2 its way is as fast as any that was tried, a few images at a time: at once XLA would compute what
  the gradient is made of anew for every tap, nine times a BatchNorm (mobilenet's first: 17 ms).
  """
  sizes = zip(kernel.shape[:2], padding, strict=True)
  left = tuple((size - 1 - before, size - 1 - after) for size, (before, after) in sizes)
  if max(strides) == 1 and min(map(min, left)) >= 0:
    return _sums_of_products(gradient, _turned(kernel, groups), strides, left, groups)
  images = images_a_block(gradient)
  like = jnp.zeros((images, *x.shape[1:]), x.dtype)
  _, pull = jax.vjp(lambda x: _sums_of_products(x, kernel, strides, padding, groups), like)
  blocks = in_blocks(gradient, images)
  return lax.map(lambda block: pull(block)[0], blocks).reshape(x.shape)


def _turned(kernel, groups):
  """The kernel that leads from features back to channels, within each group."""
  height, width, inputs, _ = kernel.shape
  by_group = jnp.flip(kernel, (0, 1)).reshape(height, width, inputs, groups, -1)
  return jnp.moveaxis(by_group, -1, 2).swapaxes(3, 4).reshape(height, width, -1, groups * inputs)


def kernel_of_groups_by_blocks(
  x: jax.Array,
  kernel: jax.Array,
  gradient: jax.Array,
  strides: Pair,
  padding: Padding,
  groups: int,
) -> jax.Array:
  """Returns the gradient of a kernel of groups, by the terms of a few images at a time."""
  outputs = kernel.shape[3] // groups

  def of_block(images, gradient):
    terms = _terms(images, kernel.shape, strides, ((0, 0), (0, 0)))
    each = [gradient[..., index::outputs].astype(jnp.float32) for index in range(outputs)]
    sums = [jnp.stack([jnp.sum(term * of, (0, 1, 2)) for term in terms]) for of in each]
    return jnp.stack(sums, -1)

  shape = kernel.size // (groups * outputs), groups, outputs
  total = summed_over_blocks(of_block, x, gradient, padding, shape)
  return total.reshape(kernel.shape).astype(kernel.dtype)
