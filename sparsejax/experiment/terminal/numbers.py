"""Numbers as a researcher writes them."""

import math
from typing import Any

MISSING = '-'


def number(value: Any) -> float | None:
  """Returns the value as a float, or None if it is missing or not a number."""
  try:
    return float(value)
  except (TypeError, ValueError):
    return None


def percent(value: Any) -> str:
  """Writes a fraction in percent; small ones keep two digits.

  Example:
    >>> [percent(value) for value in (0.9873, 1.0, 0.00051, 0, math.nan, None)]
    ['98.73 %', '100.00 %', '0.051 %', '0.00 %', '-', '-']
  """
  value = number(value)
  if value is None or not math.isfinite(value):
    return MISSING
  return f'{100 * value:#.2g} %' if 0 < abs(value) < 1e-3 else f'{100 * value:.2f} %'


def times(value: Any) -> str:
  """Writes a ratio.

  Example:
    >>> [times(value) for value in (12.5, 1, 280.4, None, float('inf'))]
    ['12.5x', '1.0x', '280x', '-', 'infinite']
  """
  value = number(value)
  if value is None:
    return MISSING
  if math.isinf(value):
    return 'infinite'
  return f'{value:,.1f}x' if value < 100 else f'{value:,.0f}x'


def count(value: Any) -> str:
  """Writes a count.

  Example:
    >>> [count(value) for value in (266200, 0, None)]
    ['266,200', '0', '-']
  """
  value = number(value)
  return MISSING if value is None else f'{value:,.0f}'


def duration(seconds: Any) -> str:
  """Writes seconds as hours, minutes and seconds.

  Example:
    >>> [duration(seconds) for seconds in (730, 93784.6, math.nan, None)]
    ['0:12:10', '26:03:05', '-', '-']
  """
  seconds = number(seconds)
  if seconds is None or not math.isfinite(seconds):
    return MISSING
  minutes, seconds = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d}'
