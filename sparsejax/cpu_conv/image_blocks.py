"""A batch in blocks of a few images, so that the intermediate arrays fit the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.cpu_conv.formulations import Padding

ROWS = 2048  # patches per block, roughly: with their gradients they fit the second-level cache


def sum_over_blocks(
  block_term: Callable[[jax.Array, jax.Array], jax.Array],
  images: jax.Array,
  gradient: jax.Array,
  padding: Padding,
  shape: tuple[int, ...],
) -> jax.Array:
  """Returns the sum over a batch of a function of a few images at a time, in float32.

  The arrays that the function makes on the way are many times as large as the images; those of a
  block fit the cache. Every block has the same number of images, a divisor of the batch size, so
  none are left over.

  Args:
    block_term: (padded images, the gradient of their convolution) -> the block's term of the sum,
      an array of `shape`.
    images: (examples, height, width, channels).
    gradient: the gradient of the convolution's output, (examples, height, width, features).
    padding: zeros (before, after) along height and width.
    shape: the shape of each term, and so of the sum.
  """
  block_size = images_per_block(gradient)
  padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))

  def add(total, block):
    return total + block_term(*block).astype(jnp.float32), None

  blocks = split_into_blocks(padded, block_size), split_into_blocks(gradient, block_size)
  return lax.scan(add, jnp.zeros(shape, jnp.float32), blocks)[0]


def split_into_blocks(batch: jax.Array, block_size: int) -> jax.Array:
  """Returns a batch (examples, ...) as (blocks, block_size, ...)."""
  return batch.reshape(-1, block_size, *batch.shape[1:])


def images_per_block(gradient: jax.Array) -> int:
  """Returns the number of images in a block: the largest divisor of the batch size that fits.

  Args:
    gradient: the gradient of the convolution's output, which has the batch size and the positions.
  """
  positions = gradient.shape[1] * gradient.shape[2]
  return largest_divisor(len(gradient), max(1, ROWS // positions))


def largest_divisor(number: int, most: int) -> int:
  """Returns the largest number up to `most` that divides `number`."""
  return max(divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)
