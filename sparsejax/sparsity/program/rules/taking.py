"""What takes a part of a value: rows of a table, by an example's numbers; one layer of a stack."""

import itertools
import math

from sparsejax.sparsity.program.rules.nodes import (
  KERNEL,
  OF_EXAMPLES,
  OF_PARAMETERS,
  Node,
  Taken,
  Value,
  fresh_out,
  kind_of,
  makes,
  taken_by_turns,
)
from sparsejax.sparsity.program.rules.nodes import sizes as sizes_of


def gather(reader, eqn, ins, times):
  del times
  operand, at = ins
  out = fresh_out(eqn, ins)
  numbers, taken = eqn.params['dimension_numbers'], eqn.params['slice_sizes']
  is_table = _looks_up(operand, [at])
  gone = (*numbers.collapsed_slice_dims, *getattr(numbers, 'operand_batching_dims', ()))
  through = [i for i in range(len(operand.axes)) if i not in gone]
  for place, i in zip(numbers.offset_dims, through, strict=False):
    if taken[i] == operand.axes[i].size:
      _goes_on(is_table, operand.axes[i], out, place)
  is_one = math.prod(sizes_of(out.axes)) == math.prod(taken) or _is_stack(operand)
  for i in numbers.collapsed_slice_dims:
    _is_taken_from(is_table, operand, i, is_one)
  taken_of = [
    _chosen(reader, operand, i, at, Node(taken[i]))
    for i, axis in enumerate(operand.axes)
    if not is_table and taken[i] < axis.size
  ]
  return [_still_a_kernel(is_table, operand, out, taken_of)]


def dynamic_slice(reader, eqn, ins, times):
  del times
  operand, *at = ins
  out = fresh_out(eqn, ins)
  is_table = _looks_up(operand, at)
  taken_of = []
  for i, taken in enumerate(sizes_of(out.axes)):
    axis = operand.axes[i]
    if axis.size == taken:
      _goes_on(is_table, axis, out, i)
      continue
    _is_taken_from(is_table, operand, i, taken == 1)
    if not at:
      begin, end = (eqn.params[name][i] for name in ('start_indices', 'limit_indices'))
      taken_of.append(_cut_from(axis, out.axes[i], begin, end - begin))
    elif not is_table:
      taken_of.append(_chosen(reader, operand, i, at[i], out.axes[i]))
  return [_still_a_kernel(is_table, operand, out, taken_of)]


def split(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  along = eqn.params['axis']
  is_one = all(size == 1 for size in eqn.params['sizes'])
  _is_taken_from(False, value, along, is_one)
  before, axis, after = value.axes[:along], value.axes[along], value.axes[along + 1 :]
  pieces = [Node(size) for size in eqn.params['sizes']]
  begins = itertools.accumulate(eqn.params['sizes'], initial=0)
  return [
    value.with_axes([*before, piece, *after], _cut_from(axis, piece, begin, piece.size))
    for piece, begin in zip(pieces, begins, strict=False)
  ]


def unstack(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  along = eqn.params['axis']
  _is_taken_from(False, value, along, True)
  axis, rest = value.axes[along], [*value.axes[:along], *value.axes[along + 1 :]]
  return [
    value.with_axes(list(rest), _cut_from(axis, Node(1), i, 1)) for i in range(len(eqn.outvars))
  ]


def _looks_up(operand, at) -> bool:
  """Whether rows of a parameter are taken by numbers that come from the examples."""
  return operand.kind in OF_PARAMETERS and kind_of(at) in OF_EXAMPLES and not _is_stack(operand)


def _is_stack(operand) -> bool:
  """Whether what is taken is a kernel, as an expert is of several, and no row of a table."""
  return operand.kind == KERNEL and len(operand.axes) > 2


def _still_a_kernel(is_table, operand, out, taken_of) -> Value:
  """What is taken of a kernel is one, even where an example's number says which."""
  if operand.kind != KERNEL or is_table:
    return out
  return Value(out.axes, KERNEL, (*operand.taken, *taken_of))


def _chosen(reader, operand, i, at, piece) -> Taken:
  """What a number chooses along an axis: itself, or the next in each turn of a loop."""
  axis, size = operand.axes[i], piece.size
  if at.scalar is not None and at.scalar.number is not None:
    begin = min(max(int(at.scalar.number), 0), axis.size - size)
    return _cut_from(axis, piece, begin, size)
  if at.scalar is not None and at.scalar.turns * size == axis.size:
    return taken_by_turns(axis, size)
  if operand.kind == KERNEL:
    who = 'an example says' if at.kind in OF_EXAMPLES else 'the program computes'
    reader.not_known(f'{who} which part of a kernel is applied')
  return Taken(axis, None, size)


def _goes_on(is_table, axis, out, place) -> None:
  """Of what is looked up an axis is one of activations; of what is taken otherwise it stays."""
  if is_table:
    makes(axis, out.axes[place])
  else:
    out.axes[place] = axis


def _cut_from(axis, piece, begin, size) -> Taken:
  """Notes where in an axis a piece of it lies, such as the queries of fused projections."""
  root = axis.find()
  root.cuts.append((int(begin), piece))
  piece.computed = root.computed
  base, at = root.place()
  piece.origin = base, at + int(begin)
  return Taken(base, at + int(begin), size)


def _is_taken_from(is_table, operand, i, is_one) -> None:
  """Notes that an axis of a parameter is that of a table's rows, or of the layers of a stack."""
  axis = operand.axes[i]
  if operand.kind in OF_PARAMETERS and (is_table or (is_one and axis.size > 1)):
    axis.use('in' if is_table else 'stack')


RULES = {
  'gather': gather,
  'dynamic_slice': dynamic_slice,
  'slice': dynamic_slice,
  'split': split,
  'unstack': unstack,
}
