"""Reads matrix products and convolutions as sparse convolutions of feature-major arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsejax.cpu_sparse.kernel import Window
from sparsejax.sparsity.program.equations import Equation

Order = tuple[int, ...]  # the axes of an array, in the order in which they are stored


class Product(NamedTuple):
  """A matrix product or convolution, with the feature-major layout of its operands.

  A matrix product is a convolution over images of one pixel. The sizes of several axes with the
  same role, such as the heads and features of an attention layer, are multiplied.

  Attributes:
    data: the index of the operand that is the data; the other one is the kernel.
    data_order: the axes of the data, ordered as contracted axes, height, width and batch.
    image: the sizes (channels, height, width, batch) of the data in that order.
    kernel_order: the axes of the kernel, ordered as outputs, channels, height and width.
    kernel: the sizes (outputs, channels, height, width) of the kernel in that order.
    out_order: the axes of the result, ordered as outputs, height, width and batch.
    out_features: the number of the result's axes that are outputs.
    window: the strides, padding and dilation.
  """

  data: int
  data_order: Order
  image: tuple[int, ...]
  kernel_order: Order
  kernel: tuple[int, ...]
  out_order: Order
  out_features: int
  window: Window

  @property
  def batch_first_order(self) -> Order:
    """The axes of the data with the contracted ones last."""
    contracted = len(self.kernel_order) - self.out_features
    return (*self.data_order[contracted:], *self.data_order[:contracted])

  @property
  def is_matrix(self) -> bool:
    """Whether the kernel is one tap with stride 1, so that this is a matrix product."""
    return self.kernel[2:] == (1, 1) and self.window == Window()

  @property
  def has_one_pixel(self) -> bool:
    """Whether it is a matrix product over images of one pixel, so that all else is the batch."""
    return self.is_matrix and self.image[1:3] == (1, 1)


def product_of(eqn: Equation, data: int) -> Product | None:
  """Returns the product that an equation computes, or None if it is not supported.

  It supports `dot_general` without batch axes, and `conv_general_dilated` with one or two spatial
  axes, without groups, input dilation or negative padding; both in float32 and not empty.

  Args:
    eqn: the equation.
    data: the index of the operand that is the data.
  """
  if 0 in (*np.ravel(eqn.in_shapes[0]), *np.ravel(eqn.in_shapes[1]), *eqn.out_shapes[0]):
    return None
  if eqn.params.get('preferred_element_type') not in (None, np.float32):
    return None
  if eqn.name == 'dot_general':
    return _from_dot(eqn, data)
  return _from_convolution(eqn) if eqn.name == 'conv_general_dilated' and data == 0 else None


def _from_dot(eqn: Equation, data: int) -> Product | None:
  """Returns the product of a `dot_general`, or None if it has batch axes."""
  contracted, batch_axes = eqn.params['dimension_numbers']
  if any(map(len, batch_axes)):
    return None
  shape, kernel_shape = eqn.in_shapes[data], eqn.in_shapes[1 - data]
  batch = [axis for axis in range(len(shape)) if axis not in contracted[data]]
  outputs = [axis for axis in range(len(kernel_shape)) if axis not in contracted[1 - data]]
  # The result has the remaining axes of the first operand, then those of the second.
  first_output = len(batch) if data == 0 else 0
  first_batch = 0 if data == 0 else len(outputs)
  out_features = range(first_output, first_output + len(outputs))
  out_batch = range(first_batch, first_batch + len(batch))
  channels = _size(shape, contracted[data])
  return Product(
    data=data,
    data_order=(*contracted[data], *batch),
    image=(channels, 1, 1, _size(shape, batch)),
    kernel_order=(*outputs, *contracted[1 - data]),
    kernel=(_size(kernel_shape, outputs), channels, 1, 1),
    out_order=(*out_features, *out_batch),
    out_features=len(outputs),
    window=Window(),
  )


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
  """Returns the product of the sizes of some axes."""
  return int(np.prod([shape[axis] for axis in axes], dtype=np.int64))


def _from_convolution(eqn: Equation) -> Product | None:
  """Returns the product of a `conv_general_dilated`, or None if it is not supported.

  A signal with one spatial axis is an image of one row.
  """
  params = eqn.params
  numbers = eqn.params['dimension_numbers']
  batch, channel, *space = numbers.lhs_spec
  out, into, *taps = numbers.rhs_spec
  out_batch, out_feature, *out_space = numbers.out_spec
  rank = len(space)
  padding = tuple(map(tuple, params['padding']))
  if not (
    rank in (1, 2)
    and params['feature_group_count'] == params['batch_group_count'] == 1
    and set(params['lhs_dilation']) == {1}
    and min(map(min, padding)) >= 0
  ):
    return None
  missing = 2 - rank
  ones, no_padding = (1,) * missing, ((0, 0),) * missing
  image_shape, kernel_shape = eqn.in_shapes
  height_and_width = (*ones, *(image_shape[axis] for axis in space))
  kernel_size = (*ones, *(kernel_shape[axis] for axis in taps))
  return Product(
    data=0,
    data_order=(channel, *space, batch),
    image=(image_shape[channel], *height_and_width, image_shape[batch]),
    kernel_order=(out, into, *taps),
    kernel=(kernel_shape[out], kernel_shape[into], *kernel_size),
    out_order=(out_feature, *out_space, out_batch),
    out_features=1,
    window=Window(
      strides=(*ones, *params['window_strides']),
      padding=(*no_padding, *padding),
      dilation=(*ones, *(params['rhs_dilation'] or ones)),
    ),
  )
