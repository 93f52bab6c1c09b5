"""The evaluation of a program on smaller values."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.compact.folds import Fold
from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.ties import Ties
from sparsejax.compact.trace.labels import Axes
from sparsejax.sparsity.program.equations import Equation, Program, Trace


class Smaller:
  """A program without its removed indices: the same equations, on smaller values."""

  def __init__(self, trace: Trace, ties: Ties, removed: np.ndarray, folds: dict[Equation, Fold]):
    self._trace, self._axes, self._folds = trace, ties.axes, folds
    self._is_kept = ~removed[ties.roots]
    self._constants = {
      number: self.cut(value, ties.axes[number]) for number, value in trace.constants.items()
    }

  def __call__(self, values: Sequence[Any]) -> list[Any]:
    """Evaluates the whole program."""
    return self.run(self._trace.program, [jnp.asarray(value) for value in values])

  def kept(self, labels: np.ndarray) -> np.ndarray:
    return np.flatnonzero(self._is_kept[labels])

  def axes(self, value: int) -> Axes:
    return self._axes[value]

  def sizes(self, value: int) -> tuple[int, ...]:
    return tuple(len(self.kept(labels)) for labels in self._axes[value])

  def cut(self, value: Any, axes: Axes) -> Any:
    """Returns the kept entries of a value; the value itself if all are kept."""
    for axis, labels in enumerate(axes):
      kept = self.kept(labels)
      if len(kept) != len(labels):
        value = np.take(np.asarray(value), kept, axis)
    return value

  def run(self, program: Program, values: Sequence[Any]) -> list[Any]:
    env = {**self._constants, **dict(zip(program.ins, values, strict=True))}
    for eqn in program.equations:
      outs = list(rule_of(eqn.name).evaluate(self, eqn, [env[number] for number in eqn.ins]))
      if eqn in self._folds:
        outs[0] = self._folds[eqn].add_to(outs[0])
      for number, value in zip(eqn.outs, outs, strict=True):
        if jnp.shape(value) != self.sizes(number):
          raise ValueError(
            f'{eqn.name}: the smaller output has shape {jnp.shape(value)}, which must be '
            f'{self.sizes(number)}: please report this fault of sparsejax.compact'
          )
        env[number] = value
    return [env[number] for number in program.outs]
