"""The marks in the trace of a run: its cuts, the accuracy after them, the chosen evaluation."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sparsejax.experiment.show import phases
from sparsejax.experiment.show.trace_panels import BLACK, GREY, column
from sparsejax.experiment.terminal.numbers import percent

MOST_LINES = 12  # more cuts than these are drawn as a span with ticks


def mark_pruning(axes, places):
  """Draws a dashed line at every cut, or for many cuts a shaded span with a tick for each."""
  for ax in axes:
    if len(places) <= MOST_LINES:
      for place in places:
        ax.axvline(place, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1.5)
    else:
      ax.axvspan(min(places), max(places), color=GREY, alpha=0.10, linewidth=0, zorder=0.5)
      foot = {'transform': ax.get_xaxis_transform(), 'clip_on': True}
      ax.vlines(places, 0, 0.04, color=GREY, linewidth=0.8, **foot)


class Point(NamedTuple):
  """A mark: its x, the metrics there, its style, and its text in the key."""

  x: float
  values: Mapping[str, float]
  style: Mapping[str, Any]
  text: str


def mark_points(ax, panel, points):
  """Marks the points where the panel draws one of their metrics; returns the values."""
  keys = {line.key for line in panel.lines}
  marked = []
  for x, values, style, _ in points:
    for y in (y for key, y in values.items() if key in keys and math.isfinite(x + y)):
      ax.plot([x], [y], linestyle='none', markeredgecolor=BLACK, zorder=5, clip_on=False, **style)
      marked.append(y)
  return marked


STAR = {'marker': '*', 'markersize': 14, 'markerfacecolor': '#F0E442'}
DIAMOND = {'marker': 'D', 'markersize': 6.5, 'markerfacecolor': 'white'}
VALIDATION = ('validation_loss', 'validation_accuracy')


def _metric_at_step(metrics, step, key):
  """Returns the last finite value of a metric logged at exactly this step, or NaN."""
  values = column(metrics, key)[column(metrics, 'step') == step]
  values = values[np.isfinite(values)]
  return float(values[-1]) if len(values) else math.nan


def find_points(metrics, to_x, summary):
  """Yields the points to mark, each with the metrics of validation there.

  A diamond marks the network just after the cut, which only the summary knows; a star marks the
  evaluation that was chosen. A point without a step, or without a finite value, is left out.

  Args:
    metrics: the lines of metrics.jsonl.
    to_x: returns the place of a step on the x axis, NaN if it has none.
    summary: the run's summary.
  """
  after_cut = (summary.get('phases') or {}).get(phases.AFTER) or {}
  cut_text = 'just after the cut'
  if _has_no_cut(summary):
    cut_text = f'at the {phases.NAMES_WITHOUT_CUT[phases.AFTER]}'
  cut_values = {key: after_cut.get(key) for key in VALIDATION}
  yield from _point(after_cut.get('step'), to_x, cut_values, DIAMOND, cut_text)
  best_step = summary.get('best_step')
  best_values = {key: _metric_at_step(metrics, best_step, key) for key in VALIDATION}
  yield from _point(best_step, to_x, best_values, STAR, 'chosen evaluation')


def _point(step, to_x, values, style, text):
  """Yields the point of a step, if it has a place on the x axis and a finite value."""
  values = {key: float(y) for key, y in values.items() if y is not None and math.isfinite(y)}
  x = math.nan if step is None else to_x(step)
  if values and math.isfinite(x):
    yield Point(x, values, style, text)


def _has_no_cut(summary) -> bool:
  """Returns whether the summary shows that the masks cut nothing."""
  return bool(summary.get('phases') and phases.no_cut_reason(summary))


def _pruning_key(cuts, per_epoch, summary):
  """The key's entry for the dashed lines or the span: (handle, text)."""
  from matplotlib.lines import Line2D

  style: dict[str, Any] = (
    {'linestyle': (0, (4, 3))} if len(cuts) <= MOST_LINES else {'linewidth': 9, 'alpha': 0.2}
  )
  name, each = ('masks', 'renewals') if _has_no_cut(summary) else ('pruning', 'cuts')
  text = name if len(cuts) == 1 else f'{name}, {len(cuts)} {each}'
  if per_epoch:
    first, last = (f'{end(cuts) / per_epoch:.4g}' for end in (min, max))
    text += f' at epoch {first}' if first == last else f', epochs {first} to {last}'
  return Line2D([], [], color=GREY, **style), text


def _point_key(point, per_epoch):
  """The key's entry for a marker: (handle, text)."""
  from matplotlib.lines import Line2D

  x, values, style, text = point
  if math.isfinite(accuracy := values.get('validation_accuracy', math.nan)):
    text += f', {percent(accuracy)}'
  if per_epoch and style is STAR:
    text += f' at epoch {x / per_epoch:.4g}'
  return Line2D([], [], linestyle='none', markeredgecolor=BLACK, **style), text


def key_entries(cuts, points, per_epoch, summary):
  """The key's entries (handle, text) for the dashed lines, the diamond and the star, if drawn."""
  entries = [_pruning_key(cuts, per_epoch, summary)] if cuts else []
  return entries + [_point_key(point, per_epoch) for point in points]
