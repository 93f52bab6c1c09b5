"""The convolution at stride 1 by one matrix product, several outputs of a row at a time.

A strip of `count` neighbouring outputs sees length + count - 1 columns of the image. These make a
row of the product's left side; on the right side each output has its own copy of the kernel's taps,
at its own place among zeros. That takes (length + count - 1) / length times as many multiplications
as the taps need, but count times the features fill the vector units where the features of one
output do not, and fewer pixels are copied.

Zero times NaN or infinity is NaN: either of them, in a pixel or in the gradient, makes its whole
strip NaN, up to three neighbours along the row further than in the direct convolution. A finite
outlier times zero is zero, however large it is.
"""

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.cpu_conv.formulations import Padding, Pair
from sparsejax.cpu_conv.image_blocks import largest_divisor

WIDEST = 128  # columns of the product's right side; at this width it runs at the machine's rate
LONGEST = 4  # outputs of a strip; with more the zeros cost as much as the width gains


def strips(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
  """The convolution at stride 1, by strips of outputs."""
  count = _outputs_per_strip(x, kernel, strides, padding)
  y = jnp.dot(_pixels(x, kernel, padding, count), _spread(kernel, count))
  return y.reshape(*y.shape[:2], -1, kernel.shape[-1])


def input_gradient_by_strips(
  x: jax.Array, kernel: jax.Array, gradient: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
  """Returns the input gradient: the gradients of the strips, added where the strips overlap.

  They are added first along the height, then along the width: added at once, they would be a sum of
  as many terms as the kernel has taps, each read from memory.
  """
  count = _outputs_per_strip(x, kernel, strides, padding)
  (top, bottom), (left, right) = padding
  height, width, channels = x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3]
  strip_gradients = jnp.dot(_split_into_strips(gradient, count), _spread(kernel, count).T)
  strip_gradients = lax.optimization_barrier(strip_gradients)
  by_row = jnp.split(strip_gradients, kernel.shape[0], axis=-1)
  rows = sum(_placed(array, 1, row, height) for row, array in enumerate(by_row))
  rows = lax.optimization_barrier(rows)
  # Columns and channels are one axis here, so that each sum runs over more than a few floats.
  columns = sum(
    _placed(rows[:, :, strip], 2, strip * count * channels, width * channels)
    for strip in range(rows.shape[2])
  )
  padded = jnp.asarray(columns).reshape(len(x), height, width, channels)
  return padded[:, top : height - bottom, left : width - right]


def kernel_gradient_by_strips(
  x: jax.Array, kernel: jax.Array, gradient: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
  """Returns the kernel gradient, summed over the kernel's places in a strip, in float32."""
  count = _outputs_per_strip(x, kernel, strides, padding)
  length, width, channels, features = kernel.shape
  pixels = _pixels(x, kernel, padding, count)
  outputs = _split_into_strips(gradient, count)
  pixels, outputs = (array.reshape(-1, array.shape[-1]) for array in (pixels, outputs))
  # The gradient is the left factor, because XLA is fast at products of rows by columns.
  product = jnp.dot(outputs.T, pixels, preferred_element_type=jnp.float32)
  spread = product.reshape(count, features, length, width + count - 1, channels)
  total = sum(spread[place, :, :, place : place + width] for place in range(count))
  return jnp.moveaxis(total, 0, -1).astype(kernel.dtype)


def _outputs_per_strip(x, kernel, strides, padding) -> int:
  if max(strides) > 1:
    raise ValueError(f'strides {strides} must be 1 along both axes')
  outputs = x.shape[2] + sum(padding[1]) - kernel.shape[1] + 1
  return largest_divisor(outputs, max(1, min(LONGEST, WIDEST // kernel.shape[-1])))


def _pixels(x, kernel, padding, count) -> jax.Array:
  """Returns each strip's pixels: (examples, output height, strips, length * columns * channels)."""
  length, width, channels, _ = kernel.shape
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0))) if any(map(any, padding)) else x
  examples, height, columns, _ = padded.shape
  rows = padded.reshape(examples, height, columns * channels)
  seen, apart = (width + count - 1) * channels, count * channels
  starts = range(0, rows.shape[2] - seen + 1, apart)
  # Without the barriers XLA would compute the inner pieces again for each row of the kernel.
  beside = lax.optimization_barrier(
    jnp.stack([rows[:, :, start : start + seen] for start in starts], axis=2)
  )
  below = [beside[:, row : row + height - length + 1] for row in range(length)]
  return lax.optimization_barrier(jnp.concatenate(below, axis=-1))


def _spread(kernel, count) -> jax.Array:
  """The kernel for each output of a strip: (rows * columns * channels, count * features)."""
  columns = kernel.shape[1] + count - 1
  places = [_placed(kernel, 1, place, columns) for place in range(count)]
  return jnp.stack(places, axis=3).reshape(-1, count * kernel.shape[-1])


def _split_into_strips(gradient, count) -> jax.Array:
  """Returns the gradient by strips of outputs: (examples, height, strips, count * features)."""
  examples, height, width, features = gradient.shape
  return gradient.reshape(examples, height, width // count, count * features)


def _placed(array, axis, start, size) -> jax.Array:
  """The array among zeros along an axis."""
  room = [(0, 0)] * array.ndim
  room[axis] = start, size - start - array.shape[axis]
  return jnp.pad(array, room)
