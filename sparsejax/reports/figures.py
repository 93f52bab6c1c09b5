"""The figures of a report: colours for colour-blind people, marks and lines for print."""

import itertools
import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sparsejax.experiment import scales
from sparsejax.reports.groups import DENSE, Group

# Okabe and Ito's palette, less the yellow that does not read on white, and three of Paul Tol's that
# are darker than what they are near to.
COLOURS = (
  *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000'),
  *('#882255', '#999933', '#332288'),
)
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>')
LINES = ('-', '--', '-.', ':')
GREY = '#6B6B6B'
MOST = 7  # experiments that one picture tells apart
WIDEST = 8  # layers in one row of panels
DPI = 130
LETTER, HANDLE = 4.3, 9  # points that a letter of a legend takes; letters that a handle takes


def save(figure: Figure, folder: pathlib.Path, name: str) -> None:
  """Writes NAME.png and NAME.svg, the same bytes for the same figure."""
  from matplotlib import rc_context

  FigureCanvasAgg(figure)
  figure.savefig(folder / f'{name}.png', dpi=DPI)
  figure.set_layout_engine('none')  # it is laid out; once more would take as long as the drawing
  with rc_context({'svg.hashsalt': 'sparsejax', 'svg.fonttype': 'none'}):
    figure.savefig(folder / f'{name}.svg', metadata={'Date': None})


def styles(names: Sequence[str]) -> dict[str, dict[str, str]]:
  """Returns a colour, a marker and a line for each name; of 180 no two have the same three.

  Neighbours differ in all three, for those who do not see colours and for print without them.
  """
  looks = zip(*map(itertools.cycle, (COLOURS, MARKERS, LINES)), strict=False)
  return {
    name: {'color': colour, 'marker': marker, 'linestyle': line}
    for name, (colour, marker, line) in zip(names, looks, strict=False)
  }


