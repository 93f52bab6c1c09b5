"""The values of a program that are known before any input is, found equation by equation."""

from collections.abc import Sequence

import jax
import numpy as np

from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.trace import known
from sparsejax.compact.trace.known import Known
from sparsejax.sparsity.program.equations import Program, Trace


class Constants:
  """The known values of a whole program, computed once.

  Attributes:
    values: {number of a value: what is known of it}.
  """

  def __init__(self, trace: Trace, ins: Sequence[Known]):
    self.values = {number: known.from_array(value) for number, value in trace.constants.items()}
    with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion('allow'):
      self.run(trace.program, ins)

  def run(self, program: Program, ins: Sequence[Known]) -> list[Known]:
    """Returns the known outputs of a program from its known inputs."""
    self.values |= dict(zip(program.ins, ins, strict=True))
    for eqn in program.equations:
      given = [self.values[number] for number in eqn.ins]
      outs = rule_of(eqn.name).known(self, eqn, given)
      self.values |= dict(zip(eqn.outs, outs, strict=True))
    return [self.values[number] for number in program.outs]


def parameter(value: np.ndarray, kept: Sequence[np.ndarray]) -> Known:
  """Returns what is known of a parameter: its removed entries, since kept ones may be trained.

  Args:
    value: the parameter.
    kept: for each axis, a boolean array of whether each index is kept.
  """
  varies = np.ones((1,) * np.ndim(value), bool)
  for axis, is_kept in enumerate(kept):
    if not is_kept.all():
      varies = varies & is_kept.reshape([-1 if i == axis else 1 for i in range(np.ndim(value))])
  return known.from_array(value, varies)
