"""Draws and writes every figure of a report, or says in a line why it cannot."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from sparsejax.experiment.terminal.errors import in_one_line
from sparsejax.reports.figures import dress, experiments, pareto, search_figures
from sparsejax.reports.records.run_groups import DENSE, Group, has_groups, shipped
from sparsejax.reports.text import tables
from sparsejax.reports.text.drawn import Drawn, Picture
from sparsejax.reports.text.searches import Search

MOST_PANELS = 60  # panels of histograms in one figure
MOST_TASKS = 24  # tasks with figures: those with the most runs


class _Plan(NamedTuple):
  """A figure to draw: its task or search, its name, and the function that draws it."""

  section: str
  name: str
  draw: Callable[[], Figure | None]


def draw(
  groups: Sequence[Group], searches: Sequence[Search], folder: pathlib.Path, look: dress.Look
) -> Drawn:
  """Draws the figures of experiments and searches.

  Args:
    groups: the experiments.
    searches: the searches that some of the runs belong to.
    folder: the folder for the files.
    look: the look of the figures.

  Raises:
    OSError: the files cannot be written.
  """
  pictures: dict[str, list[Picture]] = {}
  missing: list[tuple[str, str]] = []
  tasks = _largest(groups)
  for task in tasks[MOST_TASKS:]:
    reason = f'{MOST_TASKS} tasks of {len(tasks)} have figures: those with the most runs'
    missing.append((tables.task_stem(task), reason))
  for plan in (*_plan_tasks(groups, tasks[:MOST_TASKS]), *_plan_searches(searches)):
    try:
      if (figure := plan.draw()) is not None:
        pictures.setdefault(plan.section, []).append(dress.save(figure, folder, plan.name, look))
    except OSError:
      raise
    except Exception as error:  # no error may keep the page of all the other runs from being made
      missing.append((plan.name, in_one_line(error)))
  return Drawn(pictures, missing)


def _largest(groups: Sequence[Group]) -> list[str]:
  """The tasks, those with the most runs first."""
  counts: dict[str, int] = {}
  for group in groups:
    counts[group.task] = counts.get(group.task, 0) + len(group.runs)
  return sorted(counts, key=lambda task: -counts[task])


def _plan_tasks(groups: Sequence[Group], tasks: Sequence[str]) -> Iterator[_Plan]:
  for task in tasks:
    own = [group for group in groups if group.task == task]
    stem = tables.task_stem(task)
    yield _Plan(task, f'{stem}.pareto', functools.partial(pareto.pareto, task, own))
    measured = [*shipped([g for g in own if g.kind != DENSE]), *(g for g in own if g.kind == DENSE)]
    for name, axis in (('bytes', pareto.BYTES), ('milliseconds', pareto.MILLISECONDS)):
      yield _Plan(task, f'{stem}.{name}', functools.partial(pareto.pareto, task, measured, axis))
    yield _Plan(task, f'{stem}.traces', functools.partial(experiments.traces, task, own))
    for count in ('weights', 'units'):
      yield _Plan(
        task, f'{stem}.{count}', functools.partial(experiments.layer_shares, task, own, count)
      )
    yield _Plan(task, f'{stem}.log_alpha', functools.partial(_log_alpha, task, own))


def _log_alpha(task: str, groups: Sequence[Group]) -> Figure | None:
  able = [g for g in groups if any(run.summary.get('log_alpha') for run in g.counted[:1])]
  shown = _fit_one_page(experiments.chosen(able))
  posteriors = {group.label: group.counted[0].summary['log_alpha'] for group in shown}
  grouped = [g.label for g in shown if has_groups(g.runs[0].config)]
  title = f'{task}: log alpha by layer, first seed{experiments.choice(shown, able)}'
  return experiments.log_alpha(posteriors, title, grouped)


def _fit_one_page(groups: Sequence[Group]) -> Sequence[Group]:
  """Returns as many experiments as have room for their layers, spread evenly over all."""
  layers = max((len(group.counted[0].summary['log_alpha']) for group in groups), default=1)
  able = max(MOST_PANELS // max(layers, 1), 1)
  if len(groups) <= able:
    return groups
  return [groups[(2 * n + 1) * len(groups) // (2 * able)] for n in range(able)]


def _plan_searches(searches: Sequence[Search]) -> Iterator[_Plan]:
  for index, search in enumerate(searches):
    stem = tables.search_stem(index)
    if search.runs_by_bracket:
      lines = search.title, search.runs_by_bracket, search.rungs_by_bracket
      draw = functools.partial(search_figures.brackets, *lines)
      yield _Plan(stem, f'{stem}.brackets', draw)
    points = search.title, search.settings, search.tried
    draw = functools.partial(search_figures.objectives, *points)
    yield _Plan(stem, f'{stem}.objectives', draw)
