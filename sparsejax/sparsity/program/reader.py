"""Reading a jaxpr once, equation by equation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from sparsejax.sparsity.program import loops, products, shapes, taking
from sparsejax.sparsity.program.dependence import is_called, programs_in
from sparsejax.sparsity.program.nodes import CONSTANT, PARAM, Node, Value, fresh, kind_of, meet

RULES = (
  shapes.RULES | taking.RULES | products.RULES | loops.RULES
)  # (reader, eqn, ins, times) -> values
COUNTED = ('dot_general', 'conv_general_dilated')


@dataclasses.dataclass
class Graph:
  """What was found.

  Attributes:
    leaves: by path, the nodes of each parameter's axes.
    macs: by path, the multiply-accumulates of the products with this parameter.
    products: those of products in which no parameter is.
    unknown: why the count is none, '' where it is right.
  """

  leaves: dict[str, list[Node]]
  macs: dict[str, int] = dataclasses.field(default_factory=dict)
  products: int = 0
  unknown: str = ''


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
    if (rule := RULES.get(eqn.primitive.name)) is not None:
      return rule(self, eqn, ins, times)
    for inner in programs_in(eqn):
      if is_called(eqn, inner):
        return self.run(inner, ins, times)
      if _has_products(inner):
        self.not_known(f'how often {eqn.primitive.name} makes the products in it')
    outs = [fresh(getattr(var.aval, 'shape', ()), kind_of(ins)) for var in eqn.outvars]
    for out in outs:
      for value in ins:
        if len(value.axes) == len(out.axes):
          meet(value, out)
    return outs

  # Counting

  def count(self, kernel: Value, macs: int) -> None:
    """Adds to the parameter that the kernel is made of, or to each that it is concatenated of."""
    whole = next((node.find() for node in kernel.axes if node.find().pieces), None)
    if whole is not None:
      for piece in whole.pieces:
        self.count(Value([piece], PARAM), macs * piece.size // whole.size)
      return
    own = {id(node) for axis in kernel.axes for node in axis.family()}
    shared = {
      path: sum(axis.size for axis in axes if any(id(node) in own for node in axis.family()))
      for path, axes in self.graph.leaves.items()
    }
    path = max(shared, key=lambda p: (shared[p] > 0, len(self.graph.leaves[p]), shared[p]))
    if not shared[path]:
      self.not_known('a product with no single parameter')
      return
    self.graph.macs[path] = self.graph.macs.get(path, 0) + macs

  def counted(self) -> tuple[dict[str, int], int]:
    """Returns what was counted so far."""
    return dict(self.graph.macs), self.graph.products

  def count_from(self, counted: tuple[dict[str, int], int]) -> None:
    """Goes back to what had been counted."""
    self.graph.macs, self.graph.products = dict(counted[0]), counted[1]

  def not_known(self, why: str) -> None:
    """Notes why the count is none; the first reason stays."""
    self.graph.unknown = self.graph.unknown or why


def _has_products(jaxpr) -> bool:
  return any(
    eqn.primitive.name in COUNTED or any(map(_has_products, programs_in(eqn))) for eqn in jaxpr.eqns
  )
