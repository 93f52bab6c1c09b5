"""trace.png: one picture of a run with its loss, accuracy, learning rate and active fraction.

Each is a panel of `trace_panels.PANELS`; the last is also called the sparsity trace.
All panels share the axis of examples seen. Two scales are special. Accuracy is spaced by the log of
the error, so that 98.4 and 98.7 % can be told apart without hiding the fall to 10 % at a cut. The
active fraction is on a log axis and drawn three times, as the share not exactly zero, above 1e-3
and above the pruning threshold, because weights that die under weight decay are never exactly zero.
"""

import itertools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsejax.experiment.show import windows
from sparsejax.experiment.show.trace_marks import (
  Point,
  find_points,
  key_entries,
  mark_points,
  mark_pruning,
)
from sparsejax.experiment.show.trace_panels import (
  GREY,
  PALE,
  Line,
  Panel,
  column,
  run_panels,
  series,
)
from sparsejax.internal.atomic import replacing

if TYPE_CHECKING:
  from matplotlib.axes import Axes

WIDTH, DPI = 12.0, 100  # inches, and dots per inch
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.95, 2.05, 1.15, 0.6, 0.22  # margins and gap in inches
BINS = 400  # a noisy line of more than twice as many points is drawn as a mean and a range
RANGE_ALPHA = 0.18  # the opacity of that range
MOST_MARKERS = 40  # a line of no more points has a marker at each
MARKER_SIZE = 3.2  # points


def _binned(x, y):
  """Returns the mean x, and the mean, least and greatest y, of about BINS runs of points."""
  parts = np.array_split(np.arange(len(x)), BINS)
  stack = [(x[part].mean(), y[part].mean(), y[part].min(), y[part].max()) for part in parts]
  return np.array(stack).T


def _draw_line(ax: 'Axes', line: Line, x: np.ndarray, y: np.ndarray) -> float:
  """Draws a line through finite points, or a long noisy one as the mean and the range of bins.

  Args:
    ax: the panel's axes.
    line: the metric and its look.
    x: the x of each point, finite and rising.
    y: the y of each point, finite.

  Returns:
    The y of the last point drawn, which for a binned line is the mean of the last bin.
  """
  if line.noisy and len(x) > 2 * BINS:
    x, y, low, high = _binned(x, y)
    ax.fill_between(x, low, high, color=line.color, alpha=RANGE_ALPHA, linewidth=0)
  marker = 'o' if len(x) <= MOST_MARKERS else None
  style: dict[str, Any] = {'linestyle': line.style, 'linewidth': line.width, 'color': line.color}
  style['drawstyle'] = line.drawstyle
  ax.plot(x, y, marker=marker, markersize=MARKER_SIZE, solid_capstyle='round', **style)
  return float(y[-1])


def _label_ends(ax, labels):
  """Writes each (text, y, colour) to the right of the axis at its y, but never over another.

  A text that would leave the picture is written smaller, since layers have names of any length.
  """
  gap = 16 / (ax.get_window_extent().height or 1)
  to_axes = ax.transData + ax.transAxes.inverted()
  heights = [np.clip(to_axes.transform((0, y))[1], 0.02, 0.98) for _, y, _ in labels]
  order = sorted(range(len(labels)), key=lambda n: (round(heights[n], 3), -n))
  for below, n in itertools.pairwise(order):
    heights[n] = max(heights[n], heights[below] + gap)
  ceiling = 1.0
  for n in reversed(order):
    heights[n] = min(heights[n], ceiling)
    ceiling = heights[n] - gap
  place = {'transform': ax.transAxes, 'va': 'center', 'fontsize': 10}
  for height, (text, _, color) in zip(heights, labels, strict=True):
    written = ax.text(1.012, height, text, color=color, **place)
    box = written.get_window_extent()
    room = (ax.figure.bbox.x1 - 0.05 * DPI - box.x0) / box.width
    written.set_fontsize(min(1.0, room) * place['fontsize'])


def _dress(ax, panel):
  """Gives a panel its quiet frame: a grid, no box, its name at the left."""
  ax.grid(True, color=PALE, linewidth=0.8)
  ax.set_axisbelow(True)
  for side in ('top', 'right'):
    ax.spines[side].set_visible(False)
  ax.tick_params(labelsize=9.5, color=GREY)
  ax.set_ylabel(panel.name, fontsize=11)
  further_lines = panel.name.count('\n')  # they stand between the first line and the numbers
  ax.yaxis.set_label_coords((0.16 * further_lines - 0.72) / (WIDTH - LEFT - RIGHT), 0.5)


def _draw_panel(
  ax: 'Axes', panel: Panel, x: np.ndarray, metrics: Sequence[Mapping], points: Sequence[Point]
) -> None:
  """Draws a panel: the lines with a finite value, the marks, and labels at the lines' ends."""
  labels = []
  values = mark_points(ax, panel, points)
  for line in panel.lines:
    places = x
    y = series(metrics, line)
    if line.noisy:
      placed = np.isfinite(x)
      places, y = windows.equal(x[placed], y[placed])
    drawn = np.isfinite(places) & np.isfinite(y)
    if drawn.any():
      end = _draw_line(ax, line, places[drawn], y[drawn])
      values.extend(y[drawn])
      labels.append((f'{line.label} {panel.text(end)}'.strip(), end, line.color))
  panel.scale(ax, np.array(values))
  _dress(ax, panel)
  _label_ends(ax, labels)


