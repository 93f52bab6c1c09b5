"""Bands that replace curves too many to follow: where most of them lie, and their median."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LOW, HIGH = 10, 90  # percent
MANY = 8  # at most this many curves are drawn one by one
POINTS = 200  # points along a band
SAID = f'median, and from {LOW} to {HIGH} %'

Curve = tuple[np.ndarray, np.ndarray]


def quantiles(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
  """Returns places (points,) and the low, middle and high quantile of curves there, (3, points).

  A curve counts between its first and its last point. There is no quantile where fewer than a tenth
  of the curves count.

  Args:
    curves: the places, in rising order, and the values of each curve.
  """
  curves = [(x, y) for x, y in curves if len(x)]
  if not curves:
    return np.zeros(0), np.zeros((3, 0))
  every = np.unique(np.concatenate([x for x, _ in curves]))
  places = every if len(every) <= POINTS else np.linspace(every[0], every[-1], POINTS)
  values = np.array([np.interp(places, x, y, left=np.nan, right=np.nan) for x, y in curves])
  counted = np.isfinite(values).sum(axis=0)
  whole = counted >= max(1, len(curves) * LOW / 100)
  return places[whole], np.nanpercentile(values[:, whole], (LOW, 50, HIGH), axis=0)


def draw(ax, curves: Sequence[Curve], look: Mapping[str, Any], *, middle: bool = True) -> None:
  """Draws a few curves one by one, the first the strongest; draws a band instead of many.

  Args:
    ax: the axes to draw on.
    curves: the places and values of each curve.
    look: the look of a line.
    middle: whether to draw the median too.
  """
  if len(curves) <= MANY and middle:
    for index, (x, y) in enumerate(curves):
      strength = {'lw': 1.4} if index == 0 else {'lw': 0.7, 'alpha': 0.6}
      # A posterior that is deployed again was validated only once: that is a point, not a line.
      ax.plot(x, y, marker='o' if len(x) == 1 else None, **{**look, **strength})
    return
  places, (low, median, high) = quantiles(curves)
  ax.fill_between(places, low, high, color=look['color'], alpha=0.18, lw=0)
  if middle:
    ax.plot(places, median, **{**look, 'lw': 1.4})