def legend(figure: Figure, notes: Sequence[str] = (), handles: Sequence[Artist] = ()) -> None:
  """Puts a legend under the axes, in as many columns as its labels leave room for.

  Args:
    figure: grows by the legend.
    notes: lines above the labels.
    handles: to show; without any, those of the axes that have a label.
  """
  handles = handles or [h for ax in figure.axes for h in ax.get_legend_handles_labels()[0]]
  letters = int(figure.get_figwidth() * 72 / LETTER)  # in a line
  labels = [textwrap.fill(str(handle.get_label()), letters - HANDLE) for handle in handles]
  widest = max(len(line) for label in labels for line in label.splitlines()) + HANDLE
  columns = min(max(letters // widest, 1), len(labels), 4)
  title = '\n'.join(textwrap.fill(note, letters) for note in notes)
  lines = sum(1 + label.count('\n') for label in labels) / columns + title.count('\n') + 1
  figure.set_figheight(figure.get_figheight() + 0.15 * math.ceil(lines))
  figure.legend(
    handles,
    labels,
    loc='outside lower center',
    ncols=columns,
    frameon=False,
    handlelength=3,
    **{'fontsize': 7, 'title': title or None, 'title_fontsize': 7},
  )


def traces(task: str, groups: Sequence[Group]) -> Figure | None:
  """Draws validation accuracy and active parameters over the epochs, unfinished runs as well."""
  shown = _chosen([g for g in groups if any(_has(run, 'validation_accuracy') for run in g.runs)])
  if not shown:
    return None
  figure = Figure(figsize=(8, 6), layout='constrained')
  upper, lower = figure.subplots(2, 1, sharex=True)
  for group, style in zip(shown, styles([g.label for g in shown]).values(), strict=True):
    for index, run in enumerate(group.runs):
      look = {'color': style['color'], 'ls': style['linestyle']}
      look |= {'lw': 1.4} if index == 0 else {'lw': 0.7, 'alpha': 0.6}
      label = _cut(group.label) if index == 0 else None
      for ax, key in ((upper, 'validation_accuracy'), (lower, 'active_fraction')):
        ax.plot(*_series(run, key), label=label if ax is upper else None, **look)
  for ax, key, scale in (
    (upper, 'validation_accuracy', scales.accuracy),
    (lower, 'active_fraction', scales.fraction),
  ):
    values = np.concatenate([_series(run, key)[1] for g in shown for run in g.runs])
    values = values[np.isfinite(values)]
    if values.size:
      scale(ax, values)
    ax.set_ylabel(key.replace('_', ' ').replace('fraction', 'parameters'))
    grid(ax)
  lower.set_xlabel('epoch')
  upper.set_title(f'{task}: by epoch{_of_how_many(shown, groups)}', fontsize=10)
  legend(figure)
  return figure


def _has(run, key: str) -> bool:
  return any(key in line for line in run.metrics)


def _series(run, key: str) -> tuple[np.ndarray, np.ndarray]:
  lines = [line for line in run.metrics if isinstance(line.get(key), int | float)]
  epochs, values = ([float(line[name]) for line in lines] for name in ('epoch', key))
  return np.array(epochs), np.array(values)


def _chosen(groups: Sequence[Group]) -> list[Group]:
  """As many as a picture tells apart, spread over the active fractions from end to end."""
  ordered = sorted(groups, key=lambda g: np.nan_to_num(g.runs[0].figure('active_fraction')))
  if len(ordered) <= MOST:
    return ordered
  places = np.linspace(0, len(ordered) - 1, MOST).round().astype(int)
  return [ordered[place] for place in places]


def _of_how_many(shown, groups) -> str:
  return '' if len(shown) == len(groups) else f', {len(shown)} of {len(groups)} experiments'


def _cut(label: str, most: int = 90) -> str:
  return label if len(label) <= most else f'{label[: most - 1]}…'


def by_layer(task: str, groups: Sequence[Group], count: str) -> Figure | None:
  """Draws how much of each layer is left: its 'weights', or its 'units', which are its filters."""
  able = [g for g in groups if g.counted and g.kind != DENSE and _shares(g, count)]
  shown = _chosen(able)
  if not shown:
    return None
  layers = list(_shares(max(shown, key=lambda g: len(_shares(g, count))), count))
  figure = Figure(figsize=(max(8, 0.22 * len(layers) + 3), 4.5), layout='constrained')
  ax = figure.subplots()
  every = []
  for group, style in zip(shown, styles([g.label for g in shown]).values(), strict=True):
    shares = _shares(group, count)
    values = [shares.get(layer, math.nan) for layer in layers]
    every += values
    ax.plot(range(len(layers)), values, **style, ms=4, lw=1.2, label=_cut(group.label))
  (scales.fraction if count == 'weights' else _from_zero)(ax, np.array(every))
  ax.set_xticks(range(len(layers)), layers, rotation=90 if len(layers) > 6 else 0, fontsize=7)
  what = 'active weights' if count == 'weights' else 'filters and units with a weight left'
  ax.set_ylabel(what)
  ax.set_title(f'{task}: {what}, by layer{_of_how_many(shown, able)}', fontsize=10)
  grid(ax)
  legend(figure)
  return figure


def _shares(group: Group, count: str) -> dict[str, float]:
  """Of each layer the share that is left, as a mean over the seeds."""
  found: dict[str, list[float]] = {}
  for run in group.counted:
    for layer, row in run.summary.get('layers', {}).items():
      if row.get(count) and f'active_{count}' in row:
        found.setdefault(layer, []).append(row[f'active_{count}'] / row[count])
  return {layer: float(np.mean(values)) for layer, values in found.items()}


def _from_zero(ax, values) -> None:
  del values
  ax.set_ylim(-0.02, 1.04)
  ax.yaxis.set_major_formatter(lambda value, _: f'{100 * value:.0f} %')


def log_alpha(rows: Mapping[str, Mapping[str, Any]]) -> Figure | None:
  """Draws where log alpha lies in each layer, with the threshold that was used and the suggested.

  Args:
    rows: {label: `log_alpha` of a summary}; of more experiments than a page holds, the first few.
  """
  able = {label: layers for label, layers in rows.items() if layers}
  if not able:
    return None
  lines = [
    (label, part)
    for label, layers in list(able.items())[:MOST]
    for part in _parts(list(layers.items()), WIDEST)
  ]
  widest = max(len(part) for _, part in lines)
  figure = Figure(figsize=(max(2.6 * widest, 4), 1.7 * len(lines) + 0.4), layout='constrained')
  axes = figure.subplots(len(lines), widest, squeeze=False)
  for (label, part), panels in zip(lines, axes, strict=True):
    panels[0].set_ylabel(_cut(label, 24), fontsize=6)
    for panel in panels[len(part) :]:
      panel.set_axis_off()
    for (layer, bins), panel in zip(part, panels, strict=False):
      _draw_histogram(panel, layer, bins)
  if len(able) > MOST:
    figure.suptitle(f'{MOST} of {len(able)} experiments', fontsize=8)
  handles = [
    Line2D([], [], color='black', label='threshold'),
    Line2D([], [], color=COLOURS[1], ls='--', label='gap'),
  ]
  axes[0, 0].legend(handles=handles, fontsize=6)
  figure.supxlabel('log alpha', fontsize=8)
  return figure


def _parts(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
  return [items[begin : begin + most] for begin in range(0, len(items), most)]


def _draw_histogram(panel, layer, bins) -> None:
  edges = np.linspace(bins['from'], bins['to'], len(bins['counts']) + 1)
  panel.stairs(bins['counts'], edges, fill=True, color=COLOURS[0])
  panel.axvline(bins['threshold'], color='black', lw=1)
  if bins['suggested_threshold'] is not None:
    panel.axvline(bins['suggested_threshold'], color=COLOURS[1], ls='--', lw=1)
  if max(bins['counts']) > 20:
    panel.set_yscale('symlog', linthresh=10)
  else:
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
  panel.set_title(layer, fontsize=7, pad=2)
  panel.tick_params(labelsize=6)


def brackets(
  title: str, members: Mapping[int, Sequence[Any]], rungs: Mapping[int, Sequence]
) -> Figure:
  """Draws the validation loss of a search's runs, a panel for each of its brackets.

  Args:
    title: of the figure.
    members: the runs of each bracket.
    rungs: of each bracket, where it has some; see `search.brackets`.
  """
  figure = Figure(figsize=(max(3.0 * len(members), 5), 3.6), layout='constrained')
  axes = figure.subplots(1, len(members), sharey=True, squeeze=False)[0]
  every = []
  for (bracket, runs), ax in zip(sorted(members.items()), axes, strict=True):
    longest = max(run.epoch for run in runs)
    for run in runs:
      epochs, losses = _series(run, 'validation_loss')
      every.append(losses)
      went_on = run.epoch >= longest
      look = {'color': COLOURS[1], 'lw': 1.4} if went_on else {'color': COLOURS[0], 'lw': 0.7}
      ax.plot(epochs, losses, alpha=1.0 if went_on else 0.6, marker='.', ms=3, **look)
    for rung in rungs.get(bracket, ()):
      ax.axvline(rung.epochs, color=GREY, lw=0.6, ls=':')
    plan = ' > '.join(f'{r.configurations}@{r.epochs}' for r in rungs.get(bracket, ()))
    ax.set_title(plan or f'{len(runs)} trials', fontsize=8)
    ax.set_xlabel('epoch')
    ax.set_xscale('log')
    grid(ax)
  losses = np.concatenate(every)
  losses = losses[np.isfinite(losses)]
  if losses.size:
    scales.log(axes[0], losses)
  axes[0].set_ylabel('validation loss')
  for ax in axes:
    ax.xaxis.set_major_formatter(lambda value, _: f'{value:g}')
    ax.xaxis.set_minor_formatter(lambda value, _: '')
  figure.suptitle(title, fontsize=10)
  return figure


def grid(ax) -> None:
  """Puts a pale grid under what is drawn; epochs are whole numbers."""
  ax.grid(lw=0.4, alpha=0.5)
  if ax.get_xscale() == 'linear' and ax.get_xlabel() == 'epoch':
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
