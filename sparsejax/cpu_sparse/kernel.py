"""Sparse convolutions by the C++ kernel, called through XLA's foreign function interface."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.cpu_sparse import compiling

TARGET = 'sparsejax_sparse'
MAX_OFFSET = 2**31 - 1  # the kernel's offsets are 32-bit integers


class Window(NamedTuple):
  """The strides, padding and dilation of a convolution.

  Attributes:
    strides: along height and width.
    padding: the numbers of zeros (before, after) along height and width; none is negative.
    dilation: the distance between neighbouring taps along height and width.
  """

  strides: tuple[int, ...] = (1, 1)
  padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
  dilation: tuple[int, ...] = (1, 1)


class Nonzeros(NamedTuple):
  """The nonzero weights of a kernel in compressed rows, one row for each output.

  Attributes:
    row_starts: (outputs + 1,), the index in `values` at which each row begins, and last
      the number of values.
    coordinates: (input channel, row of the tap, column of the tap), an array of each, with one
      entry for each nonzero.
    values: (nonzeros,), the weights.
    shape: (outputs, channels, kernel height, kernel width).
  """

  row_starts: np.ndarray
  coordinates: tuple[np.ndarray, ...]
  values: np.ndarray
  shape: tuple[int, ...]


def nonzeros_of(kernel: np.ndarray) -> Nonzeros:
  """Returns the nonzero weights of a kernel (outputs, channels, kernel height, kernel width).

  Example:
    >>> weights = nonzeros_of(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]).reshape(3, 2, 1, 1))
    >>> weights.row_starts.tolist(), weights.coordinates[0].tolist(), weights.values.tolist()
    ([0, 1, 1, 3], [1, 0, 1], [2.0, 3.0, 4.0])
  """
  outputs, *coordinates = np.nonzero(kernel)
  counts = np.bincount(outputs, minlength=len(kernel))
  row_starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
  values = kernel[outputs, *coordinates].astype(np.float32)
  return Nonzeros(row_starts, tuple(coordinates), values, kernel.shape)


@functools.cache
def register() -> None:
  """Registers the kernel with XLA, compiled if necessary; later calls do nothing.

  Raises:
    compiling.Unavailable: the kernel cannot be compiled or loaded on this machine.
  """
  function = compiling.library().SparsejaxSparse
  jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(function), platform='cpu')


class ImageLayout(NamedTuple):
  """The layout in which the kernel reads an image, with padding and strides resolved.

  With strides (s, t) a tap meets every s-th row and every t-th column only. The padded image is
  therefore copied into phases: phase (a, b) has the rows a, a + s, ... and the columns b, b + t,
  ..., so that the pixels that a tap meets are adjacent.

  Attributes:
    phases: the number of phases along height and width that the taps use.
    phase_size: the rows and columns of one phase.
    out_size: the rows and columns of the result.
    in_place: whether the image is read where it is, because there is nothing to resolve.
  """

  phases: tuple[int, ...]
  phase_size: tuple[int, ...]
  out_size: tuple[int, ...]
  in_place: bool


def image_layout(size: Sequence[int], taps: Sequence[int], window: Window) -> ImageLayout:
  """Returns the layout of an image of (height, width) for a kernel of (height, width) taps.

  Example:
    >>> image_layout((8, 8), (3, 3), Window((2, 2), ((0, 1), (0, 1))))
    ImageLayout(phases=(2, 2), phase_size=(5, 5), out_size=(4, 4), in_place=False)
  """
  axes = zip(size, taps, *window, strict=True)
  phases, phase_size, out_size = zip(*(_axis_layout(*axis) for axis in axes), strict=True)
  in_place = phase_size == tuple(size) and window.strides == (1, 1)
  return ImageLayout(phases, phase_size, out_size, in_place)


def _axis_layout(
  size: int, taps: int, stride: int, padding: tuple[int, int], dilation: int
) -> tuple[int, int, int]:
  """Returns (phases, size of a phase, size of the result) along one spatial axis."""
  padded = size + sum(padding)
  reach = (taps - 1) * dilation + 1
  out_size = max((padded - reach) // stride + 1, 0)
  return min(stride, reach), -(-padded // stride), out_size


def offsets_of(weights: Nonzeros, layout: ImageLayout, window: Window, batch: int) -> np.ndarray:
  """Returns the distance in elements from a result's position to the input of each nonzero.

  Args:
    weights: the kernel.
    layout: the layout (channels, phases, phase size, batch) of the input.
    window: the strides, padding and dilation.
    batch: the number of examples.

  Raises:
    ValueError: the input has too many elements for offsets of 32 bits.
  """
  channels, *taps = (index.astype(np.int64) for index in weights.coordinates)
  (row, row_phase), (column, column_phase) = (
    divmod(tap * dilation, stride)
    for tap, dilation, stride in zip(taps, window.dilation, window.strides, strict=True)
  )
  offsets = channels
  for index, size in (
    (row_phase, layout.phases[0]),
    (column_phase, layout.phases[1]),
    (row, layout.phase_size[0]),
    (column, layout.phase_size[1]),
  ):
    offsets = offsets * size + index
  if _elements(weights.shape[1], layout, batch) > MAX_OFFSET:
    raise ValueError('an input of 2**31 elements or more must be given in smaller batches')
  return (offsets * batch).astype(np.int32)


def _elements(channels: int, layout: ImageLayout, batch: int) -> int:
  """Returns the number of elements of an input in its layout."""
  return channels * int(np.prod(layout.phases)) * int(np.prod(layout.phase_size)) * batch


def convolve(
  x: jax.Array, weights: Nonzeros, bias: np.ndarray, window: Window, relu: bool = False
) -> jax.Array:
  """Returns the convolution of images with a sparse kernel, plus a bias, with an optional ReLU.

  Args:
    x: (channels, height, width, batch), float32; for a matrix product also (batch, channels).
    weights: the nonzero weights of the kernel.
    bias: (outputs,).
    window: the strides, padding and dilation.
    relu: whether negative results become zero.

  Returns:
    (outputs, height, width, batch).

  Raises:
    compiling.Unavailable: the kernel cannot be compiled or loaded.
    ValueError: the input has 2**31 elements or more.
  """
  register()
  is_batch_first = x.ndim == 2
  if is_batch_first:
    batch, channels = x.shape
    image_size = (1, 1)
  else:
    channels, *image_size, batch = x.shape
  layout = image_layout(image_size, weights.shape[2:], window)
  offsets = offsets_of(weights, layout, window, batch)
  if is_batch_first:  # the kernel transposes tiles of x, and multiplies by the tile's width
    offsets = weights.coordinates[0].astype(np.int32)
  scratch_size = 0 if layout.in_place else _elements(channels, layout, batch)
  out = jax.ShapeDtypeStruct((weights.shape[0], *layout.out_size, batch), jnp.float32)
  scratch = jax.ShapeDtypeStruct((scratch_size,), jnp.float32)
  call = jax.ffi.ffi_call(TARGET, (out, scratch), vmap_method='sequential')
  settings = {
    'stride': window.strides,
    'before': tuple(before for before, _ in window.padding),
    'phases': layout.phases,
    'size': layout.phase_size,
  }
  attributes = {name: np.asarray(pair, np.int64) for name, pair in settings.items()}
  return call(x, weights.row_starts, offsets, weights.values, bias, relu=relu, **attributes)[0]
