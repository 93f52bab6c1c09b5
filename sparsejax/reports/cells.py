"""How a figure and its deviation stand in a cell of a table."""

import math
from collections.abc import Sequence

from sparsejax.experiment.numbers import percent
from sparsejax.experiment.runs import short_value
from sparsejax.reports.groups import moments

PERCENT = ('validation_accuracy', 'test_accuracy', 'active_fraction')


def figure(name: str, values: Sequence[float]) -> str:
  """Mean and standard deviation of a figure; shares in percent with its sign; '-' of none.

  Example:
    >>> figure('validation_accuracy', [0.97, 0.98, 0.99]), figure('validation_loss', [0.12345])
    ('98.00 ± 1.00 %', '0.1235')
    >>> figure('active_fraction', [0.05]), figure('validation_loss', [])
    ('5.00 %', '-')
  """
  mean, spread = moments(values)
  if not math.isfinite(mean):
    return '-'
  if name == 'active_fraction':
    return active(mean, spread)
  if name in PERCENT:
    return f'{accuracy(values)} %'
  number = short_value(mean)
  return f'{number}{around(spread, number)}'


def accuracy(values: Sequence[float]) -> str:
  """Mean and standard deviation of accuracies, in percent without its sign; '-' of none.

  Example:
    >>> accuracy([0.97, 0.98, 0.99]), accuracy([0.5]), accuracy([])
    ('98.00 ± 1.00', '50.00', '-')
  """
  mean, spread = moments(values)
  return f'{100 * mean:.2f}{around(100 * spread, "0.00")}' if math.isfinite(mean) else '-'


def active(mean: float, spread: float) -> str:
  """A fraction and its deviation in percent; '-' of none. A dense network's has no deviation.

  Example:
    >>> active(0.05, 0.001), active(1.0, 0.0)
    ('5.00 ± 0.10 %', '100.00 %')
  """
  if not math.isfinite(mean):
    return '-'
  number, _, unit = percent(mean).partition(' ')
  return f'{number}{around(100 * spread, number)} {unit}'


def around(spread: float, number: str) -> str:
  """' ± ' and a deviation with as many digits as the number has that it is of; '' of none.

  Example:
    >>> around(0.123, '5.00'), around(0.0, '100')
    (' ± 0.12', '')
  """
  digits = len(number.partition('.')[2])
  return f' ± {spread:.{digits}f}' if math.isfinite(spread) and spread > 0 else ''
