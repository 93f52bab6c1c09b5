"""What changes shapes and moves no number to another entry: where each axis goes."""

import math
from collections.abc import Sequence

from sparsejax.sparsity.program.rules.nodes import Scalar, Value, fresh_out, meet, sizes


def transpose(reader, eqn, ins, times):
  del reader, times
  [value] = ins
  return [value.with_axes([value.axes[i] for i in eqn.params['permutation']])]


def squeeze(reader, eqn, ins, times):
  del reader, times
  out = _without(ins[0], eqn.params['dimensions'])
  out.scalar = _of_one_entry(ins[0], out)
  return [out]


def reduce_axes(reader, eqn, ins, times):
  del reader, times
  return [_without(ins[0], eqn.params['axes']) for _ in eqn.outvars]


def _without(value: Value, gone: Sequence[int]) -> Value:
  return value.with_axes([node for i, node in enumerate(value.axes) if i not in gone])


def broadcast_in_dim(reader, eqn, ins, times):
  del reader, times
  value = ins[0]
  out = fresh_out(eqn, [value])
  for node in out.axes:
    node.repeated = node.size > 1
  for axis, place in enumerate(eqn.params['broadcast_dimensions']):
    if value.axes[axis].size == out.axes[place].size:
      out.axes[place] = value.axes[axis]
  out.scalar = _of_one_entry(value, out)
  return [out]


def _of_one_entry(value: Value, out: Value) -> Scalar | None:
  """What is known of the only entry that both have."""
  are_one = math.prod(sizes(value.axes)) == math.prod(sizes(out.axes)) == 1
  return value.scalar if are_one else None


def concatenate(reader, eqn, ins, times):
  del reader, times
  along = eqn.params['dimension']
  out = fresh_out(eqn, ins)
  out.axes[along].pieces = [value.axes[along] for value in ins]
  out.axes[along].computed = any(value.axes[along].find().computed for value in ins)
  for value in ins:
    meet(_without(value, [along]), _without(out, [along]))
  return [out]


def reshape(reader, eqn, ins, times):
  del reader, times
  value = ins[0]
  out = fresh_out(eqn, [value])
  out.scalar = _of_one_entry(value, out)
  for old, new in _factors(sizes(value.axes), sizes(out.axes)):
    before, after = [value.axes[i] for i in old], [out.axes[i] for i in new]
    if len(before) == len(after) == 1:
      out.axes[new[0]] = before[0]
    elif len(before) == 1:
      root = before[0].find()
      if sizes(root.parts) == sizes(after):
        for i, part in zip(new, root.parts, strict=True):
          out.axes[i] = part
      elif not root.parts:
        root.parts = after
        for node in after:
          node.computed, node.whole = root.computed, root
    elif len(after) == 1:
      after[0].parts = [node.find() for node in before]
      for node in after[0].parts:
        node.whole = node.whole or after[0]
      after[0].computed = any(node.find().computed for node in before)
  return [out]


def iota(reader, eqn, ins, times):
  del reader, times
  out = fresh_out(eqn, ins)
  if len(out.axes) == 1:
    out.scalar = Scalar(turns=out.axes[0].size)
  return [out]


def _factors(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
  """Which axes of a reshape hold the same entries, sizes of 1 aside."""
  if 0 in old:
    return []
  left = [i for i, n in enumerate(old) if n != 1]
  right = [i for i, n in enumerate(new) if n != 1]
  found, i, j = [], 0, 0
  while i < len(left) and j < len(right):
    a, b = [left[i]], [right[j]]
    size, other = old[left[i]], new[right[j]]
    i, j = i + 1, j + 1
    while size != other:
      if size < other:
        size *= old[left[i]]
        a.append(left[i])
        i += 1
      else:
        other *= new[right[j]]
        b.append(right[j])
        j += 1
    found.append((a, b))
  return found


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
