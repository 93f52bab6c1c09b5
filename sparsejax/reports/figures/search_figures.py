"""The figures of a search: its brackets, and the trade-off between its objectives."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparsejax.experiment.show import scales
from sparsejax.reports.figures import bands
from sparsejax.reports.figures.dress import COLOURS, GREY, entitle, grid, legend
from sparsejax.reports.figures.experiments import series
from sparsejax.reports.records.collect import Run
from sparsejax.reports.records.tried import Setting, front
from sparsejax.search.plan.brackets import Rung
from sparsejax.search.plan.settings import score

LONGEST: dict[str, Any] = {'color': COLOURS[1], 'lw': 1.4, 'marker': '.', 'ms': 3}
SHORTER: dict[str, Any] = {'color': COLOURS[0], 'lw': 0.7, 'marker': '.', 'ms': 3, 'alpha': 0.6}
MOST_LINES = 60  # lines in a panel
RUNG: dict[str, Any] = {'color': GREY, 'lw': 0.6, 'ls': ':'}


def brackets(
  title: str, members: Mapping[int, Sequence[Run]], rungs: Mapping[int, Sequence[Rung]]
) -> Figure:
  """Draws the validation loss of a search's runs, a panel for each of its brackets.

  Args:
    title: the title of the figure.
    members: the runs of each bracket.
    rungs: the rungs of each bracket, if it has any; see `search.brackets`.
  """
  figure = Figure(figsize=(max(3.0 * len(members), 5), 3.6), layout='constrained')
  axes = figure.subplots(1, len(members), sharey=True, squeeze=False)[0]
  every = []
  looks = {'trained the longest of its bracket': LONGEST}
  for (bracket, runs), ax in zip(sorted(members.items()), axes, strict=True):
    losses, found = _draw_bracket(ax, runs, rungs.get(bracket, ()))
    every += losses
    looks |= found
  losses = np.concatenate(every)
  losses = losses[np.isfinite(losses)]
  if losses.size:
    scales.log(axes[0], losses)
  axes[0].set_ylabel('validation loss')
  entitle(figure, title)
  notes = []
  if long := next((plan for _, plan in sorted(rungs.items()) if len(plan) > 1), None):
    (many, begin), (fewer, end) = long[:2]
    notes = [
      f'{many}@{begin} > {fewer}@{end}: {many} configurations until epoch {begin}, {fewer} of them '
      f'until epoch {end}'
    ]
  handles = [Line2D([], [], label=label, **look) for label, look in looks.items()]
  legend(figure, handles, notes)
  return figure


def _draw_bracket(
  ax: Axes, runs: Sequence[Run], rungs: Sequence[Rung]
) -> tuple[list[np.ndarray], dict[str, dict[str, Any]]]:
  """Draws a bracket's runs; returns their losses, and the looks of lines to explain, by label."""
  longest = max(run.epoch for run in runs)
  curves = [series(run, 'validation_loss') for run in runs]
  ended = [run.epoch >= longest for run in runs]
  shorter = [curve for curve, is_longest in zip(curves, ended, strict=True) if not is_longest]
  looks = {}
  if len(shorter) > MOST_LINES:
    bands.draw(ax, shorter, SHORTER)
    looks[f'trained for less: {bands.SAID}'] = SHORTER
  for (epochs, losses), is_longest in sorted(zip(curves, ended, strict=True), key=lambda c: c[1]):
    if is_longest or len(shorter) <= MOST_LINES:
      ax.plot(epochs, losses, **LONGEST if is_longest else SHORTER)
      if not is_longest:
        looks['trained for less'] = SHORTER
  for rung in rungs[:-1]:
    ax.axvline(rung.epochs, **RUNG)
    looks['rung: the best go on'] = RUNG
  plan = ' > '.join(f'{r.configurations}@{r.epochs}' for r in rungs)
  ax.set_title(plan or f'{len(runs)} trials', fontsize=8)
  ax.set_xlabel('epoch')
  ax.set_xscale('log')
  scales.log_ticks(ax.xaxis, *ax.get_xlim(), lambda value: f'{value:g}')
  grid(ax)
  return [losses for _, losses in curves], looks


def objectives(title: str, settings: Mapping[str, Any], found: Sequence[Setting]) -> Figure | None:
  """Draws the objectives of a search's trials against each other, with the front.

  Args:
    title: the title of the figure.
    settings: the settings of the search.
    found: what the search has measured.

  Returns:
    A panel for each objective after the first; None if there is only one, or no trial finished.
  """
  goals = settings.get('objectives', ())
  names = [goal['metric'] for goal in goals]
  finished = [
    s for s in found if s.is_finished and all(math.isfinite(s.metrics[name]) for name in names)
  ]
  if not finished or len(goals) == 1:
    return None
  values = np.array([[setting.metrics[name] for name in names] for setting in finished])
  groups = _groups(settings, finished, joins_front=len(goals) == 2)
  figure = Figure(figsize=(max(4.0 * len(goals) - 4, 6), 4), layout='constrained')
  axes = figure.subplots(1, len(goals) - 1, sharey=True, squeeze=False)[0]
  handles: list[Line2D] = []
  for column, ax in enumerate(axes, 1):
    for label, chosen, look in groups:
      if chosen.any():
        y, x = values[chosen][np.argsort(values[chosen, column])][:, (0, column)].T
        lines = ax.plot(x, y, label=label, **look)
        handles += lines if column == 1 else []
    ax.set_xlabel(_goal_label(goals[column]))
    if _is_wide(values[:, column]):
      ax.set_xscale('log')
      scales.log_ticks(ax.xaxis, *ax.get_xlim(), lambda value: f'{value:g}')
    grid(ax)
  axes[0].set_ylabel(_goal_label(goals[0]))
  if _is_wide(values[:, 0]):
    scales.log(axes[0], values[:, 0])
  entitle(figure, f'{title}: {len(finished)} that finished')
  legend(figure, handles)
  return figure


def _groups(
  settings: Mapping[str, Any], finished: Sequence[Setting], *, joins_front: bool
) -> tuple[tuple[str, np.ndarray, dict[str, Any]], ...]:
  """Returns (label, which of the settings are in it, look) for each group of points."""
  sound = np.array([score(settings, setting.metrics)[0] == 0 for setting in finished])
  unbeaten = {id(setting) for setting in front(settings, finished)}
  best = np.array([id(setting) in unbeaten for setting in finished])
  return (
    ('breaks a constraint', ~sound, {'color': GREY, 'marker': 'o', 'mfc': 'none', 'ls': 'none'}),
    ('finished', sound & ~best, {'color': COLOURS[0], 'marker': 'o', 'ms': 4, 'ls': 'none'}),
    (
      'on the front: none is better in one and no worse in the others',
      best,
      {'color': COLOURS[1], 'marker': 's', 'lw': 1, 'ls': '-' if joins_front else 'none'},
    ),
  )


def _goal_label(goal: Mapping[str, str]) -> str:
  better = 'less' if goal['direction'] == 'minimize' else 'more'
  return f'{goal["metric"].replace("_", " ")} ({better} is better)'


def _is_wide(values: np.ndarray) -> bool:
  return values.min() > 0 and values.max() > 5 * values.min()
