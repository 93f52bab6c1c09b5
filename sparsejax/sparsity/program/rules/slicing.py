"""Rules for parts of a value: rows of a table, a layer of a stack, a piece of an axis.

A rule takes (reader, equation, operands, how often the equation runs) and returns the outputs.
"""

import itertools
import math

from sparsejax.sparsity.program.rules.nodes import (
  EXAMPLE_KINDS,
  KERNEL,
  PARAMETER_KINDS,
  Node,
  Slice,
  Value,
  joint_kind,
  mark_output,
  new_output,
  slice_per_iteration,
)
from sparsejax.sparsity.program.rules.nodes import sizes as sizes_of


def gather(reader, eqn, ins, times):
  """Reads indexing: `table[tokens]` looks rows up, `stack[i]` takes a layer."""
  del times
  operand, indices = ins
  out = new_output(eqn, ins)
  numbers = eqn.params['dimension_numbers']
  slice_sizes = eqn.params['slice_sizes']
  is_lookup = _is_lookup(operand, [indices])
  dropped = (*numbers.collapsed_slice_dims, *getattr(numbers, 'operand_batching_dims', ()))
  kept = [i for i in range(len(operand.axes)) if i not in dropped]
  for out_axis, i in zip(numbers.offset_dims, kept, strict=False):
    if slice_sizes[i] == operand.axes[i].size:
      _keep_axis(is_lookup, operand.axes[i], out, out_axis)
  takes_one = math.prod(sizes_of(out.axes)) == math.prod(slice_sizes) or _is_stack(operand)
  for i in numbers.collapsed_slice_dims:
    _assign_sliced_role(is_lookup, operand, i, takes_one)
  slices = [
    _find_slice(reader, operand, i, indices, Node(slice_sizes[i]))
    for i, axis in enumerate(operand.axes)
    if not is_lookup and slice_sizes[i] < axis.size
  ]
  return [_keep_kernel(is_lookup, operand, out, slices)]


def slice_axes(reader, eqn, ins, times):
  """Reads `slice`, whose starts are fixed, and `dynamic_slice`, whose starts are operands."""
  del times
  operand, *starts = ins
  out = new_output(eqn, ins)
  is_lookup = _is_lookup(operand, starts)
  slices = []
  for i, size in enumerate(sizes_of(out.axes)):
    axis = operand.axes[i]
    if axis.size == size:
      _keep_axis(is_lookup, axis, out, i)
      continue
    _assign_sliced_role(is_lookup, operand, i, size == 1)
    if not starts:
      start, limit = eqn.params['start_indices'][i], eqn.params['limit_indices'][i]
      slices.append(_record_slice(axis, out.axes[i], start, limit - start))
    elif not is_lookup:
      slices.append(_find_slice(reader, operand, i, starts[i], out.axes[i]))
  return [_keep_kernel(is_lookup, operand, out, slices)]


def split(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  along = eqn.params['axis']
  piece_sizes = eqn.params['sizes']
  _assign_sliced_role(False, value, along, all(size == 1 for size in piece_sizes))
  before, axis, after = value.axes[:along], value.axes[along], value.axes[along + 1 :]
  pieces = [Node(size) for size in piece_sizes]
  starts = itertools.accumulate(piece_sizes, initial=0)
  return [
    value.replace_axes([*before, piece, *after], _record_slice(axis, piece, start, piece.size))
    for piece, start in zip(pieces, starts, strict=False)
  ]


def unstack(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  along = eqn.params['axis']
  _assign_sliced_role(False, value, along, True)
  axis = value.axes[along]
  rest = [*value.axes[:along], *value.axes[along + 1 :]]
  return [
    value.replace_axes(list(rest), _record_slice(axis, Node(1), i, 1))
    for i in range(len(eqn.outvars))
  ]


def _is_lookup(operand, indices) -> bool:
  """Returns whether the examples choose rows of a parameter, as tokens choose an embedding's."""
  from_examples = joint_kind(indices) in EXAMPLE_KINDS
  return operand.kind in PARAMETER_KINDS and from_examples and not _is_stack(operand)


def _is_stack(operand) -> bool:
  """Returns whether one index yields a kernel, as in a stack of experts, and not a table's row."""
  return operand.kind == KERNEL and len(operand.axes) > 2


def _keep_kernel(is_lookup, operand, out, slices) -> Value:
  """Returns the output as a kernel, even if an example chose the slice, unless it is looked up."""
  if operand.kind != KERNEL or is_lookup:
    return out
  return Value(out.axes, KERNEL, (*operand.slices, *slices))


def _find_slice(reader, operand: Value, i: int, index: Value, piece: Node) -> Slice:
  """Returns the slice of an operand's axis i that starts at an index.

  An index that the program fixes gives one slice, and a loop counter a slice per iteration. Any
  other index into a kernel makes the count unknown.
  """
  axis = operand.axes[i]
  size = piece.size
  if index.scalar is not None and index.scalar.number is not None:
    start = min(max(int(index.scalar.number), 0), axis.size - size)  # XLA clamps as well
    return _record_slice(axis, piece, start, size)
  if index.scalar is not None and index.scalar.stop * size == axis.size:
    return slice_per_iteration(axis, size)
  if operand.kind == KERNEL:
    who = 'an example chooses' if index.kind in EXAMPLE_KINDS else 'the program computes'
    reader.refuse_to_count(f'{who} which part of a kernel is applied')
  return Slice(axis, None, size)


def _keep_axis(is_lookup, axis, out, out_axis) -> None:
  """Gives the output an axis that is not sliced; what a lookup returns is an activation's axis."""
  if is_lookup:
    mark_output(axis, out.axes[out_axis])
  else:
    out.axes[out_axis] = axis


def _record_slice(axis, piece, start, size) -> Slice:
  """Records where a piece of an axis starts, such as the queries in a fused projection's output."""
  root = axis.find()
  root.slice_axes.append((int(start), piece))
  piece.from_kernel = root.from_kernel
  base, base_start = root.slice_origin()
  piece.sliced_from = base, base_start + int(start)
  return Slice(base, base_start + int(start), size)


def _assign_sliced_role(is_lookup, operand, i, takes_one) -> None:
  """Assigns the role of a parameter's sliced axis: a table's rows are inputs, layers are a stack.

  Slices of more than one entry say nothing: they may be pieces of any axis.
  """
  axis = operand.axes[i]
  if operand.kind in PARAMETER_KINDS and (is_lookup or (takes_one and axis.size > 1)):
    axis.assign_role('in' if is_lookup else 'stack')


RULES = {
  'gather': gather,
  'dynamic_slice': slice_axes,
  'slice': slice_axes,
  'split': split,
  'unstack': unstack,
}
