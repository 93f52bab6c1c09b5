"""Sparse products by the C++ kernel, called from JAX through XLA's foreign functions."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.cpu_sparse import compiling

TARGET = 'sparsejax_sparse'
LARGEST = 2**31 - 1  # element of an input that an offset reaches


class Window(NamedTuple):
  """How a kernel moves over an image.

  Attributes:
    strides: along height and width.
    padding: zeros (before, after) along both; neither is negative.
    dilation: the distance of neighbouring taps.
  """

  strides: tuple[int, ...] = (1, 1)
  padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
  dilation: tuple[int, ...] = (1, 1)


class Rows(NamedTuple):
  """A kernel's nonzeros, output by output.

  Attributes:
    starts: where the row of each output begins in `values`, and where the last one ends.
    places: of each nonzero (input channel, tap's row, tap's column).
    values: the nonzeros.
    shape: (outputs, channels, kernel height, kernel width).
  """

  starts: np.ndarray
  places: tuple[np.ndarray, ...]
  values: np.ndarray
  shape: tuple[int, ...]


def rows_of(kernel: np.ndarray) -> Rows:
  """Returns the nonzeros of a kernel (outputs, channels, kernel height, kernel width).

  Example:
    >>> rows = rows_of(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]).reshape(3, 2, 1, 1))
    >>> rows.starts.tolist(), rows.places[0].tolist(), rows.values.tolist()
    ([0, 1, 1, 3], [1, 0, 1], [2.0, 3.0, 4.0])
  """
  outputs, *places = np.nonzero(kernel)
  counts = np.bincount(outputs, minlength=len(kernel))
  starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
  values = kernel[outputs, *places].astype(np.float32)
  return Rows(starts, tuple(places), values, kernel.shape)


@functools.cache
def register() -> None:
  """Makes the kernel known to XLA.

  Raises:
    compiling.Unavailable: it can't be had on this machine.
  """
  function = compiling.library().SparsejaxSparse
  jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(function), platform='cpu')


class Plane(NamedTuple):
  """Where the kernel finds an image's pixels: rows and columns apart that a stride separates.

  Attributes:
    phases: rows and columns of phases in use.
    size: rows and columns of one phase.
    out: rows and columns of what the product makes.
    is_image: whether this is the image as it is.
  """

  phases: tuple[int, ...]
  size: tuple[int, ...]
  out: tuple[int, ...]
  is_image: bool


def plane_of(image: Sequence[int], taps: Sequence[int], window: Window) -> Plane:
  """Returns where an image's pixels will lie, with padding and strides resolved.

  Example:
    >>> plane_of((8, 8), (3, 3), Window((2, 2), ((0, 1), (0, 1))))
    Plane(phases=(2, 2), size=(5, 5), out=(4, 4), is_image=False)
  """
  axes = zip(image, taps, *window, strict=True)
  phases, sizes, outs = zip(*(_axis(*axis) for axis in axes), strict=True)
  return Plane(phases, sizes, outs, sizes == tuple(image) and window.strides == (1, 1))


def _axis(size, taps, stride, padding, dilation):
  padded, reach = size + sum(padding), (taps - 1) * dilation + 1
  return min(stride, reach), -(-padded // stride), max((padded - reach) // stride + 1, 0)


def offsets_of(rows: Rows, plane: Plane, window: Window, batch: int) -> np.ndarray:
  """Returns for each nonzero how far from an output's position its input lies.

  Raises:
    ValueError: an input that is too large for 32 bits.
  """
  channels, *taps = (place.astype(np.int64) for place in rows.places)
  (down, across) = (
    divmod(tap * dilation, stride)
    for tap, dilation, stride in zip(taps, window.dilation, window.strides, strict=True)
  )
  found = channels
  for part, size in (
    (down[1], plane.phases[0]),
    (across[1], plane.phases[1]),
    (down[0], plane.size[0]),
    (across[0], plane.size[1]),
  ):
    found = found * size + part
  if rows.shape[1] * np.prod(plane.phases) * np.prod(plane.size) * batch > LARGEST:
    raise ValueError('an input of 2**31 elements or more must be given in smaller batches')
  return (found * batch).astype(np.int32)


def convolve(
  x: jax.Array, rows: Rows, bias: np.ndarray, window: Window, relu: bool = False
) -> jax.Array:
  """Returns the convolution of images with a sparse kernel, plus bias, through ReLU if asked for.

  Args:
    x: (channels, height, width, batch), float32; for a matrix product (batch, channels) as well.
    rows: the kernel's nonzeros.
    bias: of each output.
    window: how the kernel moves.
    relu: whether what is negative becomes zero.

  Returns:
    (outputs, height, width, batch).
  """
  register()
  turned = x.ndim == 2
  batch, channels, *image = (*x.shape, 1, 1) if turned else (x.shape[3], *x.shape[:3])
  plane = plane_of(image, rows.shape[2:], window)
  offsets = offsets_of(rows, plane, window, batch)
  if turned:
    offsets = rows.places[0].astype(np.int32)
  made = jax.ShapeDtypeStruct((rows.shape[0], *plane.out, batch), jnp.float32)
  elements = channels * int(np.prod(plane.phases)) * int(np.prod(plane.size)) * batch
  copied = jax.ShapeDtypeStruct((0 if plane.is_image else elements,), jnp.float32)
  call = jax.ffi.ffi_call(TARGET, (made, copied), vmap_method='sequential')
  before = tuple(pad for pad, _ in window.padding)
  settings = {
    name: np.asarray(pair, np.int64)
    for name, pair in (
      ('stride', window.strides),
      ('before', before),
      ('phases', plane.phases),
      ('size', plane.size),
    )
  }
  return call(x, rows.starts, offsets, rows.values, bias, relu=relu, **settings)[0]
