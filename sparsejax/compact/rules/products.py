"""Contractions and convolutions: a summed index can be removed where it contributes nothing."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules.rule import Constants, Graph, Rule, Small, pin_all
from sparsejax.compact.trace.known import Known, collapse, rounded, spread, unknown, zeros
from sparsejax.compact.trace.labels import Axes
from sparsejax.sparsity.program.equations import Equation

# Dot


def _free(rank, *taken):
  """Returns the axes of an array of this rank that no list of axes has taken."""
  return [i for i in range(rank) if not any(i in axes for axes in taken)]


def dot_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  """Ties summed and batch axes of the operands in pairs; the output has batch, then free axes."""
  summed, batch = eqn.params['dimension_numbers']
  left, right = ins
  for a, b in (*zip(*summed, strict=True), *zip(*batch, strict=True)):
    graph.labels.union(left[a], right[b])
  graph.sums(eqn, summed, ins)
  free = [
    [axes[i] for i in _free(len(axes), own_summed, own_batch)]
    for axes, own_summed, own_batch in zip(ins, summed, batch, strict=True)
  ]
  return [[*(left[a] for a in batch[0]), *free[0], *free[1]]]


def dot_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  """An entry varies if it sums a product of an entry that varies and one that may be nonzero."""
  del constants
  nonzero = [one.maybe_nonzero() for one in ins]
  varies = [one.varies for one in ins]
  counts = _dot(eqn, ins, varies[0], nonzero[1]) + _dot(eqn, ins, nonzero[0], varies[1])
  out_varies = counts > 0
  dtype = _dtype(eqn, ins)
  parts = [one.fixed_part() for one in ins]
  if out_varies.all() or not all(part.any() for part in parts):
    return [zeros(out_varies, eqn.out_shapes[0], dtype)]
  value = _dot(eqn, ins, *parts).astype(dtype)
  return [Known(value, out_varies, eqn.out_shapes[0])]


def _dtype(eqn, ins):
  return eqn.params.get('preferred_element_type') or np.result_type(*[one.value for one in ins])


def _dot(eqn, ins, *arrays):
  """Returns the result of a `dot_general` for two arrays in place of its operands.

  Like those of `Known`, the arrays may have size 1 along an axis on which they are constant, though
  the operand is larger there. Summed and batch axes get its size; a free axis keeps size 1.

  Args:
    eqn: the equation.
    ins: the known values of its operands, for their shapes.
    *arrays: two arrays.
  """
  summed, batch = eqn.params['dimension_numbers']
  labels = [[0] * len(one.shape) for one in ins]  # for each axis, an integer as np.einsum takes it
  new_label = iter(range(52))
  for axes in (summed, batch):
    for a, b in zip(*axes, strict=True):
      labels[0][a] = labels[1][b] = next(new_label)
  out_labels = [labels[0][a] for a in batch[0]]
  operands = []
  for n, (one, array) in enumerate(zip(ins, arrays, strict=True)):
    for i in _free(len(one.shape), summed[n], batch[n]):
      labels[n][i] = next(new_label)
      out_labels.append(labels[n][i])
    wide = spread(array, one.shape, [*summed[n], *batch[n]])
    # Booleans are counted, and NumPy's einsum does not take bfloat16, whose kind is V.
    operands += [wide.astype(np.float32) if array.dtype.kind in 'bV' else wide, labels[n]]
  return np.asarray(np.einsum(*operands, out_labels, optimize=True))


# Convolution


def conv_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  numbers = eqn.params['dimension_numbers']
  groups = eqn.params['feature_group_count']
  if eqn.params['batch_group_count'] > 1:
    return pin_all(graph, eqn, ins)
  labels = graph.labels
  image, kernel = ins
  batch, channel, *space = numbers.lhs_spec
  outputs, inputs, *window = numbers.rhs_spec
  for axes, spatial in ((image, space), (kernel, window)):
    labels.pin_axes([axes[i] for i in spatial], eqn.name)
  out = labels.axes(eqn.out_shapes[0])
  labels.pin_axes([out[i] for i in numbers.out_spec[2:]], eqn.name)
  out[numbers.out_spec[0]] = image[batch]
  out[numbers.out_spec[1]] = kernel[outputs]
  if groups == 1:
    labels.union(image[channel], kernel[inputs])
    graph.sums(eqn, ((channel,), (inputs,)), ins)
    return [out]
  labels.pin(kernel[inputs], eqn.name)
  read, made = (axis.reshape(groups, -1) for axis in (image[channel], kernel[outputs]))
  for column in (*read.T, *made.T):  # a group is removed whole, inputs and outputs
    labels.union(read[:, 0], column)
  return [out]


def conv_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants
  if eqn.params['batch_group_count'] > 1:
    return [unknown(eqn.out_shapes[0])]
  image, kernel = ins
  numbers = eqn.params['dimension_numbers']
  varying = [
    _by_channel(eqn, image.varies, kernel.maybe_nonzero()),
    _by_channel(eqn, image.maybe_nonzero(), kernel.varies),
  ]
  shape = [1] * len(eqn.out_shapes[0])
  shape[numbers.out_spec[1]] = -1
  varies = (varying[0] | varying[1]).reshape(shape)
  parts = [one.fixed_part() for one in ins]
  dtype = _dtype(eqn, ins)
  if varies.all() or not all(part.any() for part in parts):
    return [zeros(varies, eqn.out_shapes[0], dtype)]
  return [rounded(Known(convolved(eqn, ins, *parts), varies, eqn.out_shapes[0]))]


def _by_channel(eqn, image, kernel):
  """Returns, for each output channel, whether it reads an entry where both arrays are true."""
  numbers = eqn.params['dimension_numbers']
  groups = eqn.params['feature_group_count']
  batch, _, *space = numbers.lhs_spec
  outputs, inputs, *window = numbers.rhs_spec
  made, each = eqn.in_shapes[1][outputs], eqn.in_shapes[1][inputs]
  read = np.broadcast_to(collapse(image, [batch, *space]).reshape(-1), (groups * each,))
  pairs = collapse(kernel, window).transpose([*window, inputs, outputs])
  pairs = pairs.reshape(pairs.shape[-2:])
  pairs = np.broadcast_to(pairs, (each, made)).reshape(each, groups, made // groups)
  counts = np.einsum(
    'gi,igo->go', *(a.astype(np.float32) for a in (read.reshape(groups, each), pairs))
  )
  return counts.reshape(-1) > 0


def convolved(eqn, ins, image, kernel):
  """Returns the convolution of two arrays; a batch axis of size 1 keeps size 1."""
  numbers = eqn.params['dimension_numbers']
  image = spread(image, ins[0].shape, numbers.lhs_spec[1:])
  kernel = np.broadcast_to(kernel, ins[1].shape)
  highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
  [value] = eqn.bind([jnp.asarray(image), jnp.asarray(kernel)], precision=highest)
  return np.asarray(value)


def conv(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  numbers = eqn.params['dimension_numbers']
  groups = eqn.params['feature_group_count']
  if groups > 1:
    each = eqn.in_shapes[1][numbers.rhs_spec[1]]
    groups = values[0].shape[numbers.lhs_spec[1]] // each
  return eqn.bind(values, feature_group_count=groups)


def product(eqn, ins, *arrays):
  """Returns the product of two arrays by the equation's primitive."""
  if eqn.name == 'dot_general':
    return _dot(eqn, ins, *arrays)
  return convolved(eqn, ins, *arrays)


RULES = {
  'dot_general': Rule(dot_axes, dot_known),
  'conv_general_dilated': Rule(conv_axes, conv_known, conv),
}
