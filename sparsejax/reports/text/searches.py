"""The searches that runs belong to: their brackets, and their best trials."""

import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sparsejax.experiment.config.identity import short_name, short_value
from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records import reading
from sparsejax.reports.records.collect import Run
from sparsejax.reports.records.finding import unique_names
from sparsejax.reports.records.trials import Trial
from sparsejax.reports.records.tried import Setting, front, tried
from sparsejax.reports.text import cells
from sparsejax.search import search_folder
from sparsejax.search.plan.brackets import Rung, brackets
from sparsejax.search.plan.settings import excesses, score

MAX_ROWS = 20  # of the table of a search


class Search(NamedTuple):
  """The summary of a search and its runs.

  Attributes:
    title: its name, kind and configs.
    goals: the objectives that its trials are compared by, in a sentence.
    settings: its settings; {} if they cannot be read.
    tried: the settings that it has measured.
    runs_by_bracket: {number of a bracket: its runs}, to draw; empty for a grid. A search without
      brackets has all its runs in the first.
    rungs_by_bracket: {number of a bracket: its rungs}; empty without Hyperband.
    header: the header of the table of its best trials.
    rows: the rows of that table.
    problems: (name, state, problem) of each of its own files that cannot be read, and of each trial
      that failed before it had a run directory.
  """

  title: str
  goals: str = ''
  settings: Mapping[str, Any] = MappingProxyType({})
  tried: Sequence[Setting] = ()
  runs_by_bracket: Mapping[int, Sequence[Run]] = MappingProxyType({})
  rungs_by_bracket: Mapping[int, Sequence[Rung]] = MappingProxyType({})
  header: Sequence[str] = ()
  rows: Sequence[Sequence[str]] = ()
  problems: Sequence[tuple[str, str, str]] = ()


def find_searches(runs: Sequence[Run]) -> list[Search]:
  """Returns the searches that some of the runs belong to."""
  by_folder: dict[pathlib.Path, list[Run]] = {}
  for run in runs:
    if (folder := search_folder.find_search(run.path)) is not None:
      by_folder.setdefault(folder, []).append(run)
  names = map(printable, unique_names(list(by_folder)))
  return [
    _summarize_search(folder, name, members)
    for (folder, members), name in zip(by_folder.items(), names, strict=True)
  ]


KINDS = {
  'hyperband': 'Hyperband',
  'optuna_hyperband': "Hyperband by Optuna's pruner",
  'none': 'search',
}


def _summarize_search(folder: pathlib.Path, name: str, runs: Sequence[Run]) -> Search:
  """Returns the summary of one search; what cannot be read becomes one of its problems.

  Args:
    folder: the folder of the search.
    name: its name in the report.
    runs: its runs, at least one.
  """
  assert runs[0].search is not None  # `find_searches` takes only runs that belong to a search
  trials, problem = runs[0].search
  problems = [(name, 'broken', problem)] if problem else []
  try:
    search = _load_search(folder, name, runs, list(trials.values()))
  except Exception as error:  # sweep.json is untrusted: any field may be missing or of any type
    message = f'{search_folder.SWEEP} cannot be read: {printable(repr(error))}'
    return Search(title=f'{name}: search', problems=[*problems, (name, 'broken', message)])
  return search._replace(problems=problems + _failed_trials(name, runs, trials.values()))


def _load_search(
  folder: pathlib.Path, name: str, runs: Sequence[Run], trials: Sequence[Trial]
) -> Search:
  """Reads the settings of a search and returns its summary, without problems."""
  settings = reading.read(folder / search_folder.SWEEP)
  scheduler, eta = settings['scheduler']['name'], settings['scheduler']['eta']
  is_grid = settings['sampler'] == 'grid'
  kind = 'grid' if is_grid else KINDS[scheduler]
  members = {} if is_grid else _by_bracket(runs)
  epochs = [int(run.config['epochs']) for group in members.values() for run in group]
  has_rungs = scheduler == 'hyperband' and bool(epochs)
  measured = tried(trials)
  header, rows = _table_of_best(settings, measured)
  return Search(
    title=f'{name}: {kind} over {", ".join(map(str, settings["configs"]))}',
    goals=_goals(settings),
    settings=settings,
    tried=measured,
    runs_by_bracket=members,
    rungs_by_bracket=dict(enumerate(brackets(max(epochs), eta))) if has_rungs else {},
    header=header,
    rows=rows,
  )


