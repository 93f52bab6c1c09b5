"""Nodes: the axes of a program's values, one and the same where values meet entry by entry."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# What a value is: a kernel, whatever was done to it entry by entry; made of other parameters alone,
# such as a table or a learned token; made of nothing that is given; of the examples as they are
# given, entry by entry, as a mask is; or an activation that products have made.
KERNEL, PARAM, CONSTANT, GIVEN, DATA = 'kernel', 'param', 'constant', 'given', 'data'
OF_PARAMETERS, OF_EXAMPLES = (KERNEL, PARAM), (GIVEN, DATA)
CONFLICT = 'conflict'  # the role of an axis that is used in two ways at once


class Node:
  """An axis: its size, what it is used for, and how it is split or was merged."""

  def __init__(self, size: int):
    self.size = int(size)
    self.parent = self
    self.parts: list[Node] = []  # major first, where a reshape takes it apart or puts it together
    self.whole: Node | None = None  # what a reshape took apart, and this is a part of
    self.pieces: list[Node] = []  # of which it is concatenated
    self.cuts: list[tuple[int, Node]] = []  # where each piece that is taken of it begins
    self.role: str | None = None  # of an axis of a kernel
    self.became: list[Node] = []  # the axes of activations that it makes, reads or meets
    self.pairwise = False  # whether a product of two activations takes it pairwise
    self.stacks = False  # whether a product with a parameter does
    self.computed = False  # whether it comes out of a kernel
    self.repeated = False  # whether the entries along it are one and the same
    self.origin: tuple[Node, int] | None = None  # what it was cut from, and where it begins there

  def find(self) -> 'Node':
    node = self
    while node.parent is not node:
      node = node.parent
    return node

  def place(self) -> tuple['Node', int]:
    """Returns the axis that this was cut from, at first, and where it begins there."""
    root = self.find()
    return root.origin or (root, 0)

  def family(self) -> list['Node']:
    """Returns the node, its parts, and what it is a part of."""
    root = self.find()
    whole = [] if root.whole is None else [root.whole.find()]
    return [root, *(part.find() for part in root.parts), *whole]

  def use(self, role: str, *, weak: bool = False) -> None:
    """Notes what an axis of a parameter is.

    Args:
      role: one of `layout.ROLES`.
      weak: whether it is known only from what it is added to, which gives way to a product.
    """
    root = self.find()
    for piece in root.pieces:
      piece.use(role, weak=weak)
    for part in root.parts or [root]:
      part = part.find()
      if part.role is None or (part.role == 'position' and weak):
        part.role = role
      elif part.role != role and not weak and part.role != 'stack':
        part.role = CONFLICT

  def link(self, activation: 'Node') -> None:
    """Notes which axis of activations an axis of a kernel makes or reads, part by part."""
    root, other = self.find(), activation.find()
    if not root.parts:
      root.became.append(other)
      return
    if not other.parts:
      other.parts = [Node(part.size) for part in root.parts]
      for part in other.parts:
        part.computed = other.computed
    if sizes(other.parts) == sizes(root.parts):
      for one, made in zip(root.parts, other.parts, strict=True):
        one.find().became.append(made)


class Taken(NamedTuple):
  """What was taken along an axis of a kernel.

  Attributes:
    axis: the axis that it was taken from.
    begin: where it begins; None where each turn of a loop takes the next.
    size: how much it is.
    turns: how many there are until all is taken.
  """

  axis: Node
  begin: int | None
  size: int
  turns: int = 1


def taken_by_turns(axis: Node, size: int) -> Taken:
  """Returns what each turn of a loop takes the next of, until the axis is at its end."""
  base, _ = axis.place()
  return Taken(base, None, size, axis.size // size)


class Scalar(NamedTuple):
  """What is known of a value of one entry: the number itself, or that it counts a loop's turns.

  Attributes:
    number: the number itself; None for a counter.
    turns: how many turns a counter counts, from 0.
  """

  number: Any = None
  turns: int = 0


@dataclasses.dataclass
class Value:
  """What is known of a value: the node of each axis, and what it depends on.

  Attributes:
    axes: their nodes.
    kind: one of those above.
    taken: what was taken of a kernel, axis by axis.
    scalar: what a single entry is, where that is known; for all integers from 0 on, along the
      only axis, how many they are.
  """

  axes: list[Node]
  kind: str
  taken: tuple[Taken, ...] = ()
  scalar: Scalar | None = None

  def with_axes(self, axes: list[Node], *taken: Taken) -> 'Value':
    """Returns the same with other axes, and with what was taken besides."""
    return Value(axes, self.kind, (*self.taken, *taken))


def same(a: Node, b: Node) -> None:
  """Makes two nodes one."""
  a, b = a.find(), b.find()
  if a is b or a.size != b.size:
    return
  b.parent = a
  a.role, a.became = a.role or b.role, a.became + b.became
  a.pairwise = a.pairwise or b.pairwise
  a.stacks = a.stacks or b.stacks
  a.computed = a.computed or b.computed
  a.origin = a.origin or b.origin
  a.cuts += b.cuts
  a.pieces = a.pieces or b.pieces
  a.whole = a.whole or b.whole
  if not a.parts:
    a.parts = b.parts
  elif b.parts and sizes(a.parts) == sizes(b.parts):
    same_axes(a.parts, b.parts)


def same_axes(some: Iterable[Node], others: Iterable[Node]) -> None:
  """Makes the axes of two values one, each with each."""
  for a, b in zip(some, others, strict=True):
    same(a, b)


def meet(value: Value, out: Value) -> None:
  """Entry by entry: of the same kind the axes are one; a parameter meets an activation."""
  for mine, theirs in zip(value.axes, out.axes, strict=True):
    if mine.size != theirs.size or mine.size == 1:
      continue
    if value.kind in OF_PARAMETERS and out.kind in OF_EXAMPLES:
      mine.find().became.append(theirs)
      mine.use('out' if theirs.find().computed else 'position', weak=True)
    else:
      same(theirs, mine)


def makes(mine: Node, activation: Node) -> None:
  """Notes that an axis of a parameter goes on as one of activations."""
  mine.use('out')
  activation.computed = True
  mine.link(activation)


def fresh(shape: Sequence[int], kind: str) -> Value:
  """Returns a value of which nothing is known but its shape."""
  return Value([Node(n) for n in shape], kind)


def fresh_out(eqn, ins: Sequence[Value]) -> Value:
  """Returns the first value that an equation makes, with nothing known of its axes yet."""
  return made_of(ins, eqn.outvars[0].aval.shape)


def made_of(ins: Sequence[Value], shape: Sequence[int]) -> Value:
  """Returns a value of that shape that depends on others; of a kernel it is the same part."""
  taken = [part for value in ins if value.kind == KERNEL for part in value.taken]
  return Value([Node(n) for n in shape], kind_of(ins), tuple(taken))


def kind_of(values: Sequence[Value]) -> str:
  """Returns what depends on all of some values."""
  return join([value.kind for value in values])


def join(kinds: Sequence[str]) -> str:
  """Returns the kind of what depends on values of several."""
  return next((kind for kind in (DATA, GIVEN, KERNEL, PARAM) if kind in kinds), CONSTANT)


def of_product(kinds: Sequence[str]) -> str:
  """Returns the kind of a product: of what is given, an activation."""
  return CONSTANT if set(kinds) <= {CONSTANT} else DATA


def sizes(nodes: Iterable[Node]) -> list[int]:
  return [node.size for node in nodes]
