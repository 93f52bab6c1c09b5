"""Figures and their deviations as cells of a table."""

import math
import re
from collections.abc import Sequence
from typing import Any

from sparsejax.experiment.config.identity import short_value
from sparsejax.experiment.terminal.numbers import percent
from sparsejax.reports.records.run_groups import moments

PERCENT = ('validation_accuracy', 'test_accuracy', 'active_fraction')
FORMULAS = ('=', '+', '-', '@', '\t', '\r', '\n')
NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
LARGE = 999.5  # from here on numbers are rounded to whole ones
MOST_DIGITS = 6  # digits of a mean, however small its deviation is


def figure(name: str, values: Sequence[float]) -> str:
  """Returns the mean and standard deviation of a figure, or '-' if there is none.

  Shares have a percent sign.

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
    return f'{format_percent(values)} %'
  return format_moments(mean, spread, short_value(mean))


def format_percent(shares: Sequence[float]) -> str:
  """Returns the mean and deviation of shares in percent, without the sign; '-' if there are none.

  Example:
    >>> format_percent([0.97, 0.98, 0.99]), format_percent([0.5]), format_percent([])
    ('98.00 ± 1.00', '50.00', '-')
  """
  mean, spread = (100 * moment for moment in moments(shares))
  return format_moments(mean, spread, f'{mean:.2f}', least=2) if math.isfinite(mean) else '-'


def active(mean: float, spread: float) -> str:
  """Returns a fraction and its deviation in percent, or '-' for NaN.

  A dense network's fraction has no deviation.

  Example:
    >>> active(0.05, 0.001), active(0.00965, 0.00003), active(1.0, 0.0)
    ('5.00 ± 0.10 %', '0.9650 ± 0.0030 %', '100.00 %')
  """
  if not math.isfinite(mean):
    return '-'
  number, _, unit = percent(mean).partition(' ')
  return f'{format_moments(100 * mean, 100 * spread, number, least=2)} {unit}'


def measured(mean: float, spread: float, unit: str = '') -> str:
  """Returns the mean and deviation of a ratio, or of bytes or times; '-' for NaN.

  Example:
    >>> measured(12.345, math.nan, 'x'), measured(2500.0, 707.1), measured(999.7, math.nan)
    ('12.3x', '2,500 ± 707', '1,000')
    >>> measured(math.inf, math.nan, 'x'), measured(math.nan, math.nan)
    ('infinite', '-')
  """
  if not math.isfinite(mean):
    return '-' if math.isnan(mean) else 'infinite'
  number = f'{mean:.3g}' if abs(mean) < LARGE else f'{mean:,.0f}'
  return f'{format_moments(mean, spread, number)}{unit}'


def format_moments(mean: float, spread: float, alone: str, least: int = 0) -> str:
  """Returns a mean and its deviation, both to the second digit of the deviation.

  Args:
    mean: the mean of a figure.
    spread: its deviation; without one, or if it is lost in that many digits, the mean stands alone.
    alone: the text of a mean that stands alone.
    least: the least number of decimals.

  Example:
    >>> format_moments(20.0625, 0.4841, '20.1'), format_moments(56.2, 14.0, '56.2')
    ('20.06 ± 0.48', '56 ± 14')
    >>> format_moments(98.0, 1.0, '98.00', least=2), format_moments(98.0, 0.0, '98.00', least=2)
    ('98.00 ± 1.00', '98.00')
  """
  if not (math.isfinite(spread) and spread > 0):
    return alone
  if 'e' in alone:
    return f'{alone} ± {spread:.2g}'
  most = _decimals(max(abs(mean), spread), MOST_DIGITS)
  decimals = max(least, min(_decimals(spread, 2), most))
  deviation = f'{spread:,.{decimals}f}'
  return f'{mean:,.{decimals}f} ± {deviation}' if deviation.strip('0.') else alone


def defused(value: Any) -> Any:
  """Returns a cell that no spreadsheet takes for a formula; strings that look like one are quoted.

  Example:
    >>> defused('=1+1'), defused(-0.5), defused('-0.5'), defused('-x'), defused('lenet5')
    ("'=1+1", -0.5, '-0.5', "'-x", 'lenet5')
  """
  if not isinstance(value, str) or not value.startswith(FORMULAS) or NUMBER.fullmatch(value):
    return value
  return f"'{value}"


def _decimals(number: float, digits: int) -> int:
  """The number of decimals that show a number to this many digits."""
  return max(0, digits - 1 - math.floor(math.log10(number)))
