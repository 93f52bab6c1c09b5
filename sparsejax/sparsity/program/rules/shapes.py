"""Rules for primitives that rearrange axes: each says where the axes of the operand go.

A rule takes (reader, equation, operands, how often the equation runs) and returns the outputs.
"""

import math
from collections.abc import Sequence

from sparsejax.sparsity.program.rules.nodes import Node, Scalar, Value, align, new_output, sizes


def transpose(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  return [value.replace_axes([value.axes[i] for i in eqn.params['permutation']])]


def squeeze(reader, eqn, ins, times):
  del reader, times
  out = _drop_axes(ins[0], eqn.params['dimensions'])
  out.scalar = _same_scalar(ins[0], out)
  return [out]


def reduce_axes(reader, eqn, ins, times):
  del reader, times
  return [_drop_axes(ins[0], eqn.params['axes']) for _ in eqn.outvars]


def _drop_axes(value: Value, dropped: Sequence[int]) -> Value:
  return value.replace_axes([node for i, node in enumerate(value.axes) if i not in dropped])


def broadcast_in_dim(reader, eqn, ins, times):
  del reader, times
  value = ins[0]
  out = new_output(eqn, [value])
  for node in out.axes:
    node.broadcast = node.size > 1
  for axis, out_axis in enumerate(eqn.params['broadcast_dimensions']):
    if value.axes[axis].size == out.axes[out_axis].size:
      out.axes[out_axis] = value.axes[axis]
  out.scalar = _same_scalar(value, out)
  return [out]


def _same_scalar(value: Value, out: Value) -> Scalar | None:
  """Returns the scalar that a value holds if it and the result have a single entry, else None."""
  have_one_entry = math.prod(sizes(value.axes)) == math.prod(sizes(out.axes)) == 1
  return value.scalar if have_one_entry else None


def concatenate(reader, eqn, ins, times):
  del reader, times
  along = eqn.params['dimension']
  out = new_output(eqn, ins)
  out.axes[along].concatenated_from = [value.axes[along] for value in ins]
  out.axes[along].from_kernel = any(value.axes[along].find().from_kernel for value in ins)
  for value in ins:
    align(_drop_axes(value, [along]), _drop_axes(out, [along]))
  return [out]


def reshape(reader, eqn, ins, times):
  """Keeps axes that stay as they are, and records how the others split or merge.

  Example: (7, 12) -> (7, 4, 3) keeps the axis of 7 and makes 4 and 3 the parts of the axis of 12.
  """
  del reader, times
  value = ins[0]
  out = new_output(eqn, [value])
  out.scalar = _same_scalar(value, out)
  for old, new in matching_axes(sizes(value.axes), sizes(out.axes)):
    before, after = [value.axes[i] for i in old], [out.axes[i] for i in new]
    if len(before) == len(after) == 1:
      out.axes[new[0]] = before[0]
    elif len(before) == 1:
      for i, part in zip(new, _split(before[0], after), strict=True):
        out.axes[i] = part
    elif len(after) == 1:
      _merge(before, after[0])
  return [out]


def _split(axis: Node, new_axes: list[Node]) -> list[Node]:
  """Returns the parts of an axis: those it has, where the sizes agree, or else the new ones."""
  root = axis.find()
  if sizes(root.parts) == sizes(new_axes):
    return root.parts
  if not root.parts:
    root.parts = new_axes
    for node in new_axes:
      node.from_kernel, node.part_of = root.from_kernel, root
  return new_axes


def _merge(axes: list[Node], merged: Node) -> None:
  """Makes axes the parts of a merged one."""
  merged.parts = [node.find() for node in axes]
  for node in merged.parts:
    node.part_of = node.part_of or merged
  merged.from_kernel = any(node.find().from_kernel for node in axes)


def iota(reader, eqn, ins, times):
  del reader, times
  out = new_output(eqn, ins)
  if len(out.axes) == 1:
    out.scalar = Scalar(stop=out.axes[0].size)
  return [out]


def matching_axes(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
  """Returns the smallest groups of axes whose sizes have equal products before and after a reshape.

  Axes of size 1 are left out.

  Example:
    >>> matching_axes((7, 12, 2, 5), (7, 4, 3, 10))
    [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
  """
  if 0 in old:
    return []
  old_axes = [i for i, n in enumerate(old) if n != 1]
  new_axes = [i for i, n in enumerate(new) if n != 1]
  groups = []
  i, j = 0, 0
  while i < len(old_axes) and j < len(new_axes):
    old_group, new_group = [old_axes[i]], [new_axes[j]]
    old_size, new_size = old[old_axes[i]], new[new_axes[j]]
    i, j = i + 1, j + 1
    while old_size != new_size:  # the smaller product takes the next axis
      if old_size < new_size:
        old_size *= old[old_axes[i]]
        old_group.append(old_axes[i])
        i += 1
      else:
        new_size *= new[new_axes[j]]
        new_group.append(new_axes[j])
        j += 1
    groups.append((old_group, new_group))
  return groups


REDUCTIONS = ('sum', 'max', 'min', 'prod', 'and', 'or')
RULES = {
  'transpose': transpose,
  'squeeze': squeeze,
  'broadcast_in_dim': broadcast_in_dim,
  'reshape': reshape,
  'concatenate': concatenate,
  'iota': iota,
  'argmax': reduce_axes,
  'argmin': reduce_axes,
  **{f'reduce_{name}': reduce_axes for name in REDUCTIONS},
}
