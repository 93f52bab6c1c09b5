"""The indices of a program that can only be removed together, and the sums that read them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.trace.labels import Axes, Labels
from sparsejax.sparsity.program.equations import Equation, Program, Trace

# Reasons that pin indices, besides the names of primitives.
INPUT, OUTPUT, UNREAD = 'an input', 'an output', 'no sum'


@dataclasses.dataclass(eq=False)
class Sum:
  """An equation that sums over axes of its operands.

  Attributes:
    equation: a sum, a contraction or a convolution.
    axes: the axes of each operand that it sums over; those of two operands are paired in order.
    operands: the labels of each operand's axes.
  """

  equation: Equation
  axes: Sequence[Sequence[int]]
  operands: Sequence[Axes]


class Ties:
  """The tied labels of a whole program, found by following it once.

  Attributes:
    labels: the labels of all indices.
    axes: {number of a value: the labels of its axes}.
    sums_found: the sums that do not need an index that contributes nothing.
    roots: the root of every label.
  """

  def __init__(self, trace: Trace, shapes: Sequence[tuple[int, ...]], parameters: int):
    self.labels = Labels()
    self.sums_found = []
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
    """Pins indices that no sum reads, such as rows that shorter examples leave out."""
    is_read = self.labels.pinned_roots()
    for one in self.sums_found:
      for axis in one.axes[0]:
        is_read[self.roots[one.operands[0][axis]]] = True
    for number in parameters:
      for labels in self.axes[number]:
        self.labels.pin(labels[~is_read[self.roots[labels]]], UNREAD)

  def sums(self, eqn: Equation, axes: Sequence[Sequence[int]], ins: Sequence[Axes]) -> None:
    """Notes a sum over these axes of each operand; within a derivative, pins them instead."""
    if self._is_strict:
      self.labels.pin_axes([ins[0][i] for i in axes[0]], f'the derivative of {eqn.name}')
    else:
      self.sums_found.append(Sum(eqn, axes, list(ins)))

  def run(self, program: Program, ins: Sequence[Axes], *, strict: bool = False) -> list[Axes]:
    """Returns the labels of a program's outputs; if strict, its sums pin all that they read."""
    before, self._is_strict = self._is_strict, self._is_strict or strict
    self.axes |= dict(zip(program.ins, ins, strict=True))
    for eqn in program.equations:
      outs = rule_of(eqn.name).axes(self, eqn, [self.axes[number] for number in eqn.ins])
      assert [[len(a) for a in axes] for axes in outs] == [list(s) for s in eqn.out_shapes], (
        eqn.name
      )
      self.axes |= dict(zip(eqn.outs, outs, strict=True))
    self._is_strict = before
    return [self.axes[number] for number in program.outs]
