"""The figures of experiments: by epoch, by layer, and where log alpha lies."""

import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sparsejax.experiment.show import scales
from sparsejax.reports.figures import bands
from sparsejax.reports.figures.dress import (
  COLOURS,
  GREY,
  LETTER,
  entitle,
  grid,
  legend,
  short,
  styles,
)
from sparsejax.reports.records.collect import COLLAPSED, DELIVERED, Run
from sparsejax.reports.records.run_groups import DENSE, Group

MOST = 7  # experiments in one picture, or a few more if there are many methods
SPREAD = 3  # experiments among them that are chosen for their active fractions
SAME = 0.05  # logs of active fractions that differ by less count as one sparsity
WIDEST = 6  # layers in one row of panels


def chosen(groups: Sequence[Group]) -> list[Group]:
  """Returns as many experiments as a figure can distinguish, by active fraction.

  It takes the experiment of each method, and the dense network, that is best on validation images;
  then, one by one, the experiment whose log active fraction lies farthest from those taken. Sound
  networks come before collapsed ones, and these before unfinished runs.
  """
  ranked = sorted(groups, key=_rank)
  best: dict[str, Group] = {}
  for group in ranked:
    best.setdefault(_method(group), group)
  shown = list(best.values())[: len(COLOURS)]
  most = max(MOST, min(len(shown) + SPREAD, len(COLOURS)))
  taken = {id(group) for group in shown}
  rest = [group for group in ranked if id(group) not in taken]
  while rest and len(shown) < most:
    able = [n for n, group in enumerate(rest) if _rank(group)[0] == _rank(rest[0])[0]]
    places = [_log_fraction(group) for group in shown]
    # Among those equally far, the first is the best.
    far = max(able, key=lambda n: min(abs(_log_fraction(rest[n]) - at) for at in places) // SAME)
    shown.append(rest.pop(far))
  return sorted(shown, key=_log_fraction)


def _method(group: Group) -> str:
  return DENSE if group.kind == DENSE else group.method


def _rank(group: Group) -> tuple[int, float]:
  states = {run.state for run in group.counted}
  order = 2 if not states else 1 if COLLAPSED in states else 0
  return order, -float(np.nan_to_num(_figure(group, 'validation_accuracy'), nan=-1.0))


def _log_fraction(group: Group) -> float:
  return math.log(max(np.nan_to_num(_figure(group, 'active_fraction')), 1e-6))


def _figure(group: Group, name: str) -> float:
  """The mean over the finished seeds; if none is finished, the first run's last value."""
  return group.moments(name)[0] if group.counted else group.runs[0].figure(name)


def choice(shown: Sequence[Group], groups: Sequence[Group]) -> str:
  """Returns the line of a title that says which experiments `chosen` took; '' if it took all."""
  if len(shown) == len(groups):
    return ''
  methods, of = (len({_method(group) for group in found}) for found in (shown, groups))
  best = 'the best of each method' if methods == of else f'the best of {methods} of {of} methods'
  places = [_log_fraction(group) for group in groups]
  is_spread = max(places) - min(places) >= SAME
  next_ones = 'others spread over active parameters' if is_spread else 'and the next best ones'
  others = f', {next_ones}' if len(shown) > methods else ''
  return f'\n{len(shown)} of {len(groups)} experiments: {best}{others}'


PANELS: dict[str, tuple[str, Callable]] = {
  'validation_accuracy': (f'validation accuracy\n({scales.BY_LOG})', scales.accuracy),
  'train_accuracy': (f'training accuracy\n({scales.BY_LOG})', scales.accuracy),
  'active_fraction': ('active parameters', scales.fraction),
}
CROWD = 3 * MOST  # with more experiments than this, all the others are drawn as one band


def traces(task: str, groups: Sequence[Group]) -> Figure | None:
  """Draws accuracies and active parameters over the epochs, including unfinished runs.

  It draws quantiles of an experiment with many seeds, and of more experiments than a picture can
  tell apart. It returns None if no run has a validation accuracy.
  """
  able = [g for g in groups if any(_has(run, 'validation_accuracy') for run in g.runs)]
  shown = chosen(able)
  if not shown:
    return None
  panels = [key for key in PANELS if any(_has(run, key) for g in shown for run in g.runs)]
  figure = Figure(figsize=(8, 2.6 * len(panels) + 0.8), layout='constrained')
  axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
  looks: dict[str, dict[str, Any]] = {
    label: {'color': style['color'], 'ls': style['linestyle']}
    for label, style in styles([g.label for g in shown]).items()
  }
  for ax, key in zip(axes, panels, strict=True):
    name, scale = PANELS[key]
    if len(able) > CROWD:
      crowd = [series(run, key) for group in able for run in group.runs]
      bands.draw(ax, crowd, {'color': GREY}, middle=False)
    for group in shown:
      bands.draw(ax, _curves(group, key), looks[group.label])
    values = np.concatenate([y for group in shown for _, y in _curves(group, key)])
    if values.size:
      scale(ax, values)
    ax.set_ylabel(name)
    grid(ax)
  axes[-1].set_xlabel('epoch')
  grid(axes[-1])
  entitle(axes[0], f'{task}: by epoch{choice(shown, able)}')
  handles = [Line2D([], [], label=_state_label(g), lw=1.4, **looks[g.label]) for g in shown]
  notes = [f'with more than {bands.MANY} seeds: {bands.SAID}']
  notes = notes if any(len(group.runs) > bands.MANY for group in shown) else []
  if len(able) > CROWD:
    notes.append(f'grey: from {bands.LOW} to {bands.HIGH} % of all {len(able)} experiments')
  legend(figure, handles, notes)
  return figure


def _curves(group: Group, key: str) -> list[bands.Curve]:
  """A metric of an experiment's runs, finished runs first."""
  return [series(run, key) for run in sorted(group.runs, key=lambda r: r.state not in DELIVERED)]


def _state_label(group: Group) -> str:
  return group.label if group.counted else f'{group.label} ({group.runs[0].state})'


def _has(run: Run, key: str) -> bool:
  return key in run.metrics.curves


def series(run: Run, key: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the epochs and the values of a metric, each of shape (points that are kept,)."""
  epochs, values = run.metrics.curves.get(key, ((), ()))
  return np.array(epochs, float), np.array(values, float)


def layer_shares(task: str, groups: Sequence[Group], count: str) -> Figure | None:
  """Draws the share of each layer that is left, in 'weights' or in 'units' (filters too).

  It returns None if no sparse experiment counts them.
  """
  sparse = [g for g in groups if g.counted and g.kind != DENSE]
  able = [g for g in sparse if _shares(g, count)]
  shown = chosen(able)
  if not shown:
    return None
  layers = list(_shares(max(shown, key=lambda g: len(_shares(g, count))), count))
  rows = [[_shares(group, count).get(layer, math.nan) for layer in layers] for group in shown]
  figure = Figure(figsize=(max(8, 0.22 * len(layers) + 3), 4.5), layout='constrained')
  ax = figure.subplots()
  (scales.fraction if count == 'weights' else _scale_linearly)(ax, np.array(rows))
  low = max(ax.get_ylim()[0], 0.0)
  handles: list[Line2D] = []
  for group, values, style in zip(
    shown, rows, styles([g.label for g in shown]).values(), strict=True
  ):
    look: dict[str, Any] = {'ms': 4, 'lw': 1.2, 'label': group.label, 'clip_on': False}
    handles += ax.plot(range(len(layers)), np.maximum(values, low), **style, **look)
  names = list(map(short, layers))
  turned = 90 if len(layers) > 6 else 0
  ax.set_xticks(range(len(layers)), names, rotation=turned, fontsize=7, parse_math=False)
  what = 'active weights' if count == 'weights' else 'filters and units with a weight left'
  ax.set_ylabel(what)
  entitle(ax, f'{task}: {what}, by layer{choice(shown, able)}')
  grid(ax)
  notes = ['on the lower edge: no weight left'] if low and 0 in np.array(rows) else []
  if missing := len(sparse) - len(able):
    notes.append(f'{missing} of {len(sparse)} experiments do not count {count} and are left out')
  legend(figure, handles, notes)
  return figure


def _shares(group: Group, count: str) -> dict[str, float]:
  """The share of each layer that is left, as a mean over the seeds."""
  found: dict[str, list[float]] = {}
  for run in group.counted:
    for layer, row in run.summary.get('layers', {}).items():
      if row.get(count) and f'active_{count}' in row:
        found.setdefault(layer, []).append(row[f'active_{count}'] / row[count])
  return {layer: float(np.mean(values)) for layer, values in found.items()}


def _scale_linearly(ax, values) -> None:
  del values
  ax.set_ylim(-0.02, 1.04)
  ax.yaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')


def log_alpha(
  rows: Mapping[str, Mapping[str, Any]], title: str = '', grouped: Collection[str] = ()
) -> Figure | None:
  """Draws the histogram of log alpha in each layer, with the threshold used and the suggested one.

  Args:
    rows: {label: `log_alpha` of a summary}.
    title: the title of the figure.
    grouped: the labels of rows that have a log alpha for each group, not for each weight.

  Returns:
    The figure, or None if there are no rows.
  """
  lines = [
    (label, part) for label, layers in rows.items() for part in _parts(list(layers.items()), WIDEST)
  ]
  if not lines:
    return None
  widest = max(len(part) for _, part in lines)
  width = max(2.6 * widest, 5)
  labels = [textwrap.fill(label, int(width * 72 / LETTER)) for label, _ in lines]
  heights = [1.7 + 0.12 * (1 + label.count('\n')) for label in labels]
  figure = Figure(figsize=(width, sum(heights) + 0.3), layout='constrained')
  bands = figure.subfigures(len(lines), 1, squeeze=False, height_ratios=heights)[:, 0]
  for (label, part), text, band in zip(lines, labels, bands, strict=True):
    band.suptitle(text, fontsize=7, x=0.01, ha='left', parse_math=False)
    panels = band.subplots(1, widest, squeeze=False)[0]
    panels[0].set_ylabel('groups' if label in grouped else 'weights', fontsize=7)
    for panel in panels[len(part) :]:
      panel.set_axis_off()
    for (layer, bins), panel in zip(part, panels, strict=False):
      _draw_histogram(panel, layer, bins)
      panel.set_xlabel('log alpha' if band is bands[-1] else '', fontsize=7)
  if title:
    entitle(figure, title)
  handles = [Line2D([], [], color='black', label='threshold that was used')]
  if any(bins['suggested_threshold'] is not None for _, part in lines for _, bins in part):
    handles.append(Line2D([], [], color=COLOURS[1], ls='--', label='gap of the histogram'))
  legend(figure, handles)
  return figure


def _parts(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
  return [items[begin : begin + most] for begin in range(0, len(items), most)]


def _draw_histogram(panel, layer, bins) -> None:
  edges = np.linspace(bins['from'], bins['to'], len(bins['counts']) + 1)
  panel.stairs(bins['counts'], edges, fill=True, color=COLOURS[0])
  # A threshold far away, or many bins, can leave a bar less than a pixel.
  middles = (edges[1:] + edges[:-1]) / 2
  counts = np.asarray(bins['counts'])
  panel.vlines(middles[counts > 0], 0, counts[counts > 0], color=COLOURS[0], lw=2)
  panel.axvline(bins['threshold'], color='black', lw=1)
  if bins['suggested_threshold'] is not None:
    panel.axvline(bins['suggested_threshold'], color=COLOURS[1], ls='--', lw=1)
  if max(bins['counts']) > 20:
    panel.set_yscale('symlog', linthresh=10)
  else:
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
  panel.set_title(short(layer), fontsize=7, pad=2, parse_math=False)
  panel.tick_params(labelsize=6)
