"""The three things that a rule knows of a primitive, and what it works with."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from sparsejax.compact.trace import known
from sparsejax.compact.trace.equations import Equation, Program
from sparsejax.compact.trace.known import Known
from sparsejax.compact.trace.labels import Axes, Labels


class Graph(Protocol):
  """What ties labels, as it follows a program."""

  labels: Labels

  def sums(self, eqn: Equation, axes: Sequence[Sequence[int]], ins: Sequence[Axes]) -> None:
    """Notes that an equation sums over axes of each operand, those of several pair by pair."""

  def run(self, program: Program, ins: Sequence[Axes], *, strict: bool = False) -> list[Axes]:
    """Follows another program; strict where its sums have to keep what they read."""


class Constants(Protocol):
  """What finds constants, as it follows a program."""

  def run(self, program: Program, ins: Sequence[Known]) -> list[Known]: ...


class Small(Protocol):
  """What computes with smaller values, as it follows a program."""

  def kept(self, labels: np.ndarray) -> np.ndarray:
    """Returns which positions along an axis stay."""

  def axes(self, value: int) -> Axes:
    """Returns the labels of a value."""

  def sizes(self, value: int) -> tuple[int, ...]:
    """Returns the shape of a value that has become smaller."""

  def run(self, program: Program, values: Sequence[Any]) -> list[Any]: ...


def _nothing_known(constants: Constants, eqn: Equation, ins: Sequence[Known]) -> list[Known]:
  del constants, ins
  return [known.unknown(shape) for shape in eqn.made]


def as_it_is(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  """Computes what needs no change for smaller values."""
  del small
  return eqn.bind(values)


class Rule(NamedTuple):
  """What is known of a primitive.

  Attributes:
    axes: labels of what goes in -> labels of what comes out, tying and pinning some.
    known: what is known of what goes in -> of what comes out.
    evaluate: smaller values -> smaller values.
  """

  axes: Callable[[Graph, Equation, list[Axes]], list[Axes]]
  known: Callable[[Constants, Equation, list[Known]], list[Known]] = _nothing_known
  evaluate: Callable[[Small, Equation, Sequence[Any]], list[Any]] = as_it_is


def pin_all(graph: Graph, eqn: Equation, ins: Sequence[Axes]) -> list[Axes]:
  """Keeps whatever a primitive touches that nobody knows."""
  for axes in ins:
    graph.labels.pin_axes(axes, eqn.name)
  return [graph.labels.axes(shape, eqn.name) for shape in eqn.made]


UNKNOWN = Rule(pin_all)


def exactly(eqn: Equation, ins: Sequence[Known]) -> list[Known]:
  """Computes what no input can change."""
  made = eqn.bind([known.full() for known in ins])
  return [known.of(value) for value in made]
