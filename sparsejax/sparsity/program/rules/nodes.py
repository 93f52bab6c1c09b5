"""The axes of a program's values as nodes of a union-find, and what is known of each value.

Two axes are one node where an elementwise operation aligns them: in `x + y` of shapes (7, 3), the
first axes of x, y and the sum are one node, and so are the second ones.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# The kinds of a value:
KERNEL = 'kernel'  # a kernel, also after elementwise changes such as masking
PARAM = 'param'  # computed from parameters alone, not a kernel: a table, a bias, a learned token
CONSTANT = 'constant'  # computed from neither parameters nor examples
INPUT = 'input'  # computed from the examples without a product, such as a mask given with them
ACTIVATION = 'activation'  # the result of a product
PARAMETER_KINDS, EXAMPLE_KINDS = (KERNEL, PARAM), (INPUT, ACTIVATION)
CONFLICT = 'conflict'  # the role of an axis that is used in two ways at once


class Node:
  """An axis: its size, its role, and how it relates to other axes.

  Attributes:
    size: the number of entries along the axis.
    parent: the next node on the way to the representative of its union-find set.
    parts: the axes that a reshape splits it into or merges into it, major first.
    part_of: the axis that it is one of the parts of.
    concatenated_from: the axes that a concatenation joins into it, in order.
    slice_axes: (start, axis) of each slice that is taken along it.
    sliced_from: (axis, start): the unsliced axis that it was taken from, and where it starts there.
    role: for a parameter's axis, one of `layout.ROLES`, or CONFLICT.
    activations: for a parameter's axis, the axes of activations that it produces, is summed with,
      or is aligned with by an elementwise operation.
    batched_with_activation: whether it is a batch dimension of a product of two activations, as
      the heads of attention are.
    batched_with_kernel: whether it is a batch dimension of a product with a parameter.
    from_kernel: whether it is an output of a product with a parameter.
    broadcast: whether all entries along it are copies of one.
  """

  def __init__(self, size: int):
    self.size = int(size)
    self.parent = self
    self.parts: list[Node] = []
    self.part_of: Node | None = None
    self.concatenated_from: list[Node] = []
    self.slice_axes: list[tuple[int, Node]] = []
    self.sliced_from: tuple[Node, int] | None = None
    self.role: str | None = None
    self.activations: list[Node] = []
    self.batched_with_activation = False
    self.batched_with_kernel = False
    self.from_kernel = False
    self.broadcast = False

  def find(self) -> 'Node':
    """Returns the representative of the node's union-find set, which holds all attributes."""
    node = self
    while node.parent is not node:
      node = node.parent
    return node

  def slice_origin(self) -> tuple['Node', int]:
    """Returns the unsliced axis that this one was taken from, and where it starts there."""
    root = self.find()
    return root.sliced_from or (root, 0)

  def related(self) -> list['Node']:
    """Returns the node itself, its parts, and the axis that it is a part of."""
    root = self.find()
    part_of = [] if root.part_of is None else [root.part_of.find()]
    return [root, *(part.find() for part in root.parts), *part_of]

  def assign_role(self, role: str, *, weak: bool = False) -> None:
    """Gives an axis of a parameter its role, or marks a conflict with the role that it has.

    Args:
      role: one of `layout.ROLES`.
      weak: whether the role only follows from an elementwise operation. A weak role replaces no
        other role than 'position', and never conflicts.
    """
    root = self.find()
    for piece in root.concatenated_from:
      piece.assign_role(role, weak=weak)
    for part in root.parts or [root]:
      part = part.find()
      # Anything that is added to an input gets 'position'; meeting a kernel's output says more.
      if part.role is None or (part.role == 'position' and weak):
        part.role = role
      elif part.role != role and not weak and part.role != 'stack':
        part.role = CONFLICT

  def add_activation(self, activation: 'Node') -> None:
    """Records an axis of an activation that this axis of a kernel produces or is summed with.

    Where a reshape split this axis, the activation's axis is split alike, part by part: an axis of
    12 = 4 x 3 makes heads and features visible on both sides of the product.
    """
    root, other = self.find(), activation.find()
    if not root.parts:
      root.activations.append(other)
      return
    if not other.parts:
      other.parts = [Node(part.size) for part in root.parts]
      for part in other.parts:
        part.from_kernel = other.from_kernel
    if sizes(other.parts) == sizes(root.parts):
      for kernel_part, activation_part in zip(root.parts, other.parts, strict=True):
        kernel_part.find().activations.append(activation_part)


class Slice(NamedTuple):
  """A slice along one axis of a parameter.

  Attributes:
    axis: the unsliced axis.
    start: the index where the slice starts; None where every iteration of a loop takes the next.
    size: the size of the slice.
    iterations: how many slices of that size a loop takes until it reaches the end of the axis.
  """

  axis: Node
  start: int | None
  size: int
  iterations: int = 1


