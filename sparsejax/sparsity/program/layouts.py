"""From the nodes of a parameter's axes, as a program uses them, to its layout."""

from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.layout import SIDES, Layout
from sparsejax.sparsity.program.nodes import CONFLICT, Node


class Axis(NamedTuple):
  """The roles of an axis, several where it fuses them, and the number of heads it fuses."""

  roles: tuple[str, ...]
  heads: int | None = None


def layout_of(nodes: Sequence[Node]) -> Layout | None:
  """Returns the layout of a leaf whose axes all have a role; None of another."""
  axes = [_axis(node) for node in nodes]
  if not axes or not all(axis.roles for axis in axes):
    return None
  if sum(axis.roles.count('head') for axis in axes) > 1:
    axes = [_without_heads(axis) for axis in axes]
  if all(axis.roles in (('position',), ('stack',)) for axis in axes):
    last = max(i for i, axis in enumerate(axes) if axis.roles == ('position',))
    axes[last] = Axis(('out',))  # what is added to an input or rescales it
  axes = [Axis(axis.roles[:1]) if len(set(axis.roles)) == 1 else axis for axis in axes]
  if any(len(roles) > 2 or (len(roles) == 2 and 'head' not in roles) for roles, _ in axes):
    return None
  words = [roles[0] if len(roles) == 1 else f'({" ".join(roles)})' for roles, _ in axes]
  return Layout(' '.join(words), next((heads for roles, heads in axes if len(roles) == 2), None))


def _without_heads(axis: Axis) -> Axis:
  side = next((role for role in axis.roles if role in SIDES), 'out')
  return axis._replace(roles=tuple(side if role == 'head' else role for role in axis.roles))


def _axis(node: Node) -> Axis:
  node = node.find()
  if node.role is None:
    return _of_parts(node)
  if node.role == CONFLICT:
    return Axis(())
  if node.role not in SIDES:
    return Axis((node.role,))
  for became in (other.find() for other in node.became):
    if became.stacks and node.role == 'out':
      return Axis(('stack',))
    if became.pairwise:
      return Axis(('head',))
    parts = [part.find() for part in became.parts]
    if any(part.pairwise for part in parts) and len(parts) == 2:
      roles = tuple('head' if part.pairwise else node.role for part in parts)
      return Axis(roles, next(part.size for part in parts if part.pairwise))
  return Axis((node.role,))


def _of_parts(node: Node) -> Axis:
  """What the parts of an axis say that was reshaped before it was used."""
  parts = [_axis(part) for part in node.parts if part.find().role]
  if not parts or len(parts) < len(node.parts):
    return Axis(())
  of_heads = (
    part.size for part, found in zip(node.parts, parts, strict=True) if found.roles == ('head',)
  )
  return Axis(tuple(role for found in parts for role in found.roles), next(of_heads, None))
