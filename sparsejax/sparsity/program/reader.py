"""Reading a jaxpr once, equation by equation."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jax.extend import core

from sparsejax.sparsity.program.rules import loops, products, scalars, shapes, taking
from sparsejax.sparsity.program.rules.dependence import is_called, programs_in
from sparsejax.sparsity.program.rules.nodes import (
  CONSTANT,
  DATA,
  GIVEN,
  KERNEL,
  OF_EXAMPLES,
  Node,
  Scalar,
  Value,
  fresh,
  kind_of,
  made_of,
  meet,
  sizes,
)
from sparsejax.sparsity.program.rules.primitives import HARMLESS, KEEPS_A_KERNEL
from sparsejax.sparsity.program.uses import Use, positions, use_of

# {primitive: (reader, equation, values that go in, how often it runs) -> values that come out}
RULES = shapes.RULES | taking.RULES | products.RULES | loops.RULES


@dataclasses.dataclass
class Graph:
  """What was found.

  Attributes:
    leaves: the nodes of each parameter's axes, by path.
    uses: the products with each parameter, by path.
    products: the multiply-accumulates of products in which no parameter is.
    entrywise: the kernels that activations are multiplied by entry by entry.
    unknown: why the count is none, '' where it is right.
  """

  leaves: dict[str, list[Node]]
  uses: dict[str, list[Use]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(list)
  )
  products: int = 0
  entrywise: set[str] = dataclasses.field(default_factory=set)
  unknown: str = ''

  def size(self, path: str) -> int:
    return math.prod(sizes(self.leaves[path]))

  def positions(self, path: str) -> int | None:
    """Returns how often each weight of a parameter is applied; None where they differ or may."""
    return positions(self.uses[path], self.size(path))


class Reader:
  """Walks a jaxpr, and notes what it does with the leaves of a graph."""

  def __init__(self, graph: Graph):
    self.graph = graph

  def run(self, jaxpr, given: Sequence[Value], times: int) -> list[Value]:
    """Returns the values that come out of a jaxpr whose equations run so many times."""
    env: dict[Any, Value] = dict(zip(jaxpr.invars, given, strict=True))
    env |= {var: fresh(var.aval.shape, CONSTANT) for var in jaxpr.constvars}

    def value(atom) -> Value:
      return _literal(atom) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
      outs = self._equation(eqn, [value(atom) for atom in eqn.invars], times)
      env |= dict(zip(eqn.outvars, outs, strict=True))
    return [value(atom) for atom in jaxpr.outvars]

  def _equation(self, eqn, ins: list[Value], times: int) -> list[Value]:
    name = eqn.primitive.name
    if (rule := RULES.get(name)) is not None:
      return rule(self, eqn, ins, times)
    for inner in programs_in(eqn):
      if is_called(eqn, inner):
        return self.run(inner, ins, times)
    if name not in HARMLESS and kind_of(ins) != CONSTANT:
      self.not_known(f'what {name} multiplies')
    shapes_in, shapes_out = (_shapes(variables) for variables in (eqn.invars, eqn.outvars))
    if len(shapes_out) > 1 and shapes_in == shapes_out:  # each for itself, as behind a barrier
      pairs = zip(ins, shapes_out, strict=True)
      return [self._entry_by_entry(name, [value], shape) for value, shape in pairs]
    return [self._entry_by_entry(name, ins, shape) for shape in shapes_out]

  def _entry_by_entry(self, name: str, ins: Sequence[Value], shape) -> Value:
    """A value that has an entry for each of those that it is made of."""
    out = made_of(ins, shape)
    if out.kind in OF_EXAMPLES and name in KEEPS_A_KERNEL:
      kernels = [value for value in ins if value.kind == KERNEL]
      alike = any(sizes(v.axes) == list(shape) and self._is_of_leaves(v.axes) for v in kernels)
      if alike and (out.kind == GIVEN or _rescale(ins, shape)):
        out.kind = KERNEL
      elif alike or name == 'mul':
        self.graph.entrywise |= {path for value in kernels for path in self._multiplying(value)}
    for value in ins:
      if len(value.axes) == len(out.axes):
        meet(value, out)
    out.scalar = scalars.made_by(name, [value.scalar for value in ins]) if not out.axes else None
    return out

  def _multiplying(self, kernel: Value) -> list[str]:
    """The parameters of which this is a matrix, or some of one; a turn's slice is its own layer."""
    own = _ids([*kernel.axes, *(part.axis for part in kernel.taken if part.begin is not None)])
    turned = _ids(part.axis for part in kernel.taken if part.begin is None)
    found = []
    for path, nodes in self.graph.leaves.items():
      long = [node for node in nodes if node.size > 1]
      of_layer = [node for node in long if not _is_among(node, turned)]
      if 1 < len(of_layer) == sum(_is_among(node, own) for node in long):
        found.append(path)
    return found

  def _is_of_leaves(self, axes: Sequence[Node]) -> bool:
    """Whether each of these axes is one of a parameter, and none was made by repeating it."""
    own = _ids(node for nodes in self.graph.leaves.values() for node in nodes)
    return all(node.size == 1 or _is_among(node, own) for node in axes)

  def _within(self, axes: Sequence[Node], least: int = 1) -> list[str]:
    """The parameters all of whose axes are among these, so many at least longer than 1."""
    own, found = _ids(axes), []
    for path, nodes in self.graph.leaves.items():
      long = [node for node in nodes if node.size > 1]
      if len(long) >= least and all(_is_among(node, own) for node in long):
        found.append(path)
    return found

  # Counting

  def count(self, kernel: Value, macs: int) -> None:
    """Adds to the parameter that the kernel is made of, or to each that it is concatenated of."""
    weights = math.prod(sizes(kernel.axes))
    whole = next((node for axis in kernel.axes for node in axis.family() if node.pieces), None)
    if not weights:
      return
    if whole is None:
      self._use(self._path(kernel.axes, weights), kernel, weights, macs)
      return
    for piece in whole.pieces:
      share = weights * piece.size // whole.size
      part = macs * piece.size // whole.size
      self._use(self._path([piece], share), kernel, share, part)

  def _use(self, path: str | None, kernel: Value, weights: int, macs: int) -> None:
    if path is None:
      return
    self.graph.uses[path].append(use_of(weights, macs, kernel.taken))

  def _path(self, axes: Sequence[Node], weights: int) -> str | None:
    """The parameter that a kernel with these axes and so many weights is made of."""
    found = [path for path in self._within(axes) if self.graph.size(path) == weights]
    if len(found) > 1:
      self.not_known(f'a kernel is made of {" and ".join(found)}')
      return None
    if found:
      return found[0]
    own = _ids(axes)
    shared = {
      path: sum(node.size for node in nodes if _is_among(node, own))
      for path, nodes in self.graph.leaves.items()
    }
    path = max(shared, key=lambda p: (shared[p] > 0, len(self.graph.leaves[p]), shared[p]))
    if not shared[path]:
      self.not_known('a product with no single parameter')
      return None
    return path

  def counted(self) -> tuple[dict[str, list[Use]], int]:
    """Returns what was counted so far."""
    return {path: list(uses) for path, uses in self.graph.uses.items()}, self.graph.products

  def count_from(self, counted: tuple[dict[str, list[Use]], int]) -> None:
    """Goes back to what had been counted."""
    uses, self.graph.products = counted
    self.graph.uses = collections.defaultdict(list, {p: list(some) for p, some in uses.items()})

  def not_known(self, why: str) -> None:
    """Notes why the count is none; the first reason stays."""
    self.graph.unknown = self.graph.unknown or why


def _rescale(ins: Sequence[Value], shape: Sequence[int]) -> bool:
  """Whether what products have made rescales whole rows or columns of a kernel, as a style does."""
  made = [value for value in ins if value.kind == DATA]
  pairs = [zip(value.axes, shape, strict=False) for value in made]
  return all(any(node.repeated or node.size < size for node, size in axes) for axes in pairs)


def _literal(atom) -> Value:
  value = fresh(atom.aval.shape, CONSTANT)
  value.scalar = None if atom.aval.shape else Scalar(atom.val)
  return value


def _ids(axes: Iterable[Node]) -> set[int]:
  """Which nodes some axes are, with their parts and what they are parts of."""
  return {id(node) for axis in axes for node in axis.family()}


def _is_among(axis: Node, ids: set[int]) -> bool:
  return any(id(node) in ids for node in axis.family())


def _shapes(variables) -> list[tuple[int, ...]]:
  return [getattr(v.aval, 'shape', ()) for v in variables]
