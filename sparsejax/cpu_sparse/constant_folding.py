"""Constant folding: computes the part of a program that depends on its parameters alone."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.compact.rules.rule import evaluate_known
from sparsejax.compact.rules.table import rule_of
from sparsejax.compact.trace import known
from sparsejax.compact.trace.known import Known
from sparsejax.sparsity.program.equations import Equation, Program, Trace

MAX_GROWN_SIZE = 2**22  # elements of a constant that is larger than each of its operands


class Split(NamedTuple):
  """A program, split into its constants and the equations that remain.

  Values are identified by their numbers in the program.

  Attributes:
    constants: {number: value} of the values that depend on no input.
    sources: {number of a constant: number of the parameter that it was computed from}; the largest
      parameter if there are several.
    remaining: the equations that depend on inputs, in order.
  """

  constants: dict[int, Known]
  sources: dict[int, int]
  remaining: list[Equation]


def split_constants(trace: Trace, params: Sequence[Any]) -> Split:
  """Evaluates the equations that depend on parameters alone.

  Args:
    trace: a program, whose first inputs are the parameters.
    params: the values of the parameters.
  """
  given = {**trace.constants, **dict(zip(trace.program.ins, params, strict=False))}
  values = {number: known.from_array(value) for number, value in given.items()}
  constants = {number: value for number, value in values.items() if value.is_fixed}
  parameters = trace.program.ins[: len(params)]
  split = Split(constants, {number: number for number in parameters}, [])
  with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion('allow'):
    for eqn in trace.program.equations:
      _add_equation(split, eqn)
  return split


def _add_equation(split: Split, eqn: Equation) -> None:
  """Adds the outputs of an equation to the constants of a split, or itself to the remaining."""
  is_constant = eqn.outs and all(number in split.constants for number in eqn.ins)
  outs = _evaluate(eqn, [split.constants[number] for number in eqn.ins]) if is_constant else None
  if outs is None:
    split.remaining.append(eqn)
    return
  split.constants.update(zip(eqn.outs, outs, strict=True))
  origins = [number for number in eqn.ins if number in split.sources]
  if origins:
    largest = max(origins, key=lambda number: math.prod(split.constants[number].shape))
    split.sources.update(dict.fromkeys(eqn.outs, split.sources[largest]))


def _evaluate(eqn: Equation, ins: list[Known]) -> list[Known] | None:
  """Returns the outputs of an equation on constants.

  The result is None if they are not fixed, as for random numbers, or if they would take much more
  memory than the operands, as for a broadcast; such equations are evaluated at every call.
  """
  if eqn.inner is None and ins and eqn.name not in ('dot_general', 'conv_general_dilated'):
    outs = rule_of(eqn.name).known(_NoInnerProgram(), eqn, ins)
    if all(out.is_fixed for out in outs):
      return outs
  largest = max((math.prod(value.shape) for value in ins), default=0)
  if any(math.prod(shape) > max(MAX_GROWN_SIZE, largest) for shape in eqn.out_shapes):
    return None
  outs = evaluate_known(eqn, ins)
  return outs if all(out.is_fixed for out in outs) else None


class _NoInnerProgram:
  """Stands in for the interpreter of inner programs; every output of one is unknown."""

  def run(self, program: Program, ins: Sequence[Known]) -> list[Known]:
    """Returns unknown outputs."""
    del ins
    return [known.unknown(()) for _ in program.outs]


def array_of(value: Known) -> np.ndarray:
  """Returns a constant as an array of its full shape."""
  return np.array(value.full())  # np.array keeps a scalar's shape ()