def _examples(metrics):
  """Returns x for every line, the label of x, and a function from steps to x.

  x is the number of examples seen, or the step if no line has the examples.
  """
  step, examples = column(metrics, 'step'), column(metrics, 'examples')
  both = np.isfinite(step) & np.isfinite(examples) & (step > 0)
  if not both.any():
    if np.isfinite(examples).any():
      return examples, 'examples seen', lambda at_step: math.nan
    return step, 'step', float
  batch = examples[both][-1] / step[both][-1]
  x = np.where(np.isfinite(examples), examples, step * batch)
  steps, seen = np.append(0, step[both]), np.append(0, examples[both])

  def step_to_x(at_step):
    if at_step > step[both][-1]:
      return at_step * batch
    return float(np.interp(at_step, steps, seen))

  return x, 'examples seen', step_to_x


def _epoch_length(metrics, x):
  """Returns the length of an epoch on the x axis, or None if no line has both values."""
  epoch = column(metrics, 'epoch')
  known = np.isfinite(epoch) & np.isfinite(x) & (epoch > 0) & (x > 0)
  return x[known][-1] / epoch[known][-1] if known.any() else None


def _epoch_axis(ax, per_epoch):
  """Adds an axis of epochs on top of a panel."""
  from matplotlib.ticker import FuncFormatter, MaxNLocator

  functions = (lambda x: x / per_epoch, lambda epoch: epoch * per_epoch)
  top = ax.secondary_xaxis('top', functions=functions)
  top.set_zorder(3)  # else the grid would cut its line
  whole = ax.get_xlim()[1] >= 3 * per_epoch
  top.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=whole))
  top.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f'{epoch:g}'))
  top.set_xlabel('epoch', fontsize=11, labelpad=5)
  top.tick_params(labelsize=9.5, color=GREY)
  top.spines['top'].set_color(GREY)


def _key(figure, entries):
  """Adds the key under the title."""
  if entries:
    place = (LEFT / WIDTH - 0.008, 1 - 0.36 / figure.get_figheight())
    box = {'loc': 'upper left', 'bbox_to_anchor': place, 'borderaxespad': 0, 'frameon': False}
    handles, texts = zip(*entries, strict=True)
    figure.legend(handles, texts, ncols=3, fontsize=10, handlelength=2, columnspacing=2.5, **box)


def _figure(panels):
  """A figure without pyplot's global state, and an axis for each panel with a shared x."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  heights = [panel.height for panel in panels]
  height = TOP + sum(heights) + GAP * (len(heights) - 1) + BOTTOM
  figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor='white')
  FigureCanvasAgg(figure)
  axes = []
  top = height - TOP
  for panel in panels:
    box = (LEFT, top - panel.height, WIDTH - LEFT - RIGHT, panel.height)
    scaled = (box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height)
    axes.append(figure.add_axes(scaled, sharex=axes[0] if axes else None))
    top -= panel.height + GAP
  return figure, axes


def _x_limits(ax, x):
  """Limits x to the run, from its start to its last line, with room for the markers at the end."""
  last = x[np.isfinite(x)].max()
  low = min(0.0, x[np.isfinite(x)].min())
  span = (last - low) or 1.0
  ax.set_xlim(low - 0.008 * span, low + 1.012 * span)


def plot_trace(
  metrics: Sequence[Mapping],
  path: str | os.PathLike,
  *,
  title: str,
  prune_steps: Sequence[int] = (),
  summary: Mapping[str, Any] | None = None,
) -> bool:
  """Draws a run's trace to a PNG, 1200 dots wide; panels without a value are left out.

  Args:
    metrics: the lines of metrics.jsonl, each with `step`, `examples`, `epoch` and any of the
      metrics in `trace_panels.PANELS`. Missing, None and NaN values are skipped.
    path: the file of the picture, which is replaced atomically.
    title: the text above the picture.
    prune_steps: the steps of the mask updates.
    summary: the content of summary.json; a star marks the evaluation that it describes, a diamond
      the accuracy just after the cut.

  Returns:
    Whether there was anything to draw; without it no file is written.

  Example:
    >>> plot_trace([], 'trace.png', title='nothing yet')
    False
  """
  x, label, to_x = _examples(metrics)
  drawable = np.isfinite(x)
  panels = [
    panel
    for panel in run_panels(metrics)
    if any(np.isfinite(series(metrics, line)[drawable]).any() for line in panel.lines)
  ]
  if not panels:
    return False
  from matplotlib.ticker import EngFormatter

  figure, axes = _figure(panels)
  cuts = [place for place in map(to_x, prune_steps) if math.isfinite(place)]
  points = list(find_points(metrics, to_x, summary or {}))
  for ax, panel in zip(axes, panels, strict=True):
    _draw_panel(ax, panel, x, metrics, points)
    ax.tick_params(labelbottom=ax is axes[-1])
  _x_limits(axes[0], x)
  mark_pruning(axes, cuts)
  axes[-1].set_xlabel(label, fontsize=11)
  axes[-1].xaxis.set_major_formatter(EngFormatter(sep=' '))
  if per_epoch := _epoch_length(metrics, x):
    _epoch_axis(axes[0], per_epoch)
  head = {'ha': 'left', 'va': 'top', 'fontsize': 14, 'fontweight': 'bold', 'parse_math': False}
  figure.text(LEFT / WIDTH, 1 - 0.1 / figure.get_figheight(), title, **head)
  _key(figure, key_entries(cuts, points, per_epoch, summary or {}))
  with replacing(pathlib.Path(path)) as temporary:
    figure.savefig(temporary, format='png', dpi=DPI)
  return True
