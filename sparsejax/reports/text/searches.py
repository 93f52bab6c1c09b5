"""The searches that runs belong to: their brackets, and their best trials."""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment.config.identity import short_name, short_value
from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records import reading
from sparsejax.reports.records.collect import Run, unique_names
from sparsejax.reports.records.tried import Setting, front, tried
from sparsejax.reports.text import cells
from sparsejax.search import layout
from sparsejax.search.plan.brackets import Rung, brackets
from sparsejax.search.plan.settings import excesses, score

MOST = 20  # rows in the table of a search


class Search(NamedTuple):
  """A search and its runs.

  Attributes:
    title: its name, kind and configs.
    goals: the objectives that its trials are compared by, in a sentence.
    settings: its settings; {} if they cannot be read.
    tried: the settings that it has measured.
    members: the runs to draw by bracket: none for a grid, all in the first without brackets.
    rungs: the rungs of each bracket.
    head: the head of the table of its best trials.
    rows: the rows of that table.
    wrong: (name, state, problem) of its own files, and of trials that failed before they had a run
      directory.
  """

  title: str
  goals: str
  settings: Mapping[str, Any]
  tried: Sequence[Setting]
  members: Mapping[int, Sequence[Run]]
  rungs: Mapping[int, Sequence[Rung]]
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  wrong: Sequence[tuple[str, str, str]]


def find_searches(runs: Sequence[Run]) -> list[Search]:
  """Returns the searches that some of the runs belong to."""
  by_folder: dict[pathlib.Path, list[Run]] = {}
  for run in runs:
    if (folder := layout.find_search(run.path)) is not None:
      by_folder.setdefault(folder, []).append(run)
  names = map(printable, unique_names(list(by_folder)))
  found = zip(by_folder.items(), names, strict=True)
  return [_search(folder, name, own) for (folder, own), name in found]


KINDS = {
  'hyperband': 'Hyperband',
  'optuna_hyperband': "Hyperband by Optuna's pruner",
  'none': 'search',
}


def _search(folder: pathlib.Path, name: str, runs: Sequence[Run]) -> Search:
  read = runs[0].search
  assert read is not None  # `find_searches` takes the runs that a search has
  trials, problem = read
  wrong = [(name, 'broken', problem)] if problem else []
  try:
    settings = reading.read(folder / layout.SWEEP)
    scheduler, eta = settings['scheduler']['name'], settings['scheduler']['eta']
    is_grid = settings['sampler'] == 'grid'
    kind = 'grid' if is_grid else KINDS[scheduler]
    members = {} if is_grid else _by_bracket(runs)
    epochs = max((int(run.config['epochs']) for own in members.values() for run in own), default=0)
    schedule = brackets(epochs, eta) if scheduler == 'hyperband' and members else []
    found = tried(list(trials.values()))
    head, rows = _best(settings, found)
    goals, configs = _goals(settings), ', '.join(map(str, settings['configs']))
  except Exception as error:  # the file may hold anything, and most of its fields are used here
    wrong.append((name, 'broken', f'{layout.SWEEP} cannot be read: {printable(repr(error))}'))
    return Search(f'{name}: search', '', {}, (), {}, {}, (), (), wrong)
  known = {run.path.name for run in runs}
  wrong += [
    (f'{name}/{trial["directory"]}', 'failed', str(trial['error']))
    for trial in trials.values()
    if trial['state'] == layout.FAILED and trial['directory'] not in known
  ]
  title, rungs = f'{name}: {kind} over {configs}', dict(enumerate(schedule))
  return Search(title, goals, settings, found, members, rungs, head, rows, wrong)


def _by_bracket(runs: Sequence[Run]) -> dict[int, list[Run]]:
  members: dict[int, list[Run]] = {}
  for run in runs:
    found = re.fullmatch(r'b(\d+)-\d+', run.path.name)
    if found and run.config and run.metrics.last:
      members.setdefault(int(found[1]), []).append(run)
  return members


def _goals(settings: Mapping[str, Any]) -> str:
  least = {'minimize': 'least', 'maximize': 'largest'}
  goals = [
    f'{least[goal["direction"]]} {_words(goal["metric"])}' for goal in settings['objectives']
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


def _best(
  settings: Mapping[str, Any], found: Sequence[Setting]
) -> tuple[list[str], list[list[str]]]:
  """A table of the best settings, finished ones first; with several objectives, the front."""
  if not found:
    return [], []
  ranked = sorted(found, key=lambda s: (not s.is_finished, *score(settings, s.metrics)))
  if len(settings['objectives']) > 1:
    ranked = front(settings, ranked) or ranked
  has_seeds = any(len(setting.trials) > 1 for setting in ranked)
  figures, keys = list(ranked[0].metrics), list(ranked[0].values)
  head = ['trial', 'state', *(('n',) if has_seeds else ()), 'trained for, epochs']
  head += map(_words, figures)
  head += [*(('constraints',) if settings['constraints'] else ()), *map(short_name, keys)]
  return head, [_row(settings, s, figures, keys, has_seeds=has_seeds) for s in ranked[:MOST]]


def _row(settings, setting: Setting, figures, keys, *, has_seeds: bool) -> list[str]:
  first = setting.trials[0]
  row = [', '.join(trial['directory'] for trial in setting.trials), first['state']]
  row += [str(len(setting.trials))] if has_seeds else []
  row.append(f'{first["epoch"]:g}')
  row += [cells.figure(f, [t['metrics'].get(f, math.nan) for t in setting.trials]) for f in figures]
  row += [_constraint_cell(settings, setting.metrics)] if settings['constraints'] else []
  return row + [short_value(setting.values.get(key)) for key in keys]


def _constraint_cell(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
  """Returns a cell that names the broken constraints and by how much, or 'kept'."""
  above = zip(settings['constraints'], excesses(settings, metrics), strict=True)
  broken = [f'{_words(c["metric"])} {short_value(by)} above' for c, by in above if not by <= 0]
  return ', '.join(broken) or 'kept'
