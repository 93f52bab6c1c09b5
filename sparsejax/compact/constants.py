"""What of a program's values cannot depend on the data, followed from end to end."""

from collections.abc import Sequence

import jax
import numpy as np

from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.trace import known
from sparsejax.compact.trace.equations import Program, Trace
from sparsejax.compact.trace.known import Known


class Constants:
  """Follows a whole program once.

  Attributes:
    values: what is known of each value, by its number.
  """

  def __init__(self, trace: Trace, ins: Sequence[Known]):
    self.values = {number: known.of(value) for number, value in trace.constants.items()}
    with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion('allow'):
      self.run(trace.program, ins)

  def run(self, program: Program, ins: Sequence[Known]) -> list[Known]:
    self.values |= dict(zip(program.ins, ins, strict=True))
    for eqn in program.equations:
      given = [self.values[number] for number in eqn.ins]
      outs = rule_of(eqn.name).known(self, eqn, given)
      self.values |= dict(zip(eqn.outs, outs, strict=True))
    return [self.values[number] for number in program.outs]


def parameter(value: np.ndarray, kept: Sequence[np.ndarray]) -> Known:
  """Returns what is known of a parameter, whose entries may change that are kept.

  Args:
    value: the parameter.
    kept: for each axis, which of its indices are.
  """
  varies = np.ones((1,) * np.ndim(value), bool)
  for axis, stays in enumerate(kept):
    if not stays.all():
      varies = varies & stays.reshape([-1 if i == axis else 1 for i in range(np.ndim(value))])
  return known.of(value, varies)
