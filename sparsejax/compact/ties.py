"""Which indices go together in a program, and which sums read them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.trace.equations import Equation, Program, Trace
from sparsejax.compact.trace.labels import Axes, Labels

# What pins indices, beside primitives.
INPUT, OUTPUT, UNREAD = 'an input', 'an output', 'no sum'


@dataclasses.dataclass(eq=False)
class Sum:
  """An equation that sums.

  Attributes:
    equation: a sum, or a product.
    axes: over which axes of each operand; those of two operands pair by pair.
    operands: the labels of each operand.
  """

  equation: Equation
  axes: Sequence[Sequence[int]]
  operands: Sequence[Axes]


class Ties:
  """Follows a whole program once, and ties labels as its equations say.

  Attributes:
    labels: of all indices.
    axes: the labels of each value, by its number.
    sums: what may do without an index.
  """

  def __init__(self, trace: Trace, shapes: Sequence[tuple[int, ...]], parameters: int):
    self.labels, self.sums_found = Labels(), []
    self.axes: dict[int, Axes] = {
      number: self.labels.axes(np.shape(value)) for number, value in trace.constants.items()
    }
    self._is_strict = False
    given = [self.labels.axes(s, INPUT if i >= parameters else '') for i, s in enumerate(shapes)]
    for axes in self.run(trace.program, given):
      self.labels.pin_axes(axes, OUTPUT)
    self.roots = self.labels.roots()
    self._pin_unread(trace.program.ins[:parameters])

  def _pin_unread(self, parameters: Sequence[int]) -> None:
    """Keeps what no sum can do without: rows that shorter examples leave out, a leaf not used."""
    is_read = self.labels.pinned_roots()
    for one in self.sums_found:
      for axis in one.axes[0]:
        is_read[self.roots[one.operands[0][axis]]] = True
    for number in parameters:
      for labels in self.axes[number]:
        self.labels.pin(labels[~is_read[self.roots[labels]]], UNREAD)

  def sums(self, eqn: Equation, axes: Sequence[Sequence[int]], ins: Sequence[Axes]) -> None:
    if self._is_strict:
      self.labels.pin_axes([ins[0][i] for i in axes[0]], f'the derivative of {eqn.name}')
    else:
      self.sums_found.append(Sum(eqn, axes, list(ins)))

  def run(self, program: Program, ins: Sequence[Axes], *, strict: bool = False) -> list[Axes]:
    before, self._is_strict = self._is_strict, self._is_strict or strict
    self.axes |= dict(zip(program.ins, ins, strict=True))
    for eqn in program.equations:
      outs = rule_of(eqn.name).axes(self, eqn, [self.axes[number] for number in eqn.ins])
      assert [[len(a) for a in axes] for axes in outs] == [list(s) for s in eqn.made], eqn.name
      self.axes |= dict(zip(eqn.outs, outs, strict=True))
    self._is_strict = before
    return [self.axes[number] for number in program.outs]
