"""Products: what is summed over goes where nothing comes of it; what goes on stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules.rule import Rule, pin_all
from sparsejax.compact.trace import known as known_of
from sparsejax.compact.trace.known import Known, collapse, spread, zeros

# Dot


def _free(rank, *taken):
  return [i for i in range(rank) if not any(i in axes for axes in taken)]


def dot_axes(graph, eqn, ins):
  (summed, pairs), (left, right) = eqn.params['dimension_numbers'], ins
  for a, b in (*zip(*summed, strict=True), *zip(*pairs, strict=True)):
    graph.labels.union(left[a], right[b])
  graph.sums(eqn, summed, ins)
  goes_on = [
    [axes[i] for i in _free(len(axes), contracted, paired)]
    for axes, contracted, paired in zip(ins, summed, pairs, strict=True)
  ]
  return [[*(left[a] for a in pairs[0]), *goes_on[0], *goes_on[1]]]


def dot_known(constants, eqn, ins):
  del constants
  maybe, varies = [one.maybe() for one in ins], [one.varies for one in ins]
  counts = _summed(eqn, ins, varies[0], maybe[1]) + _summed(eqn, ins, maybe[0], varies[1])
  varies, dtype = counts > 0, _dtype(eqn, ins)
  parts = [one.fixed_part() for one in ins]
  if varies.all() or not all(part.any() for part in parts):
    return [zeros(varies, eqn.made[0], dtype)]
  value = _summed(eqn, ins, *parts).astype(dtype)
  return [Known(value, varies, eqn.made[0])]


def _dtype(eqn, ins):
  return eqn.params.get('preferred_element_type') or np.result_type(*[one.value for one in ins])


def _summed(eqn, ins, *arrays):
  """The product of what is known; axes that go on keep the size 1 where they have it."""
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
  (to, of, *window), (example, channel, *space) = numbers.rhs_spec, numbers.lhs_spec
  for axes, places in ((image, space), (kernel, window)):
    labels.pin_axes([axes[i] for i in places], eqn.name)
  out = labels.axes(eqn.made[0])
  labels.pin_axes([out[i] for i in numbers.out_spec[2:]], eqn.name)
  out[numbers.out_spec[0]] = image[example]
  out[numbers.out_spec[1]] = kernel[to]
  if groups == 1:
    labels.union(image[channel], kernel[of])
    graph.sums(eqn, ((channel,), (of,)), ins)
    return [out]
  labels.pin(kernel[of], eqn.name)
  read, made = (axis.reshape(groups, -1) for axis in (image[channel], kernel[to]))
  for column in (*read.T, *made.T):  # a group goes whole, with all that it reads and makes
    labels.union(read[:, 0], column)
  return [out]


def conv_known(constants, eqn, ins):
  del constants
  if eqn.params['batch_group_count'] > 1:
    return [known_of.unknown(eqn.made[0])]
  (image, kernel), numbers = ins, eqn.params['dimension_numbers']
  there = [
    _by_channel(eqn, image.varies, kernel.maybe()),
    _by_channel(eqn, image.maybe(), kernel.varies),
  ]
  shape = [1] * len(eqn.made[0])
  shape[numbers.out_spec[1]] = -1
  varies = (there[0] | there[1]).reshape(shape)
  parts = [one.fixed_part() for one in ins]
  dtype = _dtype(eqn, ins)
  if varies.all() or not all(part.any() for part in parts):
    return [zeros(varies, eqn.made[0], dtype)]
  return [known_of.rounded(Known(convolved(eqn, ins, *parts), varies, eqn.made[0]))]


def _by_channel(eqn, image, kernel):
  """For each channel that is made whether any is read of which both have something."""
  numbers, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  (to, of, *window), (example, _, *space) = numbers.rhs_spec, numbers.lhs_spec
  made, each = eqn.shapes[1][to], eqn.shapes[1][of]
  read = np.broadcast_to(collapse(image, [example, *space]).reshape(-1), (groups * each,))
  pairs = collapse(kernel, window).transpose([*window, of, to])
  pairs = pairs.reshape(pairs.shape[-2:])
  pairs = np.broadcast_to(pairs, (each, made)).reshape(each, groups, made // groups)
  counts = np.einsum(
    'gi,igo->go', *(a.astype(np.float32) for a in (read.reshape(groups, each), pairs))
  )
  return counts.reshape(-1) > 0


def convolved(eqn, ins, image, kernel):
  """Returns the convolution of what is known, for one example where all are the same."""
  numbers = eqn.params['dimension_numbers']
  image = spread(image, ins[0].shape, numbers.lhs_spec[1:])
  kernel = np.broadcast_to(kernel, ins[1].shape)
  highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
  [value] = eqn.bind([jnp.asarray(image), jnp.asarray(kernel)], precision=highest)
  return np.asarray(value)


def conv(small, eqn, values):
  numbers, groups = eqn.params['dimension_numbers'], eqn.params['feature_group_count']
  if groups > 1:
    each = eqn.shapes[1][numbers.rhs_spec[1]]
    groups = values[0].shape[numbers.lhs_spec[1]] // each
  return eqn.bind(values, feature_group_count=groups)


def product(eqn, ins, *arrays):
  """Returns the product of two arrays of what is known, by whichever primitive it is."""
  if eqn.name == 'dot_general':
    return _summed(eqn, ins, *arrays)
  return convolved(eqn, ins, *arrays)


RULES = {
  'dot_general': Rule(dot_axes, dot_known),
  'conv_general_dilated': Rule(conv_axes, conv_known, conv),
}
