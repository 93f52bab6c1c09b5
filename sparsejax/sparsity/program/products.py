"""What sums over products, with a parameter or without."""

import math

from sparsejax.sparsity.program.nodes import DATA, PARAM, fresh_out, makes, same, sizes


def dot_general(reader, eqn, ins, times):
  summed, paired = eqn.params['dimension_numbers']
  out = fresh_out(eqn, ins)
  places = iter(range(len(out.axes)))
  pairs = [(next(places), *axes) for axes in zip(*paired, strict=True)]
  goes_on = []  # of each of both, where in the result its other axes are
  for value, gone in zip(ins, zip(summed, paired, strict=True), strict=True):
    free = [i for i in range(len(value.axes)) if i not in (*gone[0], *gone[1])]
    goes_on.append([(next(places), i) for i in free])
  each = math.prod(ins[0].axes[i].size for i in summed[0])
  macs = times * math.prod(sizes(out.axes)) * each
  if {value.kind for value in ins} == {DATA, PARAM}:
    kernel = [value.kind for value in ins].index(PARAM)
    _with_parameter(reader, ins, kernel, out, summed, pairs, goes_on, macs)
    return [out]
  for value, ends in zip(ins, goes_on, strict=True):
    for place, i in ends:
      out.axes[place] = value.axes[i]
  if all(value.kind == DATA for value in ins):
    reader.graph.products += macs
    for place, a, b in pairs:
      same(ins[0].axes[a], ins[1].axes[b])
      out.axes[place] = ins[0].axes[a]
      ins[0].axes[a].find().pairwise = True
  return [out]


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


def conv_general_dilated(reader, eqn, ins, times):
  image, kernel = ins
  out = fresh_out(eqn, ins)
  numbers = eqn.params['dimension_numbers']
  (to, of, *window), (example, channel, *_) = numbers.rhs_spec, numbers.lhs_spec
  out.axes[numbers.out_spec[0]] = image.axes[example]
  if kernel.kind != PARAM or image.kind != DATA:
    if {kernel.kind, image.kind} == {DATA, PARAM}:
      reader.not_known('a convolution of a parameter by data')
    return [out]
  size = math.prod(kernel.axes[i].size for i in window)
  groups = eqn.params['feature_group_count']
  if any(n > 1 for n in eqn.params['lhs_dilation']):  # transposed: the zeros between are none
    macs = math.prod(sizes(image.axes)) * size * kernel.axes[to].size // groups
  else:
    macs = math.prod(sizes(out.axes)) * size * kernel.axes[of].size
  reader.count(kernel, times * macs)
  for i in window:
    kernel.axes[i].use('position')
  kernel.axes[of].use('in')
  makes(kernel.axes[to], out.axes[numbers.out_spec[1]])
  if groups == 1:
    kernel.axes[of].link(image.axes[channel])
  return [out]


RULES = {'dot_general': dot_general, 'conv_general_dilated': conv_general_dilated}
