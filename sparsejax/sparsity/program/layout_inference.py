"""The layout of a parameter, from the nodes of its axes after a program was read."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.leaves.layout import SIDES, Layout
from sparsejax.sparsity.program.rules.nodes import CONFLICT, Node


class AxisWords(NamedTuple):
  """The words of one axis in a layout.

  Attributes:
    words: one role, or several where heads are fused with something; empty where none is known.
    heads: the number of heads, where they are fused with something.
    side: 'in' or 'out', for an axis that holds heads and nothing else.
  """

  words: tuple[str, ...]
  heads: int | None = None
  side: str | None = None


class Factor(NamedTuple):
  """A factor of an axis that a reshape takes apart: its size, and whether it is the heads."""

  size: int
  is_head: bool


UNKNOWN = AxisWords(())


def build_layout(nodes: Sequence[Node]) -> Layout | None:
  """Returns the layout of the parameter with these axes; None unless each axis has a clear role."""
  axes = [_words_of_axis(node, batched) for node, batched in _pair_batched_roles(nodes)]
  if not axes or UNKNOWN in axes:
    return None
  if sum('head' in axis.words for axis in axes) > 1:  # a layout can have one head at most
    axes = [_drop_heads(axis) for axis in axes]
  for i, axis in enumerate(axes):
    # With no features beside the heads, as in a gate (in, heads), each head is a single output.
    if axis.side is not None and not any(axis.side in other.words for other in axes):
      axes[i] = AxisWords((axis.side,))
  axes = [_write_side(axis, axes[i + 1 :]) for i, axis in enumerate(axes)]
  words = [axis.words for axis in axes]
  if _is_ambiguous(words):
    return None
  if ('position',) in words and {('position',), ('stack',)} >= set(words):
    # A bias or scale of the input: the features come last.
    last = max(i for i, axis in enumerate(words) if axis == ('position',))
    words[last] = ('out',)
  text = ' '.join(axis[0] if len(axis) == 1 else f'({" ".join(axis)})' for axis in words)
  return Layout(text, next((axis.heads for axis in axes if axis.heads), None))


def _pair_batched_roles(nodes: Sequence[Node]) -> list[tuple[Node, str | None]]:
  """Pairs each axis with its role in case it is an output that the next layer batches over.

  Such an axis may hold the members of a stack which all read one input, or just be outputs in
  blocks. It is taken as a stack if it is the first axis, and as unclear (None) if not. Where the
  parameter has a stack already, it is outputs.
  """
  if any(node.find().role == 'stack' for node in nodes):
    return [(node, 'out') for node in nodes]
  return [(node, None if i else 'stack') for i, node in enumerate(nodes)]


def _write_side(axis: AxisWords, after: Sequence[AxisWords]) -> AxisWords:
  """Writes an axis of heads as 'head:in' or 'head:out' if the words after it imply another side."""
  if axis.side is None or axis.words != ('head',):
    return axis
  sides_after = [word for other in after for word in other.words if word in SIDES]
  implied = (*sides_after, 'out')[0]
  return axis if axis.side == implied else AxisWords((f'head:{axis.side}',))


def _is_ambiguous(words: Sequence[tuple[str, ...]]) -> bool:
  """Returns whether the layout has outputs on both sides of its inputs, as 'out in out'.

  The first axis may then be a stack that vmap made of layers with one input: a product shows its
  members as outputs, and only names can tell the two apart.
  """
  sides = [axis[0] for axis in words if axis[0] in SIDES]
  return 'in' in sides and sides[0] == sides[-1] == 'out' and len(sides) == len(words)


def _drop_heads(axis: AxisWords) -> AxisWords:
  """Returns the axis with its heads as plain inputs or outputs."""
  if 'head' not in axis.words:
    return axis
  return AxisWords((axis.side or next((word for word in axis.words if word in SIDES), 'out'),))


def _words_of_axis(node: Node, batched_role: str | None) -> AxisWords:
  """Returns the words of an axis of a parameter.

  Args:
    node: the axis.
    batched_role: as `_pair_batched_roles` gives it.
  """
  node = node.find()
  if node.role is None:
    return _words_of_parts(node)
  if node.role == CONFLICT:
    return UNKNOWN
  if node.role not in SIDES:
    return AxisWords((node.role,))
  for activation in (other.find() for other in node.activations):
    if activation.batched_with_kernel and node.role == 'out' and batched_role != 'out':
      return AxisWords((batched_role,)) if batched_role else UNKNOWN
    if activation.batched_with_activation or _is_shared_by_heads(activation):
      return AxisWords(('head',), side=node.role)
    factors = _factors_of_activation(activation)
    if len(factors) > 1 and [factor.is_head for factor in factors].count(True) == 1:
      return _fuse(node.role, factors)
  return AxisWords((node.role,))


def _is_shared_by_heads(activation: Node) -> bool:
  """Returns whether an axis is repeated to make the heads, like keys that several queries share."""
  if activation.part_of is None:
    return False
  repeated = activation.part_of.find()
  return repeated.batched_with_activation and repeated.parts[0].find() is activation


def _factors_of_activation(node: Node) -> list[Factor]:
  """Returns the factors of an activation's axis.

  Slices that make up the whole axis and are all reshaped alike count as a leading factor: query,
  key and value of 4 heads of 8 features in one axis of 96 are 3, 4 (the heads) and 8.
  """
  slices = [piece.find() for _, piece in sorted(node.slice_axes, key=lambda cut: cut[0])]
  if slices and sum(piece.size for piece in slices) == node.size:
    first, *others = (_factors(piece) for piece in slices)
    if all(other == first for other in others):
      return [Factor(len(slices), False), *first]
  return _factors(node)


def _factors(node: Node) -> list[Factor]:
  return [Factor(part.size, part.find().batched_with_activation) for part in node.parts]


def _fuse(role: str, factors: Sequence[Factor]) -> AxisWords:
  """Returns the words of an axis that fuses heads with other factors.

  The factors before the heads are multiplied into one, and so are those after them.

  Example:
    >>> _fuse('out', [Factor(3, False), Factor(4, True), Factor(8, False)])
    AxisWords(words=('3', 'head', 'out'), heads=4, side=None)
  """
  head = [factor.is_head for factor in factors].index(True)
  before = math.prod(factor.size for factor in factors[:head])
  after = math.prod(factor.size for factor in factors[head + 1 :])
  words = ('head',)
  if after > 1 or before == 1:
    words += (role,)
  if before > 1:
    words = (str(before) if after > 1 else role, *words)
  return AxisWords(words, factors[head].size)


def _words_of_parts(node: Node) -> AxisWords:
  """Returns the words of an axis that was reshaped before it was used, from those of its parts."""
  parts = [_words_of_axis(part, 'out') for part in node.parts if part.find().role]
  if not parts or len(parts) < len(node.parts) or any(len(part.words) != 1 for part in parts):
    return UNKNOWN
  words = [part.words[0] for part in parts]
  match sorted(set(words)):
    case [role]:
      return AxisWords((role,))
    case ['head', role] if words.count('head') == 1:
      factors = [Factor(p.size, w == 'head') for p, w in zip(node.parts, words, strict=True)]
      return _fuse(role, factors)
  return UNKNOWN
