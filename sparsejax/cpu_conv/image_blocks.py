"""A batch in blocks of a few images, so that the intermediate arrays fit the cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.cpu_conv.formulations import Padding

ROWS = 2048  # patches in a block, roughly: with their gradients they fit the second-level cache


def summed_over_blocks(
  term: Callable[[jax.Array, jax.Array], jax.Array],
  x: jax.Array,
  gradient: jax.Array,
  padding: Padding,
  shape: tuple[int, ...],
) -> jax.Array:
  """Returns the sum of a term over the blocks of a batch, in float32.

  Args:
    term: (padded images, the gradient of their convolution) -> a float32 array of `shape`.
    x: images (examples, height, width, channels).
    gradient: the gradient of the convolution's output.
    padding: zeros (before, after) along height and width.
    shape: the shape of the sum.
  """
  images = images_a_block(gradient)
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))

  def add(total, block):
    return total + term(*block), None

  blocks = in_blocks(padded, images), in_blocks(gradient, images)
  return lax.scan(add, jnp.zeros(shape), blocks)[0]


def in_blocks(array: jax.Array, images: int) -> jax.Array:
  """Returns the array of a batch with the blocks as a leading axis."""
  return array.reshape(-1, images, *array.shape[1:])


def images_a_block(gradient: jax.Array) -> int:
  """Returns how many images make a block, in the batch whose output has this gradient."""
  positions = gradient.shape[1] * gradient.shape[2]
  return largest_divisor(len(gradient), max(1, ROWS // positions))


def largest_divisor(number: int, most: int) -> int:
  """Returns the largest number up to `most` that divides `number`."""
  return max(divisor for divisor in range(1, min(number, most) + 1) if number % divisor == 0)
