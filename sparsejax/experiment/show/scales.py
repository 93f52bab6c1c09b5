"""Axes of a figure: accuracy by the log of the error, fractions in percent, and log axes.

Each function sets up a Matplotlib axis for the array of finite values that are drawn on it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BY_LOG = 'by the log of the error'  # in the label of an axis of accuracy


def log_ticks(axis, low, high, text):
  """Ticks at powers of ten, and at 2 and 5 times these if there is room."""
  from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

  decades = math.log10(high / low)
  subs = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0) if decades > 0.3 else tuple(range(1, 10))
  axis.set_major_locator(LogLocator(subs=subs, numticks=12))
  axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
  axis.set_minor_locator(LogLocator(subs=tuple(range(2, 10)), numticks=12))
  axis.set_minor_formatter(NullFormatter())


def log(ax, values):
  """A log axis if the values are positive and span enough, else a linear one."""
  from matplotlib.ticker import FuncFormatter, MaxNLocator

  low, high = values.min(), values.max()
  if low <= 0 or not 2 < high / low < 1e6:
    room = 0.12 * (high - low) or 0.5 * abs(high) or 0.5
    ax.set_ylim(low - room, high + room)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    return
  ax.set_yscale('log')
  ax.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
  log_ticks(ax.yaxis, *ax.get_ylim(), lambda value: f'{value:g}')


def fraction(ax, values):
  """A log axis in percent that ends just above 1; zeros fall below its lower end."""
  ax.set_ylim(*fraction_limits(values))
  ax.set_yscale('log', nonpositive='clip')
  log_ticks(ax.yaxis, *ax.get_ylim(), lambda value: f'{100 * value:g} %')


def fraction_along_x(ax, values):
  """The same axis as `fraction`, along x."""
  ax.set_xlim(*fraction_limits(values))
  ax.set_xscale('log', nonpositive='clip')
  log_ticks(ax.xaxis, *ax.get_xlim(), lambda value: f'{100 * value:g} %')


def positive_along_x(ax, values, text):
  """A log axis along x for numbers above 0, with labels by a function of a number."""
  low, high = values.min(), values.max()
  room = max(high / low, 2) ** 0.06
  ax.set_xscale('log')
  ax.set_xlim(low / room, high * room)
  log_ticks(ax.xaxis, *ax.get_xlim(), text)


def fraction_limits(values):
  """Returns the ends of an axis of fractions, with room beside them."""
  positive = values[values > 0]
  low = min(positive.min(initial=1.0), 0.6)
  return low * low**0.12, positive.max(initial=1.0) / low**0.08


class Spacing(NamedTuple):
  """The positions of accuracies on an axis.

  Attributes:
    forward: maps accuracies, 0 to 1, to positions.
    backward: the inverse of `forward`.
    low: the least accuracy that the axis shows.
    high: the greatest accuracy that the axis shows.
    ticks: the accuracies with a label.
  """

  forward: Callable
  backward: Callable
  low: float
  high: float
  ticks: list[float]


def spacing(values: np.ndarray) -> Spacing:
  """Returns a spacing by the log of the error: 0, 50, 80, 90, 95, 98, 99 % are about even.

  Half the smallest error worth distinguishing is added to every error, so that 100 % has a place.
  """
  values = np.clip(values, 0, 1)
  errors = 1 - values
  floor = max(errors[errors > 0].min(initial=errors.max()) / 1.25, 2e-4)
  offset = floor / 2

  def forward(accuracies):
    return -np.log10(np.maximum(1 - np.asarray(accuracies, float), -offset / 2) + offset)

  def backward(y):
    return 1 + offset - 10.0 ** -np.asarray(y, float)

  low = max(0.0, 1 - 1.15 * (errors.max() or 1e-3))
  high = 1 + offset / 4 if errors.min(initial=1.0) < floor else 1 - floor
  ticks = _embracing(_round_ticks(low, high), values.min(), values.max())
  return Spacing(forward, backward, min(low, ticks[0]), max(high, ticks[-1]), ticks)


TICKS = (0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1)


def _round_ticks(low, high):
  """Accuracies with few digits in percent, beyond both ends too; even steps in a narrow range."""
  from matplotlib.ticker import MaxNLocator

  inside = sum(low <= tick <= high for tick in TICKS)
  if inside >= 3:
    return [tick for tick in TICKS if inside <= 6 or tick not in (0.1, 0.3, 0.7)]
  locator = MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=3)
  percents = np.asarray(locator.tick_values(100 * low, 100 * min(high, 1.0)))
  return [float(tick) for tick in np.round(percents / 100, 8) if 0 <= tick <= 1]


def _embracing(ticks, low, high):
  """The ticks between two values, and the next ones beyond; at least three.

  Example:
    >>> _embracing([0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0], 0.85, 0.985)
    [0.8, 0.9, 0.95, 0.98, 0.99]
  """
  first = max(sum(tick <= low for tick in ticks) - 1, 0)
  last = len(ticks) - max(sum(tick >= high for tick in ticks), 1)
  if last - first < 2:
    first, last = max(first - 1, 0), last + 1
  first = max(min(first, len(ticks) - 3), 0)
  return ticks[first : max(last, first + 2) + 1]


def accuracy(ax, values):
  """Accuracy in percent, spaced by the log of the error."""
  spaced_accuracy(ax, spacing(values))


def spaced_accuracy(ax, spaced):
  """The same axis as `accuracy`, with a given spacing."""
  from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

  ax.set_yscale('function', functions=(spaced.forward, spaced.backward))
  ax.set_ylim(spaced.low, spaced.high)
  ax.yaxis.set_major_locator(FixedLocator(spaced.ticks))
  ax.yaxis.set_minor_locator(NullLocator())
  ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{100 * value:.6g} %'))
