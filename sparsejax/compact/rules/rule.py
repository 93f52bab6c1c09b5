"""What a rule says about a primitive, and the interfaces it uses."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from sparsejax.compact.trace import known
from sparsejax.compact.trace.known import Known
from sparsejax.compact.trace.labels import Axes, Labels
from sparsejax.sparsity.program.equations import Equation, Program


class Graph(Protocol):
  """Ties labels while it follows a program."""

  labels: Labels

  def sums(self, eqn: Equation, axes: Sequence[Sequence[int]], ins: Sequence[Axes]) -> None:
    """Notes that an equation sums over these axes of each operand, paired in order."""

  def run(self, program: Program, ins: Sequence[Axes], *, strict: bool = False) -> list[Axes]:
    """Follows an inner program; if strict, its sums must keep every index they read."""


class Constants(Protocol):
  """Finds known values while it follows a program."""

  def run(self, program: Program, ins: Sequence[Known]) -> list[Known]: ...


class Small(Protocol):
  """Evaluates a program on smaller values."""

  def kept(self, labels: np.ndarray) -> np.ndarray:
    """Returns the positions along an axis that are kept."""

  def axes(self, value: int) -> Axes:
    """Returns the labels of each axis of a value."""

  def sizes(self, value: int) -> tuple[int, ...]:
    """Returns the shape of a value without its removed indices."""

  def run(self, program: Program, values: Sequence[Any]) -> list[Any]: ...


def _nothing_known(constants: Constants, eqn: Equation, ins: Sequence[Known]) -> list[Known]:
  del constants, ins
  return [known.unknown(shape) for shape in eqn.out_shapes]


def unchanged(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  """Evaluates a primitive whose parameters do not depend on the sizes of its inputs."""
  del small
  return eqn.bind(values)


class Rule(NamedTuple):
  """How a primitive is handled.

  Attributes:
    axes: returns the labels of the outputs from those of the inputs, tying and pinning some.
    known: returns the known outputs from the known inputs.
    evaluate: returns the smaller outputs from the smaller inputs.
  """

  axes: Callable[[Graph, Equation, list[Axes]], list[Axes]]
  known: Callable[[Constants, Equation, list[Known]], list[Known]] = _nothing_known
  evaluate: Callable[[Small, Equation, Sequence[Any]], list[Any]] = unchanged


def pin_all(graph: Graph, eqn: Equation, ins: Sequence[Axes]) -> list[Axes]:
  """Pins every axis of an equation's inputs and outputs, as for an unknown primitive."""
  for axes in ins:
    graph.labels.pin_axes(axes, eqn.name)
  return [graph.labels.axes(shape, eqn.name) for shape in eqn.out_shapes]


UNKNOWN = Rule(pin_all)


def evaluate_known(eqn: Equation, ins: Sequence[Known]) -> list[Known]:
  """Evaluates an equation whose inputs are all known."""
  return [known.from_array(value) for value in eqn.bind([one.full() for one in ins])]
