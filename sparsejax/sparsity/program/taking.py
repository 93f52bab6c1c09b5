"""What takes a part of a value: rows of a table, by an example's numbers; one layer of a stack."""

import itertools
import math

from jax.extend import core

from sparsejax.sparsity.program.nodes import (
  KERNEL,
  OF_EXAMPLES,
  OF_PARAMETERS,
  Node,
  Part,
  Value,
  fresh_out,
  kind_of,
  makes,
)
from sparsejax.sparsity.program.nodes import sizes as sizes_of


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
  parts = [
    _taken_by(reader, operand, i, at, taken[i])
    for i, axis in enumerate(operand.axes)
    if not is_table and taken[i] < axis.size
  ]
  return [_still_a_kernel(is_table, operand, out, parts)]


def dynamic_slice(reader, eqn, ins, times):
  del times
  operand, *at = ins
  out = fresh_out(eqn, ins)
  is_table = _looks_up(operand, at)
  parts = []
  for i, taken in enumerate(sizes_of(out.axes)):
    axis = operand.axes[i]
    if axis.size == taken:
      _goes_on(is_table, axis, out, i)
      continue
    _is_taken_from(is_table, operand, i, taken == 1)
    if (begin := _begin(eqn, i)) is not None:
      parts.append(_cut_from(axis, out.axes[i], begin, _end(eqn, i, begin + taken) - begin))
    elif not is_table:
      parts.append(_taken_by(reader, operand, i, at[i], taken))
  return [_still_a_kernel(is_table, operand, out, parts)]


def _begin(eqn, i) -> int | None:
  """Where a slice begins along an axis; None where that is computed."""
  if (begins := eqn.params.get('start_indices')) is not None:
    return begins[i]
  at = eqn.invars[1 + i]
  if not isinstance(at, core.Literal):
    return None
  room = eqn.invars[0].aval.shape[i] - eqn.params['slice_sizes'][i]
  return min(max(int(at.val), 0), room)


def _end(eqn, i, otherwise: int) -> int:
  return eqn.params['limit_indices'][i] if 'limit_indices' in eqn.params else otherwise


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
  return [value.with_axes(list(rest), Part(axis, i, 1)) for i in range(len(eqn.outvars))]


def _looks_up(operand, at) -> bool:
  """Whether rows of a parameter are taken by numbers that come from the examples."""
  return operand.kind in OF_PARAMETERS and kind_of(at) in OF_EXAMPLES and not _is_stack(operand)


def _is_stack(operand) -> bool:
  """Whether what is taken is a kernel, as an expert is of several, and no row of a table."""
  return operand.kind == KERNEL and len(operand.axes) > 2


def _still_a_kernel(is_table, operand, out, parts) -> Value:
  """What is taken of a kernel is one, even where an example's number says which."""
  if operand.kind != KERNEL or is_table:
    return out
  return Value(out.axes, KERNEL, (*operand.parts, *parts))


def _taken_by(reader, operand, i, at, size) -> Part:
  """What numbers choose along an axis: each turn of a loop the next, or what an example says."""
  if operand.kind == KERNEL and at.kind in OF_EXAMPLES:
    reader.not_known('an example says which part of a kernel is applied')
  return Part(operand.axes[i], None, size)


def _goes_on(is_table, axis, out, place) -> None:
  """Of what is looked up an axis is one of activations; of what is taken otherwise it stays."""
  if is_table:
    makes(axis, out.axes[place])
  else:
    out.axes[place] = axis


def _cut_from(axis, piece, begin, size) -> Part:
  """Notes where in an axis a piece of it lies, such as the queries of fused projections."""
  root = axis.find()
  root.cuts.append((int(begin), piece))
  piece.computed = root.computed
  return Part(axis, int(begin), size)


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
