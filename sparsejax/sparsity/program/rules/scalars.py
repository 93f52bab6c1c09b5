"""Evaluating the scalars that a program computes: fixed indices and loop counters."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from sparsejax.sparsity.program.rules.nodes import Scalar

OPERATORS: dict[str, Callable[..., Any]] = {
  'add': operator.add,
  'sub': operator.sub,
  'mul': operator.mul,
  'neg': operator.neg,
  'max': max,
  'min': min,
  'lt': operator.lt,
  'le': operator.le,
  'gt': operator.gt,
  'ge': operator.ge,
  'eq': operator.eq,
  'ne': operator.ne,
}
UNCHANGED = ('convert_element_type', 'copy', 'stop_gradient')


def evaluate(name: str, operands: Sequence[Scalar | None]) -> Scalar | None:
  """Returns the result of a primitive on scalars, or None where it is not known.

  JAX wraps every index, `select_n(i < 0, i, i + n)`, for indices that count from the end. A counter
  is never negative, so that `counter < 0` is False and the wrapped counter is the counter itself.

  Example:
    >>> evaluate('add', [Scalar(2), Scalar(3)])
    Scalar(number=5, stop=0)
    >>> evaluate('lt', [Scalar(stop=10), Scalar(0)])
    Scalar(number=False, stop=0)
  """
  first = operands[0]
  numbers = [None if scalar is None else scalar.number for scalar in operands]
  if name in UNCHANGED:
    return first
  if name == 'select_n' and numbers[0] is not None:
    return operands[1 + int(numbers[0])]
  if name == 'lt' and first is not None and first.stop and _is_at_most_zero(numbers[1]):
    return Scalar(number=False)
  if name in OPERATORS and None not in numbers:
    return Scalar(number=OPERATORS[name](*numbers))
  return None


def _is_at_most_zero(number: Any) -> bool:
  return number is not None and bool(number <= 0)
