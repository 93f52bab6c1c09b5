"""What sums over products, with a parameter or without."""

import math
from collections.abc import Sequence

from sparsejax.sparsity.program.rules.nodes import (
  CONSTANT,
  DATA,
  KERNEL,
  OF_EXAMPLES,
  OF_PARAMETERS,
  PARAM,
  Value,
  fresh_out,
  makes,
  of_product,
  same,
  sizes,
)


def dot_general(reader, eqn, ins, times):
  summed, paired = eqn.params['dimension_numbers']
  out = _out(eqn, ins)
  places = iter(range(len(out.axes)))
  pairs = [(next(places), *axes) for axes in zip(*paired, strict=True)]
  goes_on = []  # of each of both, where in the result its other axes are
  for value, gone in zip(ins, zip(summed, paired, strict=True), strict=True):
    free = [i for i in range(len(value.axes)) if i not in (*gone[0], *gone[1])]
    goes_on.append([(next(places), i) for i in free])
  each = math.prod(ins[0].axes[i].size for i in summed[0])
  macs = times * math.prod(sizes(out.axes)) * each
  which = _kernel(reader, ins)
  if which is not None:
    _with_parameter(reader, ins, which, out, summed, pairs, goes_on, macs)
    return [out]
  for value, ends in zip(ins, goes_on, strict=True):
    for place, i in ends:
      out.axes[place] = value.axes[i]
  if out.kind == DATA:
    reader.graph.products += macs
    for place, a, b in pairs:
      same(ins[0].axes[a], ins[1].axes[b])
      out.axes[place] = ins[0].axes[a]
      ins[0].axes[a].find().pairwise = True
  return [out]


def _out(eqn, ins) -> Value:
  return Value(fresh_out(eqn, ins).axes, of_product([value.kind for value in ins]))


def _kernel(reader, ins: Sequence[Value]) -> int | None:
  """Which of two factors is the kernel that the other goes through; None where neither is."""
  kinds = [value.kind for value in ins]
  if kinds.count(KERNEL) == 1:
    return kinds.index(KERNEL)
  if PARAM in kinds and set(kinds) & set(OF_EXAMPLES):  # a table that is the last layer too
    return kinds.index(PARAM)
  if all(kind in OF_PARAMETERS for kind in kinds):
    reader.not_known('a product of two parameters')
  return None


def _with_parameter(reader, ins, which, out, summed, pairs, goes_on, macs):
  """A product of a kernel, which of both it is, and an activation."""
  kernel, activation = ins[which], ins[1 - which]
  reader.count(kernel, macs)
  for place, *axes in pairs:
    theirs = activation.axes[axes[1 - which]]
    kernel.axes[axes[which]].use('stack')
    theirs.find().stacks = True
    out.axes[place] = theirs
  for axes in zip(*summed, strict=True):
    mine = kernel.axes[axes[which]]
    mine.use('in')
    mine.link(activation.axes[axes[1 - which]])
  for place, i in goes_on[1 - which]:
    out.axes[place] = activation.axes[i]
  for place, i in goes_on[which]:
    makes(kernel.axes[i], out.axes[place])


def ragged_dot_general(reader, eqn, ins, times):
  """Rows in groups, each group through a kernel of its own; how many rows each has, data says."""
  del times
  out, (_, kernel, _) = _out(eqn, ins), ins
  numbers = eqn.params['ragged_dot_dimension_numbers']
  (_, summed), _ = numbers.dot_dimension_numbers
  reader.not_known('a ragged product goes through as many weights as an example says')
  if kernel.kind in OF_PARAMETERS:
    for i, axis in enumerate(kernel.axes):
      is_stack = i in numbers.rhs_group_dimensions
      axis.use('stack' if is_stack else 'in' if i in summed else 'out')
  return [out]


def conv_general_dilated(reader, eqn, ins, times):
  image, kernel = ins
  out = _out(eqn, ins)
  p, numbers = eqn.params, eqn.params['dimension_numbers']
  (to, of, *window), (example, channel, *_) = numbers.rhs_spec, numbers.lhs_spec
  groups, size = p['feature_group_count'], math.prod(kernel.axes[i].size for i in window)
  is_transposed = any(n > 1 for n in p['lhs_dilation'])
  if is_transposed:  # the zeros between are none
    macs = math.prod(sizes(image.axes)) * size * kernel.axes[to].size // groups
  else:
    macs = math.prod(sizes(out.axes)) * size * kernel.axes[of].size
  if p['batch_group_count'] > 1 or (is_transposed and any(n > 1 for n in p['window_strides'])):
    reader.not_known('a convolution in groups of examples, or dilated and strided at once')
  out.axes[numbers.out_spec[0]] = image.axes[example]
  if kernel.kind not in OF_PARAMETERS or image.kind in OF_PARAMETERS:
    if {kernel.kind, image.kind} & set(OF_PARAMETERS):
      reader.not_known('a convolution of a parameter')
    elif out.kind != CONSTANT:
      reader.graph.products += times * macs
    return [out]
  reader.count(kernel, times * macs)
  for i in window:
    kernel.axes[i].use('position')
  kernel.axes[of].use('in')
  makes(kernel.axes[to], out.axes[numbers.out_spec[1]])
  if groups == 1:
    kernel.axes[of].link(image.axes[channel])
  return [out]


RULES = {
  'dot_general': dot_general,
  'conv_general_dilated': conv_general_dilated,
  'ragged_dot_general': ragged_dot_general,
}
