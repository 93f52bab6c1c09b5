"""Single numbers that a program computes of others: indices, fixed or counting the turns."""

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


def made_by(name: str, of: Sequence[Scalar | None]) -> Scalar | None:
  """Returns what a primitive makes of scalars; None where that is not known.

  An index below zero counts from the end, for which JAX asks everywhere: a counter never is.

  Example:
    >>> made_by('add', [Scalar(2), Scalar(3)])
    Scalar(number=5, turns=0)
  """
  numbers = [None if scalar is None else scalar.number for scalar in of]
  if name in UNCHANGED:
    return of[0]
  if name == 'select_n' and numbers[0] is not None:
    return of[1 + int(numbers[0])]
  if name == 'lt' and of[0] is not None and of[0].turns and _is_at_most_zero(numbers[1]):
    return Scalar(number=False)
  if name in OPERATORS and None not in numbers:
    return Scalar(number=OPERATORS[name](*numbers))
  return None


def _is_at_most_zero(number: Any) -> bool:
  return number is not None and bool(number <= 0)
