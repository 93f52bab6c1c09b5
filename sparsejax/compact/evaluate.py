"""A program computed with smaller values."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.compact.folds import Fold
from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.ties import Ties
from sparsejax.compact.trace.equations import Equation, Program, Trace
from sparsejax.compact.trace.labels import Axes


class Smaller:
  """A program without what goes: equations as they were, of fewer indices."""

  def __init__(self, trace: Trace, ties: Ties, gone: np.ndarray, folds: dict[Equation, Fold]):
    self._trace, self._axes, self._folds = trace, ties.axes, folds
    self._stays = ~gone[ties.roots]
    self._constants = {
      number: self.cut(value, ties.axes[number]) for number, value in trace.constants.items()
    }

  def __call__(self, values: Sequence[Any]) -> list[Any]:
    """Computes the whole program."""
    return self.run(self._trace.program, values)

  def kept(self, labels: np.ndarray) -> np.ndarray:
    return np.flatnonzero(self._stays[labels])

  def axes(self, value: int) -> Axes:
    return self._axes[value]

  def sizes(self, value: int) -> tuple[int, ...]:
    return tuple(len(self.kept(labels)) for labels in self._axes[value])

  def cut(self, value: Any, axes: Axes) -> Any:
    """Returns what stays of a value; the value itself where all does."""
    for axis, labels in enumerate(axes):
      kept = self.kept(labels)
      if len(kept) != len(labels):
        value = np.take(np.asarray(value), kept, axis)
    return value

  def run(self, program: Program, values: Sequence[Any]) -> list[Any]:
    env = {**self._constants, **dict(zip(program.ins, values, strict=True))}
    for eqn in program.equations:
      made = list(rule_of(eqn.name).evaluate(self, eqn, [env[number] for number in eqn.ins]))
      if eqn in self._folds:
        made[0] = self._folds[eqn].add_to(made[0])
      for number, value in zip(eqn.outs, made, strict=True):
        if jnp.shape(value) != self.sizes(number):
          raise ValueError(
            f'{eqn.name} made {jnp.shape(value)} of smaller values, not {self.sizes(number)}: a '
            'fault of sparsejax.compact, please report it'
          )
        env[number] = value
    return [env[number] for number in program.outs]
