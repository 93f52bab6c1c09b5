"""What of a program depends on its parameters alone: computed once."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.compact.rules.rule import evaluate_known
from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.trace import known
from sparsejax.compact.trace.equations import Equation, Trace
from sparsejax.compact.trace.known import Known

LARGEST = 2**22  # elements of a constant that is larger than all that it is made of


class Split(NamedTuple):
  """A program in two.

  Attributes:
    constants: what depends on no input, by number.
    sources: of a constant the number of the parameter that it was made of, the largest if several.
    rest: the equations that depend on inputs, in order.
  """

  constants: dict[int, Known]
  sources: dict[int, int]
  rest: list[Equation]


def split(trace: Trace, params: Sequence[Any]) -> Split:
  """Computes all that depends on parameters alone.

  Args:
    trace: a program, of the parameters first.
    params: their values.
  """
  own = {**trace.constants, **dict(zip(trace.program.ins, params, strict=False))}
  found = {number: known.from_array(value) for number, value in own.items()}
  found = {number: one for number, one in found.items() if one.is_fixed}
  parameters = trace.program.ins[: len(params)]
  made = Split(found, {number: number for number in parameters}, [])
  with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion('allow'):
    for eqn in trace.program.equations:
      _equation(made, eqn)
  return made


def _equation(made: Split, eqn: Equation) -> None:
  if not eqn.outs or any(number not in made.constants for number in eqn.ins):
    made.rest.append(eqn)
    return
  ins = [made.constants[number] for number in eqn.ins]
  outs = _computed(eqn, ins)
  if outs is None:
    made.rest.append(eqn)
    return
  made.constants.update(zip(eqn.outs, outs, strict=True))
  origins = [number for number in eqn.ins if number in made.sources]
  if origins:
    largest = max(origins, key=lambda number: math.prod(made.constants[number].shape))
    made.sources.update(dict.fromkeys(eqn.outs, made.sources[largest]))


def _computed(eqn: Equation, ins: list[Known]) -> list[Known] | None:
  """What an equation makes of constants; None where that is better left to each call."""
  if eqn.inner is None and ins and eqn.name not in ('dot_general', 'conv_general_dilated'):
    outs = rule_of(eqn.name).known(_Nobody(), eqn, ins)
    if all(one.is_fixed for one in outs):
      return outs
  largest = max((math.prod(one.shape) for one in ins), default=0)
  if any(math.prod(shape) > max(LARGEST, largest) for shape in eqn.out_shapes):
    return None
  outs = evaluate_known(eqn, ins)
  return outs if all(one.is_fixed for one in outs) else None


class _Nobody:
  """Follows no program within a program."""

  def run(self, program, ins) -> list[Known]:
    del ins
    return [known.unknown(()) for _ in program.outs]


def array_of(one: Known) -> np.ndarray:
  """Returns a constant at its full shape."""
  return np.array(one.full())  # a scalar stays one
