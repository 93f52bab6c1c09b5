"""Test accuracy over active parameters, bytes or milliseconds, ours beside published results."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparsejax.experiment.show import scales
from sparsejax.reports.figures import published
from sparsejax.reports.figures.dress import COLOURS, GREY, entitle, grid, legend, styles
from sparsejax.reports.records.collect import COLLAPSED
from sparsejax.reports.records.run_groups import DENSE, Group

MANY = 40  # at most this many experiments of a method each have a mark and bars
EACH = 20  # experiments in each part of a band
OTHERS: dict[str, Any] = {'color': GREY, 'marker': '.', 'ms': 2, 'alpha': 0.5, 'ls': 'none'}


class Axis(NamedTuple):
  """What test accuracy is traded for.

  Attributes:
    figure: the name of the figure, as in `Run.figure`.
    label: the label of the axis.
    set_up: a function of `scales` that sets the axis up for the values on it.
    dense: the name of the same figure of the dense network, drawn as a line; '' for none.
    dense_label: the label of that line.
  """

  figure: str
  label: str
  set_up: Callable[[Any, np.ndarray], None]
  dense: str = ''
  dense_label: str = 'the dense network'


ACTIVE = Axis('active_fraction', 'active parameters', scales.fraction_along_x)
BYTES = Axis(
  'file_bytes',
  'bytes of the model file',
  partial(scales.positive_along_x, text=lambda value: f'{value:,.0f}'),
  'dense_bytes',
  'the dense network in float32',
)
MILLISECONDS = Axis(
  'milliseconds_1',
  'milliseconds of one image',
  partial(scales.positive_along_x, text=lambda value: f'{value:g}'),
  'dense_milliseconds_1',
)


def group_by_method(groups: Sequence[Group]) -> dict[str, list[Group]]:
  """Returns the experiments with a sparse network and its test accuracy, by method."""
  found: dict[str, list[Group]] = {}
  for group in groups:
    if group.kind != DENSE and math.isfinite(group.moments('test_accuracy')[0]):
      found.setdefault(group.method, []).append(group)
  return found


def coloured_methods(methods: Mapping[str, Sequence[Group]], axis: Axis = ACTIVE) -> list[str]:
  """Returns the methods that have colours of their own in a figure.

  Methods with the most experiments on the common front come first, then those that reach the
  highest accuracy.
  """
  if len(methods) <= len(COLOURS):
    return list(methods)
  points = {method: [_point(g, axis)[::2] for g in own] for method, own in methods.items()}
  best = set(front([point for own in points.values() for point in own]))
  order = {
    method: (-sum(point in best for point in own), -max(y for _, y in own))
    for method, own in points.items()
  }
  kept = set(sorted(methods, key=lambda method: order[method])[: len(COLOURS)])
  return [method for method in methods if method in kept]


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """Returns the points that no other point beats: none has as few parameters and as much accuracy.

  Example:
    >>> front([(0.1, 0.9), (0.2, 0.8), (0.3, 0.95)])
    [(0.1, 0.9), (0.3, 0.95)]
  """
  kept: list[tuple[float, float]] = []
  for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
    if not kept or y > kept[-1][1]:
      kept.append((x, y))
  return kept


def is_collapsed(group: Group) -> bool:
  """Returns whether any run of an experiment has collapsed, so that its mean says little."""
  return any(run.state == COLLAPSED for run in group.counted)


def best_dense(groups: Sequence[Group]) -> tuple[Group, str] | None:
  """Returns the dense network best on validation images, and its label; None without one."""
  dense = [g for g in groups if g.kind == DENSE and math.isfinite(g.moments('test_accuracy')[0])]
  if not dense:
    return None
  best = max(dense, key=lambda g: np.nan_to_num(g.moments('validation_accuracy')[0], nan=-1.0))
  return best, seed_label('dense' if len(dense) == 1 else f'best of {len(dense)} dense', [best])


def seed_label(name: str, groups: Sequence[Group]) -> str:
  """Returns a name followed by the number of seeds of the experiments."""
  counts = sorted({len(group.counted) for group in groups})
  return f'{name} (n = {"-".join(map(str, {counts[0]: 0, counts[-1]: 0}))})'


def spacing(groups: Sequence[Group], others: Mapping[str, Sequence[published.Point]]):
  """Returns the `scales.Spacing` of an axis that shows every experiment that did not collapse."""
  shown = [group for own in group_by_method(groups).values() for group in own]
  if (dense := best_dense(groups)) is not None:
    shown.append(dense[0])
  runs = [run for group in shown for run in group.counted]
  sound = [run.figure('test_accuracy') for run in runs if run.state != COLLAPSED]
  sound += [p.accuracy for points in others.values() for p in points if not p.is_collapsed]
  values = np.array(sound or [run.figure('test_accuracy') for run in runs])
  return scales.spacing(values[np.isfinite(values)])


def pareto(task: str, groups: Sequence[Group], axis: Axis = ACTIVE) -> Figure | None:
  """Draws test accuracy over another figure: means, bars of a standard deviation, and fronts.

  Experiments with a collapsed run are hollow and on no front. The others determine the axis; marks
  below it are drawn at its edge.

  Args:
    task: the task, as in `Run.task`.
    groups: its experiments; for figures of shipments those of `run_groups.shipped`, and dense ones.
    axis: what is drawn along x. Published results are drawn over active parameters only.

  Returns:
    The figure, or None if there is no sparse network with a test accuracy.
  """
  methods = group_by_method(groups)
  others = _published(task, axis)
  if not methods:
    return None
  figure = Figure(figsize=(8, 4.8), layout='constrained')
  ax = figure.subplots()
  every = [group for own in methods.values() for group in own]
  places = [group.moments(axis.figure)[0] for group in every]
  places += [point.active_fraction for points in others.values() for point in points]
  before = [run.figure(axis.dense) for group in every for run in group.counted if axis.dense]
  axis.set_up(ax, np.array(places + before))
  scales.spaced_accuracy(ax, spacing(groups, others))
  shown = coloured_methods(methods, axis)
  rest = [group for method, own in methods.items() if method not in shown for group in own]
  if rest:
    x, _, y, _ = np.array([_point(group, axis) for group in rest]).T
    _draw_marks(ax, x, y, OTHERS)
  handles = [
    _draw_method(ax, seed_label(method, methods[method]), methods[method], style, axis)
    for method, style in styles(shown).items()
  ]
  if rest:
    handles.append(Line2D([], [], label=f'{len(methods) - len(shown)} other methods', **OTHERS))
  handles += _draw_dense(ax, groups)
  if before:
    place, label = float(np.median(before)), axis.dense_label
    handles.append(ax.axvline(place, color=GREY, lw=1, ls='-.', label=label))
  handles += _draw_published(ax, others)
  ax.set(xlabel=axis.label, ylabel=f'test accuracy ({scales.BY_LOG})')
  has_seeds = any(len(group.counted) > 1 for group in every)
  means = 'means over seeds, bars of one standard deviation' if has_seeds else 'one seed each'
  entitle(ax, f'{task}\n{means}')
  grid(ax)
  is_many = any(len(own) > MANY for own in methods.values())
  many = f'with more than {MANY} experiments: a dot each, a band from 25 to 75 %, the front'
  legend(figure, handles, [*notes(task, groups, axis), *([many] if is_many else [])])
  return figure


def _published(task: str, axis: Axis) -> Mapping[str, Sequence[published.Point]]:
  """Returns the published points of a task; they have no bytes and no milliseconds."""
  return published.points(task) if axis is ACTIVE else {}


def _draw_dense(ax, groups: Sequence[Group]) -> list[Line2D]:
  """Draws a line at the accuracy of the best dense network, if any; returns legend handles."""
  if (dense := best_dense(groups)) is None:
    return []
  mean, spread = dense[0].moments('test_accuracy')
  if math.isfinite(spread):
    ax.axhspan(mean - spread, mean + spread, color='black', alpha=0.08, lw=0)
  return [ax.axhline(mean, color='black', lw=1, ls=(0, (8, 3)), label=dense[1])]


def _draw_published(ax, others: Mapping[str, Sequence[published.Point]]) -> list[Line2D]:
  """Draws the points of each publication, joined by a line; returns legend handles."""
  handles = []
  for (source, points), marker in zip(others.items(), itertools.cycle('*hpd8'), strict=False):
    line: dict[str, Any] = {'color': GREY, 'ls': ':', 'lw': 0.8, 'marker': ''}
    look: dict[str, Any] = {**line, 'marker': marker, 'ms': 8, 'mfc': 'none'}
    x, y = [p.active_fraction for p in points], [p.accuracy for p in points]
    ax.plot(x, y, **line)
    _draw_marks(ax, x, y, look)
    handles.append(Line2D([], [], label=source, **look))
  return handles


def _draw_method(
  ax, label: str, own: Sequence[Group], style: Mapping[str, Any], axis: Axis
) -> Line2D:
  """Draws the experiments of a method and the front of the sound ones; returns a legend handle.

  Many experiments are drawn as dots without bars, with a band between their quartiles.
  """
  look: dict[str, Any] = {'color': style['color'], 'marker': style['marker'], 'ms': 5, 'ls': 'none'}
  sound = [_point(group, axis) for group in own if not is_collapsed(group)]
  is_many = len(sound) > MANY
  if sound:
    x, x_spread, y, y_spread = np.array(sound).T
    if is_many:
      ax.plot(x, y, **look | {'ms': 2, 'alpha': 0.35, 'mew': 0})
      places, low, high = quartiles(x, y)
      ax.fill_between(places, low, high, color=style['color'], alpha=0.18, lw=0)
    else:
      bars = {'xerr': np.nan_to_num(x_spread), 'yerr': np.nan_to_num(y_spread)}
      ax.errorbar(x, y, **bars, capsize=2, lw=1, **look)
    best = front(list(zip(x, y, strict=True)))
    width = 1.8 if is_many else 1
    ax.plot(*zip(*best, strict=True), color=style['color'], ls=style['linestyle'], lw=width)
  if collapsed := [_point(group, axis) for group in own if is_collapsed(group)]:
    x, _, y, _ = np.array(collapsed).T
    _draw_marks(ax, x, y, look | {'mfc': 'white'} | ({'ms': 2} if is_many else {}))
  return Line2D([], [], label=label, lw=1, **look | {'ls': style['linestyle']})


def quartiles(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns places along x and the lower and upper quartile of y there, for parts of equal size.

  Args:
    x: (points,), on a log axis.
    y: (points,).

  Example:
    >>> quartiles(np.ones(4), np.array([0.0, 1.0, 2.0, 3.0]))
    (array([1.]), array([0.75]), array([2.25]))
  """
  order = np.argsort(x, kind='stable')
  parts = np.array_split(order, max(len(x) // EACH, 1))
  places = np.array([np.median(x[part]) for part in parts])
  low, high = np.array([np.percentile(y[part], (25, 75)) for part in parts]).T
  return places, low, high


def _point(group: Group, axis: Axis) -> tuple[float, float, float, float]:
  return (*group.moments(axis.figure), *group.moments('test_accuracy'))


def _draw_marks(ax, x, y, look) -> None:
  """Draws marks within the axes; those to the left or below are drawn on the edge."""
  x, y = np.maximum(x, ax.get_xlim()[0]), np.maximum(y, ax.get_ylim()[0])
  ax.plot(x, y, **look | {'ls': 'none'}, clip_on=False, zorder=3)


def notes(task: str, groups: Sequence[Group], axis: Axis = ACTIVE) -> list[str]:
  """Returns the notes on the marks of a task's figure, a line each."""
  every = [group for own in group_by_method(groups).values() for group in own]
  if not every:
    return []
  others = _published(task, axis)
  found = [published.note(others)] if others else []
  if any(map(is_collapsed, every)):
    found.append('hollow in the colour of a method: has a collapsed run, and is on no front')
  means = [group.moments('test_accuracy')[0] for group in every]
  means += [point.accuracy for points in others.values() for point in points]
  low = spacing(groups, others).low
  if below := [mean for mean in means if mean < low]:
    ends = ' to '.join(dict.fromkeys(f'{100 * end:.1f}' for end in (min(below), max(below))))
    found.append(f'on the lower edge: {len(below)} below the axis, at {ends} %')
  if any(group.moments(axis.figure)[0] == 0 for group in every):
    found.append('on the left edge: no parameter is active')
  return found
