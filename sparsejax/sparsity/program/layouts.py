"""From the nodes of a parameter's axes, as a program uses them, to its layout."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.leaves.layout import SIDES, Layout
from sparsejax.sparsity.program.rules.nodes import CONFLICT, Node


class Axis(NamedTuple):
  """The words of an axis, several where it fuses heads with something, and what heads say more."""

  words: tuple[str, ...]
  heads: int | None = None  # how many are fused with something
  side: str | None = None  # of an axis that is heads alone


UNKNOWN = Axis(())


def layout_of(nodes: Sequence[Node]) -> Layout | None:
  """Returns the layout of a leaf whose axes all have a role; None of another."""
  others = any(node.find().role == 'stack' for node in nodes)
  blocks = ['out' if others else 'stack', *['out' if others else ''] * len(nodes)]
  axes = [_axis(node, block) for node, block in zip(nodes, blocks, strict=False)]
  if not axes or UNKNOWN in axes:
    return None
  if sum('head' in axis.words for axis in axes) > 1:
    axes = [_without_heads(axis) for axis in axes]
  for i, axis in enumerate(axes):  # a number for each head, and not a head of several features
    if axis.side is not None and not any(axis.side in other.words for other in axes):
      axes[i] = Axis((axis.side,))
  axes = [_with_side(axis, axes[i + 1 :]) for i, axis in enumerate(axes)]
  words = [axis.words for axis in axes]
  if _is_ambiguous(words):
    return None
  if ('position',) in words and {('position',), ('stack',)} >= set(words):
    last = max(i for i, axis in enumerate(words) if axis == ('position',))
    words[last] = ('out',)  # what is added to an input or rescales it
  text = ' '.join(axis[0] if len(axis) == 1 else f'({" ".join(axis)})' for axis in words)
  return Layout(text, next((axis.heads for axis in axes if axis.heads), None))


def _with_side(axis: Axis, after: Sequence[Axis]) -> Axis:
  """Heads alone on an axis, with their side where the words after it tell another."""
  if axis.side is None or axis.words != ('head',):
    return axis
  others = [word for other in after for word in other.words if word in SIDES]
  return axis if axis.side == (*others, 'out')[0] else Axis((f'head:{axis.side}',))


def _is_ambiguous(words: Sequence[tuple[str, ...]]) -> bool:
  """Whether outputs stand on both sides of the inputs.

  So do those of a layer under vmap whose members all have one input: its stack goes on like an
  output, and names tell the two apart, or nobody.
  """
  sides = [axis[0] for axis in words if axis[0] in SIDES]
  return 'in' in sides and sides[0] == sides[-1] == 'out' and len(sides) == len(words)


def _without_heads(axis: Axis) -> Axis:
  if 'head' not in axis.words:
    return axis
  return Axis((axis.side or next((word for word in axis.words if word in SIDES), 'out'),))


def _axis(node: Node, block: str) -> Axis:
  """What an axis is.

  Args:
    node: the axis.
    block: what outputs are that the next layer takes block by block: 'stack', members that all have
      one input; 'out', as of a stack itself; '' where nobody knows, for a stack need not be first.
  """
  node = node.find()
  if node.role is None:
    return _of_parts(node)
  if node.role == CONFLICT:
    return UNKNOWN
  if node.role not in SIDES:
    return Axis((node.role,))
  for became in (other.find() for other in node.became):
    if became.stacks and node.role == 'out' and block != 'out':
      return Axis((block,)) if block else UNKNOWN
    whole = became.whole and became.whole.find()  # of keys that several queries share
    if became.pairwise or (whole and whole.pairwise and whole.parts[0].find() is became):
      return Axis(('head',), side=node.role)
    parts = _activations(became)
    if len(parts) > 1 and [is_head for _, is_head in parts].count(True) == 1:
      return _fused(node.role, parts)
  return Axis((node.role,))


def _activations(node: Node) -> list[tuple[int, bool]]:
  """The sizes of an activation's parts, and which are heads; alike in all pieces it is cut into."""
  cuts = [cut.find() for _, cut in sorted(node.cuts, key=lambda cut: cut[0])]
  if cuts and sum(cut.size for cut in cuts) == node.size:
    first, *others = ([(p.size, p.find().pairwise) for p in cut.parts] for cut in cuts)
    if all(other == first for other in others):
      return [(len(cuts), False), *first]
  return [(part.size, part.find().pairwise) for part in node.parts]


def _fused(role: str, parts: Sequence[tuple[int, bool]]) -> Axis:
  """An axis of several parts, one of them the heads; those before and after it are one each."""
  at = [is_head for _, is_head in parts].index(True)
  before, after = (math.prod(size for size, _ in some) for some in (parts[:at], parts[at + 1 :]))
  words = ('head',)
  if after > 1 or before == 1:
    words += (role,)
  if before > 1:
    words = (str(before) if after > 1 else role, *words)
  return Axis(words, parts[at][0])


def _of_parts(node: Node) -> Axis:
  """What the parts of an axis say that was reshaped before it was used."""
  parts = [_axis(part, 'out') for part in node.parts if part.find().role]
  if not parts or len(parts) < len(node.parts) or any(len(axis.words) != 1 for axis in parts):
    return UNKNOWN
  roles = {axis.words[0] for axis in parts}
  are_heads = [axis.words[0] == 'head' for axis in parts]
  match sorted(roles):
    case [role]:
      return Axis((role,))
    case ['head', role] if are_heads.count(True) == 1:
      return _fused(role, [(part.size, h) for part, h in zip(node.parts, are_heads, strict=True)])
  return UNKNOWN