def slice_per_iteration(axis: Node, size: int) -> Slice:
  """Returns the slice of an axis that a loop takes when each iteration takes the next `size`."""
  base, _ = axis.slice_origin()
  return Slice(base, None, size, axis.size // size)


class Scalar(NamedTuple):
  """An integer that the program fixes, or a counter that runs through range(stop).

  Attributes:
    number: the integer; None for a counter.
    stop: for a counter, the end of its range.
  """

  number: Any = None
  stop: int = 0


@dataclasses.dataclass
class Value:
  """A value in the program, with what was found out about its axes.

  Attributes:
    axes: the node of each axis.
    kind: KERNEL, PARAM, CONSTANT, INPUT or ACTIVATION.
    slices: for a kernel, the slices that were taken to make it, one for each sliced axis.
    scalar: for a value with one entry, what is known of it; for a vector that is arange(n), the
      counter that takes its entries in turn.
  """

  axes: list[Node]
  kind: str
  slices: tuple[Slice, ...] = ()
  scalar: Scalar | None = None

  def replace_axes(self, axes: list[Node], *slices: Slice) -> 'Value':
    """Returns a value of the same kind with other axes, and with these slices added to its own."""
    return Value(axes, self.kind, (*self.slices, *slices))


def unify(a: Node, b: Node) -> None:
  """Makes two axes of the same size one node; does nothing where their sizes differ."""
  a, b = a.find(), b.find()
  if a is b or a.size != b.size:
    return
  b.parent = a
  a.role = a.role or b.role
  a.activations = a.activations + b.activations
  a.batched_with_activation = a.batched_with_activation or b.batched_with_activation
  a.batched_with_kernel = a.batched_with_kernel or b.batched_with_kernel
  a.from_kernel = a.from_kernel or b.from_kernel
  a.sliced_from = a.sliced_from or b.sliced_from
  a.slice_axes += b.slice_axes
  a.concatenated_from = a.concatenated_from or b.concatenated_from
  a.part_of = a.part_of or b.part_of
  if not a.parts:
    a.parts = b.parts
  elif b.parts and sizes(a.parts) == sizes(b.parts):
    unify_axes(a.parts, b.parts)


def unify_axes(some: Iterable[Node], others: Iterable[Node]) -> None:
  """Unifies the axes of two values pair by pair."""
  for a, b in zip(some, others, strict=True):
    unify(a, b)


def align(value: Value, out: Value) -> None:
  """Relates the axes of an operand to those of an elementwise result of the same rank.

  The axes of a parameter stay apart from those of an activation, because only a parameter's axes
  have roles: each records the axis that it meets. All other axes become one node.
  """
  for axis, out_axis in zip(value.axes, out.axes, strict=True):
    if axis.size != out_axis.size or axis.size == 1:
      continue
    if value.kind in PARAMETER_KINDS and out.kind in EXAMPLE_KINDS:
      axis.find().activations.append(out_axis)
      axis.assign_role('out' if out_axis.find().from_kernel else 'position', weak=True)
    else:
      unify(out_axis, axis)


def mark_output(axis: Node, activation: Node) -> None:
  """Records that an axis of a parameter is an output, which becomes an axis of an activation."""
  axis.assign_role('out')
  activation.from_kernel = True
  axis.add_activation(activation)


def new_value(shape: Sequence[int], kind: str) -> Value:
  """Returns a value with a new node for each axis."""
  return Value([Node(n) for n in shape], kind)


def new_output(eqn, ins: Sequence[Value]) -> Value:
  """Returns the first output of an equation, with a new node for each axis."""
  return derive_value(ins, eqn.outvars[0].aval.shape)


def derive_value(ins: Sequence[Value], shape: Sequence[int]) -> Value:
  """Returns a value that is computed from others, with new nodes and the slices of the kernels."""
  slices = [part for value in ins if value.kind == KERNEL for part in value.slices]
  return Value([Node(n) for n in shape], joint_kind(ins), tuple(slices))


def joint_kind(values: Sequence[Value]) -> str:
  """Returns the kind of what is computed from all these values without a product."""
  return join_kinds([value.kind for value in values])


def join_kinds(kinds: Sequence[str]) -> str:
  """Returns the kind of what is computed, without a product, from values of these kinds.

  Example:
    >>> join_kinds([KERNEL, CONSTANT]), join_kinds([KERNEL, INPUT])
    ('kernel', 'input')
  """
  return next((kind for kind in (ACTIVATION, INPUT, KERNEL, PARAM) if kind in kinds), CONSTANT)


def kind_of_product(kinds: Sequence[str]) -> str:
  """Returns the kind of a product: an activation, unless all the kinds are constants."""
  return CONSTANT if set(kinds) <= {CONSTANT} else ACTIVATION


def sizes(nodes: Iterable[Node]) -> list[int]:
  """Returns the size of each axis."""
  return [node.size for node in nodes]