def _failed_trials(
  name: str, runs: Sequence[Run], trials: Iterable[Trial]
) -> list[tuple[str, str, str]]:
  """Returns (name, state, problem) of each trial that failed before it had a run directory."""
  directories = {run.path.name for run in runs}
  return [
    (f'{name}/{trial["directory"]}', 'failed', str(trial['error']))
    for trial in trials
    if trial['state'] == search_folder.FAILED and trial['directory'] not in directories
  ]


def _by_bracket(runs: Sequence[Run]) -> dict[int, list[Run]]:
  """Returns the runs with metrics by the bracket that their directory names, such as 'b1-07'."""
  members: dict[int, list[Run]] = {}
  for run in runs:
    found = re.fullmatch(r'b(\d+)-\d+', run.path.name)
    if found and run.config and run.metrics.last:
      members.setdefault(int(found[1]), []).append(run)
  return members


def _goals(settings: Mapping[str, Any]) -> str:
  """Returns the objectives and constraints of a search in a sentence."""
  extremes = {'minimize': 'least', 'maximize': 'largest'}
  goals = [
    f'{extremes[goal["direction"]]} {_words(goal["metric"])}' for goal in settings['objectives']
  ]
  bounds = [f'{_words(c["metric"])} at most {c["at_most"]:g}' for c in settings['constraints']]
  which = 'The front of' if len(goals) > 1 else 'By'
  under = f', with {" and ".join(bounds)}' if bounds else ''
  return (
    f'{which} {" and ".join(goals)}{under}; on validation images. The figures of a finished trial '
    'are those of its best network, which it delivers; those of the others are from the epoch '
    'where they stopped.'
  )


def _words(metric: str) -> str:
  return metric.replace('_', ' ')


def _table_of_best(
  settings: Mapping[str, Any], measured: Sequence[Setting]
) -> tuple[list[str], list[list[str]]]:
  """Returns the header and the rows of a table of the best settings.

  Finished settings come first. With several objectives only the Pareto front is in the table.
  """
  if not measured:
    return [], []
  ranked = sorted(measured, key=lambda s: (not s.is_finished, *score(settings, s.metrics)))
  if len(settings['objectives']) > 1:
    ranked = front(settings, ranked) or ranked
  has_seeds = any(len(setting.trials) > 1 for setting in ranked)
  metrics, keys = list(ranked[0].metrics), list(ranked[0].values)
  header = ['trial', 'state', *(('n',) if has_seeds else ()), 'trained for, epochs']
  header += map(_words, metrics)
  header += [*(('constraints',) if settings['constraints'] else ()), *map(short_name, keys)]
  best = ranked[:MAX_ROWS]
  return header, [_row(settings, s, metrics, keys, has_seeds=has_seeds) for s in best]


def _row(
  settings: Mapping[str, Any],
  setting: Setting,
  metrics: Sequence[str],
  keys: Sequence[str],
  *,
  has_seeds: bool,
) -> list[str]:
  """Returns the cells of one setting: its trials, their metrics and its values of `keys`."""
  first = setting.trials[0]
  row = [', '.join(trial['directory'] for trial in setting.trials), first['state']]
  row += [str(len(setting.trials))] if has_seeds else []
  row.append(f'{first["epoch"]:g}')
  for name in metrics:
    values = [trial['metrics'].get(name, math.nan) for trial in setting.trials]
    row.append(cells.figure(name, values))
  row += [_constraint_cell(settings, setting.metrics)] if settings['constraints'] else []
  return row + [short_value(setting.values.get(key)) for key in keys]


def _constraint_cell(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
  """Returns a cell that names the broken constraints and by how much, or 'kept'."""
  above = zip(settings['constraints'], excesses(settings, metrics), strict=True)
  broken = [f'{_words(c["metric"])} {short_value(by)} above' for c, by in above if not by <= 0]
  return ', '.join(broken) or 'kept'
