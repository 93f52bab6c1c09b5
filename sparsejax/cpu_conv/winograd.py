"""The 3x3 convolution at stride 1 by 16 products for four outputs, where the taps need 36.

This is Winograd's minimal filtering F(2x2, 3x3). Tiles of 4x4 pixels, two pixels apart, and the
kernel are transformed by sums; each of the 16 places of a tile then needs one matrix product over
the channels; the products are transformed back to 2x2 outputs per tile. Lavin and Gray 2016, Fast
Algorithms for Convolutional Neural Networks, section 4.1.

A NaN appears only in the outputs that see it, as in the direct convolution. An infinity can become
NaN there, because it is added and subtracted. If one pixel is M times as large as the others, each
output that sees it has an error of about 1e-7 M times the largest tap, even where the tap on that
pixel is zero and the direct convolution loses nothing. The transforms add four pixels, and so
overflow beyond a quarter of the largest float32.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from sparsejax.cpu_conv.formulations import Padding, Pair

TILE, STEP, TAPS = 4, 2, 3  # along each axis: a tile's pixels, its outputs, the kernel's taps
Matrix = tuple[tuple[float, ...], ...]
Grid = list[list[jax.Array]]
# B^T, G and A^T of the paper. Each gradient uses the transposes of its own factors.
IMAGE_TRANSFORM: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL_TRANSFORM: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT_TRANSFORM: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))


def winograd(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
  """The convolution with a 3x3 kernel at stride 1, by 16 matrix products."""
  _check(kernel, strides)
  return _convolved(x, _taps(kernel), padding, jnp.dot)


def input_gradient_by_winograd(
  x: jax.Array, kernel: jax.Array, gradient: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
  """Returns the input gradient: the gradient's convolution with the kernel turned round."""
  _check(kernel, strides)
  turned = [row[::-1] for row in _taps(kernel)[::-1]]

  def product(tile, tap):  # transposing the kernel would take as long as the products
    return lax.dot_general(tile, tap, (((3,), (1,)), ((), ())))

  return _convolved(gradient, turned, _gradient_padding(padding), product)


def kernel_gradient_by_winograd(
  x: jax.Array, kernel: jax.Array, gradient: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
  """Returns the kernel gradient, by the same tiles of the images, in float32."""
  _check(kernel, strides)

  def product(tile, outputs):
    columns, rows = (array.reshape(-1, array.shape[-1]) for array in (tile, outputs))
    return jnp.dot(columns.T, rows, preferred_element_type=jnp.float32)

  tiles = _image_tiles(x, padding)
  outputs = _transformed(_transpose(OUTPUT_TRANSFORM), _output_tiles(gradient, padding))
  taps = _transformed(_transpose(KERNEL_TRANSFORM), _each(product, tiles, outputs))
  return jnp.stack([jnp.stack(row) for row in taps]).astype(kernel.dtype)


def _convolved(x: jax.Array, taps: Grid, padding: Padding, product: Callable) -> jax.Array:
  height, width = _output_size(x, padding)
  products = _each(product, _image_tiles(x, padding), _transformed(KERNEL_TRANSFORM, taps))
  outputs = _transformed(OUTPUT_TRANSFORM, products)
  interleaved = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)
  examples, rows, _, columns, _, features = interleaved.shape
  whole = interleaved.reshape(examples, STEP * rows, STEP * columns, features)
  return whole[:, :height, :width]


def _image_tiles(x: jax.Array, padding: Padding) -> Grid:
  """The transformed tiles: for each place in a tile an array (examples, rows, columns, channels).

  If the number of outputs is odd, half of the last tile lies outside, over zeros.
  """
  tiles = [_tiles(size) for size in _output_size(x, padding)]
  padded = _padded(x, padding)
  down, across = (
    [slice(place, place + STEP * count - 1, STEP) for place in range(TILE)] for count in tiles
  )
  return _transformed(
    IMAGE_TRANSFORM, [[padded[:, row, column] for column in across] for row in down]
  )


def _output_tiles(gradient: jax.Array, padding: Padding) -> Grid:
  """The gradients of the 2x2 outputs of each tile, with zeros where a tile is half outside.

  They are cut from the padded gradient, which the input gradient needs too. XLA writes that out
  once; from the unpadded gradient it would compute whatever made the gradient, often a BatchNorm,
  again for each of 16 sums.
  """
  around = _gradient_padding(padding)
  padded = _padded(gradient, around)
  starts = [before for before, _ in around]
  stops = [
    start + STEP * _tiles(size) for start, size in zip(starts, gradient.shape[1:3], strict=True)
  ]
  ends = [max(0, stop - size) for stop, size in zip(stops, padded.shape[1:3], strict=True)]
  whole = jnp.pad(padded, ((0, 0), *((0, end) for end in ends), (0, 0)))
  down, across = (
    [slice(start + place, stop, STEP) for place in range(STEP)]
    for start, stop in zip(starts, stops, strict=True)
  )
  return [[whole[:, row, column] for column in across] for row in down]


def _gradient_padding(padding: Padding) -> Padding:
  """The padding with which the gradient's convolution gives the input gradient."""
  down, across = ((TAPS - 1 - before, TAPS - 1 - after) for before, after in padding)
  return down, across


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
  """The images with their padding, and with the zeros that the last tile sees beyond it."""
  ends = [
    STEP * _tiles(size) + TAPS - 1 - length - sum(axis)
    for size, length, axis in zip(_output_size(x, padding), x.shape[1:3], padding, strict=True)
  ]
  whole = ((before, after + end) for (before, after), end in zip(padding, ends, strict=True))
  return jnp.pad(x, ((0, 0), *whole, (0, 0)))


def _taps(kernel: jax.Array) -> Grid:
  return [[kernel[row, column] for column in range(TAPS)] for row in range(TAPS)]


def _transformed(matrix: Matrix, grid: Sequence[Sequence[jax.Array]]) -> Grid:
  """M G M^T for a grid G of arrays."""
  rows = [_combined(matrix, row) for row in grid]
  columns = [_combined(matrix, column) for column in zip(*rows, strict=True)]
  return [list(row) for row in zip(*columns, strict=True)]


def _combined(matrix: Matrix, arrays: Sequence[jax.Array]) -> list[jax.Array]:
  """Weighted sums of the arrays, one for each row of the matrix; zeros are skipped."""
  return [
    jnp.asarray(sum(factor * array for factor, array in zip(row, arrays, strict=True) if factor))
    for row in matrix
  ]


def _each(function: Callable, first: Grid, second: Grid) -> Grid:
  return [list(map(function, *rows)) for rows in zip(first, second, strict=True)]


def _transpose(matrix: Matrix) -> Matrix:
  return tuple(zip(*matrix, strict=True))


def _output_size(x: jax.Array, padding: Padding) -> list[int]:
  return [length + sum(axis) - TAPS + 1 for length, axis in zip(x.shape[1:3], padding, strict=True)]


def _tiles(outputs: int) -> int:
  return -(-outputs // STEP)


def _check(kernel: jax.Array, strides: Pair) -> None:
  if kernel.shape[:2] != (TAPS, TAPS) or tuple(strides) != (1, 1):
    raise ValueError(f'kernel {kernel.shape} at strides {strides} must be 3x3 at stride 1')
