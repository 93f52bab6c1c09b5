"""Contractions and convolutions: a summed index can be removed where it contributes nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules.rule import Rule, pin_all
from sparsejax.compact.trace.known import Known, collapse, rounded, spread, unknown, zeros

# Dot


def _free(rank, *taken):
  return [i for i in range(rank) if not any(i in axes for axes in taken)]


def dot_axes(graph, eqn, ins):
  (summed, pairs), (left, right) = eqn.params['dimension_numbers'], ins
  for a, b in (*zip(*summed, strict=True), *zip(*pairs, strict=True)):
    graph.labels.union(left[a], right[b])
  graph.sums(eqn, summed, ins)
  free = [
    [axes[i] for i in _free(len(axes), contracted, paired)]
    for axes, contracted, paired in zip(ins, summed, pairs, strict=True)
  ]
  return [[*(left[a] for a in pairs[0]), *free[0], *free[1]]]


def dot_known(constants, eqn, ins):
  del constants
  nonzero, varies = [one.maybe_nonzero() for one in ins], [one.varies for one in ins]
  counts = _contract(eqn, ins, varies[0], nonzero[1]) + _contract(eqn, ins, nonzero[0], varies[1])
  varies, dtype = counts > 0, _dtype(eqn, ins)
  parts = [one.fixed_part() for one in ins]
  if varies.all() or not all(part.any() for part in parts):
    return [zeros(varies, eqn.out_shapes[0], dtype)]
  value = _contract(eqn, ins, *parts).astype(dtype)
  return [Known(value, varies, eqn.out_shapes[0])]


def _dtype(eqn, ins):
  return eqn.params.get('preferred_element_type') or np.result_type(*[one.value for one in ins])


def _contract(eqn, ins, *arrays):
  """Contracts two arrays as the equation does; free axes of size 1 keep size 1."""
  (summed, pairs), letters = eqn.params['dimension_numbers'], iter(range(52))
  names = [[0] * len(one.shape) for one in ins]
  for axes in (summed, pairs):
    for a, b in zip(*axes, strict=True):
      names[0][a] = names[1][b] = next(letters)
  out = [names[0][a] for a in pairs[0]]
  operands = []
  for one, array, name, contracted, paired in zip(ins, arrays, names, summed, pairs, strict=True):
    for i in _free(len(one.shape), contracted, paired):
      name[i] = next(letters)
      out.append(name[i])
    wide = spread(array, one.shape, [*contracted, *paired])
    operands += [wide.astype(np.float32 if array.dtype.kind in 'bV' else array.dtype), name]
  return np.asarray(np.einsum(*operands, out, optimize=True))


# Convolution


def conv_axes(graph, eqn, ins):
  numbers, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  if eqn.params['batch_group_count'] > 1:
    return pin_all(graph, eqn, ins)
  (image, kernel), labels = ins, graph.labels
  (outputs, inputs, *window), (batch, channel, *space) = numbers.rhs_spec, numbers.lhs_spec
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


def conv_known(constants, eqn, ins):
  del constants
  if eqn.params['batch_group_count'] > 1:
    return [unknown(eqn.out_shapes[0])]
  (image, kernel), numbers = ins, eqn.params['dimension_numbers']
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
  numbers, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  (outputs, inputs, *window), (batch, _, *space) = numbers.rhs_spec, numbers.lhs_spec
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


def conv(small, eqn, values):
  numbers, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  if groups > 1:
    each = eqn.in_shapes[1][numbers.rhs_spec[1]]
    groups = values[0].shape[numbers.lhs_spec[1]] // each
  return eqn.bind(values, feature_group_count=groups)


def product(eqn, ins, *arrays):
  """Returns the product of two arrays by the equation's primitive."""
  if eqn.name == 'dot_general':
    return _contract(eqn, ins, *arrays)
  return convolved(eqn, ins, *arrays)


RULES = {
  'dot_general': Rule(dot_axes, dot_known),
  'conv_general_dilated': Rule(conv_axes, conv_known, conv),
}
