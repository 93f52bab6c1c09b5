"""The convolution by XLA and by im2col, and the pixels that each tap of a kernel sees."""

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def direct(
  x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, groups: int = 1
) -> jax.Array:
  """Returns the two-dimensional convolution as XLA computes it, which the others must equal.

  Args:
    x: images, (batch, height, width, inputs).
    kernel: (height, width, inputs / groups, outputs).
    strides: along height and width.
    padding: ((top, bottom), (left, right)).
    groups: the number of groups of channels.

  Returns:
    (batch, height, width, outputs).
  """
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def im2col(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
  """The convolution as one product of the matrix of the image's patches with the kernel."""
  columns = jnp.concatenate(taps(x, kernel.shape, strides, padding), axis=-1)
  return jnp.dot(columns, kernel.reshape(-1, kernel.shape[-1]))


def taps(
  x: jax.Array, kernel_shape: tuple[int, ...], strides: Pair, padding: Padding
) -> list[jax.Array]:
  """Returns the pixels that each tap of the kernel reads, as images of the output's size.

  The taps are in reading order. Each slice ends at the last start that leaves room for a whole
  kernel.
  """
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x
  rows, columns = (
    [slice(start, start + size - length + 1, stride) for start in range(length)]
    for size, length, stride in zip(padded.shape[1:3], kernel_shape[:2], strides, strict=True)
  )
  return [padded[:, row, column] for row in rows for column in columns]
