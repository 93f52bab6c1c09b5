"""Reading a jaxpr once, equation by equation."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jax.extend import core

from sparsejax.sparsity.program import loops, products, shapes, taking
from sparsejax.sparsity.program.dependence import is_called, programs_in
from sparsejax.sparsity.program.nodes import (
  CONSTANT,
  DATA,
  KERNEL,
  Node,
  Value,
  fresh,
  kind_of,
  meet,
  sizes,
)
from sparsejax.sparsity.program.primitives import HARMLESS, KEEPS_A_KERNEL

# {primitive: (reader, equation, values that go in, how often it runs) -> values that come out}
RULES = shapes.RULES | taking.RULES | products.RULES | loops.RULES


class Use(NamedTuple):
  """That so many of a parameter's weights are applied, each at so many positions."""

  weights: int
  positions: int


@dataclasses.dataclass
class Graph:
  """What was found.

  Attributes:
    leaves: by path, the nodes of each parameter's axes.
    uses: by path, the products with this parameter.
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
    """Returns how often each weight of a parameter is applied; None where they differ.

    Uses of a part count where all parts are used, each as often as the others.
    """
    whole, parts = self.size(path), [u for u in self.uses[path] if u.weights != self.size(path)]
    found = sum(use.positions for use in self.uses[path] if use.weights == whole)
    if not parts:
      return found
    covered = sum(use.weights for use in parts)
    if len({use.positions for use in parts}) > 1 or covered % whole:
      return None
    return found + parts[0].positions * (covered // whole)


class Reader:
  """Walks a jaxpr, and notes what it does with the leaves of a graph."""

  def __init__(self, graph: Graph):
    self.graph = graph

  def run(self, jaxpr, given: Sequence[Value], times: int) -> list[Value]:
    """Returns the values that come out of a jaxpr whose equations run so many times."""
    env: dict[Any, Value] = dict(zip(jaxpr.invars, given, strict=True))
    env |= {var: fresh(var.aval.shape, CONSTANT) for var in jaxpr.constvars}

    def value(atom) -> Value:
      return fresh(atom.aval.shape, CONSTANT) if isinstance(atom, core.Literal) else env[atom]

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
    out = fresh(shape, kind_of(ins))
    if out.kind == DATA and name in KEEPS_A_KERNEL:
      kernels = [value for value in ins if value.kind == KERNEL]
      if any(sizes(v.axes) == list(shape) and self._is_of_leaves(v.axes) for v in kernels):
        out.kind = KERNEL
      elif name == 'mul':
        self.graph.entrywise |= {p for value in kernels for p in self._within(value.axes, 2)}
    for value in ins:
      if len(value.axes) == len(out.axes):
        meet(value, out)
    return out

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

  def count(self, kernel: Value, macs: int, times: int) -> None:
    """Adds to the parameter that the kernel is made of, or to each that it is concatenated of."""
    weights = math.prod(sizes(kernel.axes))
    whole = next((node for axis in kernel.axes for node in axis.family() if node.pieces), None)
    if not weights:
      return
    if whole is None:
      self._use(self._path(kernel.axes, weights), weights, macs, times)
      return
    for piece in whole.pieces:
      share = weights * piece.size // whole.size
      self._use(self._path([piece], share), share, macs * piece.size // whole.size, times)

  def _use(self, path: str | None, weights: int, macs: int, times: int) -> None:
    if path is None:
      return
    weights *= 1 if weights == self.graph.size(path) else times  # a turn of a loop takes the next
    self.graph.uses[path].append(Use(weights, macs // weights))

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


def _ids(axes: Iterable[Node]) -> set[int]:
  """Which nodes some axes are, with their parts and what they are parts of."""
  return {id(node) for axis in axes for node in axis.family()}


def _is_among(axis: Node, ids: set[int]) -> bool:
  return any(id(node) in ids for node in axis.family())


def _shapes(variables) -> list[tuple[int, ...]]:
  return [getattr(v.aval, 'shape', ()) for v in variables]
