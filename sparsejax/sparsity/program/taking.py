"""What takes a part of a value: rows of a table, by an example's numbers; one layer of a stack."""

import itertools
import math

from sparsejax.sparsity.program.nodes import (
  DATA,
  KERNEL,
  OF_PARAMETERS,
  Node,
  Value,
  fresh_out,
  kind_of,
  makes,
)
from sparsejax.sparsity.program.nodes import sizes as sizes_of


def gather(reader, eqn, ins, times):
  del reader, times
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
  return [_still_a_kernel(is_table, operand, out)]


def dynamic_slice(reader, eqn, ins, times):
  del reader, times
  operand, *at = ins
  out = fresh_out(eqn, ins)
  is_table = _looks_up(operand, at)
  for i, taken in enumerate(sizes_of(out.axes)):
    if operand.axes[i].size == taken:
      _goes_on(is_table, operand.axes[i], out, i)
    else:
      _is_taken_from(is_table, operand, i, taken == 1)
      if (begins := eqn.params.get('start_indices')) is not None:
        _is_cut_from(operand.axes[i], out.axes[i], begins[i])
  return [_still_a_kernel(is_table, operand, out)]


def split(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  along = eqn.params['axis']
  is_one = all(size == 1 for size in eqn.params['sizes'])
  _is_taken_from(False, value, along, is_one)
  before, after = value.axes[:along], value.axes[along + 1 :]
  pieces = [Node(size) for size in eqn.params['sizes']]
  begins = itertools.accumulate(eqn.params['sizes'], initial=0)
  for piece, begin in zip(pieces, begins, strict=False):
    _is_cut_from(value.axes[along], piece, begin)
  return [Value([*before, piece, *after], value.kind) for piece in pieces]


def unstack(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  along = eqn.params['axis']
  _is_taken_from(False, value, along, True)
  rest = [*value.axes[:along], *value.axes[along + 1 :]]
  return [Value(list(rest), value.kind) for _ in eqn.outvars]


def _looks_up(operand, at) -> bool:
  """Whether rows of a parameter are taken by numbers that come from the examples."""
  return operand.kind in OF_PARAMETERS and kind_of(at) == DATA and not _is_stack(operand)


def _is_stack(operand) -> bool:
  """Whether what is taken is a kernel, as an expert is of several, and no row of a table."""
  return operand.kind == KERNEL and len(operand.axes) > 2


def _still_a_kernel(is_table, operand, out) -> Value:
  """What is taken of a kernel is one, even where an example's number says which."""
  return Value(out.axes, KERNEL) if operand.kind == KERNEL and not is_table else out


def _goes_on(is_table, axis, out, place) -> None:
  """Of what is looked up an axis is one of activations; of what is taken otherwise it stays."""
  if is_table:
    makes(axis, out.axes[place])
  else:
    out.axes[place] = axis


def _is_cut_from(axis, piece, begin) -> None:
  """Notes where in an axis a piece of it lies, such as the queries of fused projections."""
  axis = axis.find()
  axis.cuts.append((int(begin), piece))
  piece.computed = axis.computed


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
