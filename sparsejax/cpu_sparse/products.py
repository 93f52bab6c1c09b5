"""What of a program is a product with a kernel, read as a convolution of feature-major values."""

from typing import NamedTuple

import numpy as np

from sparsejax.compact.trace.equations import Equation
from sparsejax.cpu_sparse.kernel import Window

Order = tuple[int, ...]  # of a value as it lies in memory: which of its axes comes first, second...


class Product(NamedTuple):
  """How an equation's operands lie for a sparse product.

  Attributes:
    data: which operand is the data; the other one is the kernel.
    data_order: the data's axes: what is summed over, height and width, the batch.
    image: (channels, height, width, batch) of the data in that order.
    kernel_order: the kernel's axes: outputs, channels, height and width.
    kernel: (outputs, channels, height, width) of the kernel in that order.
    out_order: the result's axes: outputs, height and width, the batch.
    out_features: how many of the result's axes are outputs.
    window: how the kernel moves.
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
  def turned_order(self) -> Order:
    """The data's axes with what is summed over last."""
    summed = len(self.kernel_order) - self.out_features
    return (*self.data_order[summed:], *self.data_order[:summed])

  @property
  def is_matrix(self) -> bool:
    """Whether this is a matrix product over whatever pixels there are."""
    return self.kernel[2:] == (1, 1) and self.window == Window()


def product_of(eqn: Equation, data: int) -> Product | None:
  """Returns how an equation is a sparse product; None where it is none, or is not understood.

  Args:
    eqn: a `dot_general` without batch axes, or a `conv_general_dilated` of one or two spatial axes
      without groups.
    data: which operand is the data.
  """
  if 0 in (*np.ravel(eqn.in_shapes[0]), *np.ravel(eqn.in_shapes[1]), *eqn.out_shapes[0]):
    return None
  if eqn.params.get('preferred_element_type') not in (None, np.float32):
    return None
  if eqn.name == 'dot_general':
    return _of_dot(eqn, data)
  return _of_convolution(eqn) if eqn.name == 'conv_general_dilated' and data == 0 else None


def _of_dot(eqn, data):
  summed, pairs = eqn.params['dimension_numbers']
  if any(map(len, pairs)):
    return None
  shape, kernel_shape = eqn.in_shapes[data], eqn.in_shapes[1 - data]
  rest = [i for i in range(len(shape)) if i not in summed[data]]
  outs = [i for i in range(len(kernel_shape)) if i not in summed[1 - data]]
  features = [i + (len(rest) if data == 0 else 0) for i in range(len(outs))]
  batch = [i + (0 if data == 0 else len(outs)) for i in range(len(rest))]
  channels, examples = _size(shape, summed[data]), _size(shape, rest)
  return Product(
    data,
    (*summed[data], *rest),
    (channels, 1, 1, examples),
    (*outs, *summed[1 - data]),
    (_size(kernel_shape, outs), channels, 1, 1),
    (*features, *batch),
    len(outs),
    Window(),
  )


def _size(shape, axes):
  return int(np.prod([shape[i] for i in axes], dtype=np.int64))


def _of_convolution(eqn):
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  (batch, channel, *space), (out, into, *taps) = numbers.lhs_spec, numbers.rhs_spec
  made, features, *places = numbers.out_spec
  lines, padding = len(space), tuple(map(tuple, p['padding']))
  if not (
    lines in (1, 2)
    and p['feature_group_count'] == p['batch_group_count'] == 1
    and set(p['lhs_dilation']) == {1}
    and min(map(min, padding)) >= 0
  ):
    return None
  flat = (1,) * (2 - lines)  # an axis of one row, for signals
  image, kernel = eqn.in_shapes
  rows = ((0, 0),) * (2 - lines)
  window = Window(
    (*flat, *p['window_strides']), (*rows, *padding), (*flat, *(p['rhs_dilation'] or flat))
  )
  return Product(
    0,
    (channel, *space, batch),
    (image[channel], *flat, *(image[i] for i in space), image[batch]),
    (out, into, *taps),
    (kernel[out], kernel[into], *flat, *(kernel[i] for i in taps)),
    (features, *places, made),
    1,
    window,
  )
