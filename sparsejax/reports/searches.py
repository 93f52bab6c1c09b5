"""The searches that runs belong to: their brackets, and which of their trials are best."""

import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from sparsejax.experiment.runs import short_name, short_value
from sparsejax.reports import cells, trials
from sparsejax.reports.collect import Run
from sparsejax.reports.groups import moments
from sparsejax.search import layout, space
from sparsejax.search.brackets import Rung, brackets
from sparsejax.search.settings import excesses, score

MOST = 20  # rows of a search's table


class Search(NamedTuple):
  """A search and its runs.

  Attributes:
    title: which it is, and what it is of.
    goals: what its trials are compared by, in a sentence.
    members: the runs to draw by bracket: of a grid none, without brackets all in the first.
    rungs: of each bracket.
    head: of a table of its best trials.
    rows: of it.
    wrong: (name, state, problem) of trials that failed before they had a run directory, and of its
      own files.
  """

  title: str
  goals: str
  members: Mapping[int, Sequence[Run]]
  rungs: Mapping[int, Sequence[Rung]]
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  wrong: Sequence[tuple[str, str, str]]


def of(runs: Sequence[Run]) -> list[Search]:
  """Returns the searches that some of the runs belong to."""
  by_folder: dict[pathlib.Path, list[Run]] = {}
  for run in runs:
    if (folder := layout.search_of(run.path)) is not None:
      by_folder.setdefault(folder, []).append(run)
  return [_search(folder, own) for folder, own in by_folder.items()]


KINDS = {
  'hyperband': 'Hyperband',
  'optuna_hyperband': "Hyperband by Optuna's pruner",
  'none': 'search',
}


def _search(folder: pathlib.Path, runs: Sequence[Run]) -> Search:
  wrong: list[tuple[str, str, str]] = []
  try:
    of_search = trials.by_directory(folder)
  except ValueError as error:
    of_search = {}
    wrong.append((folder.name, 'broken', str(error)))
  try:
    settings = json.loads((folder / layout.SWEEP).read_text())
    scheduler, eta = settings['scheduler']['name'], settings['scheduler']['eta']
    is_grid = settings['sampler'] == 'grid'
    kind = 'grid' if is_grid else KINDS[scheduler]
    members = {} if is_grid else _by_bracket(runs)
    epochs = max((int(run.config['epochs']) for own in members.values() for run in own), default=0)
    schedule = brackets(epochs, eta) if scheduler == 'hyperband' and members else []
    head, rows = _best(settings, list(of_search.values()))
    goals, configs = _goals(settings), ', '.join(map(str, settings['configs']))
  except (OSError, ValueError, KeyError, TypeError) as error:
    wrong.append((folder.name, 'broken', f'{layout.SWEEP} can not be read: {error!r}'))
    return Search(f'{folder.name}: search', '', {}, {}, (), (), wrong)
  names = {run.path.name for run in runs}
  wrong += [
    (f'{folder.name}/{name}', 'failed', str(trial['error']))
    for name, trial in of_search.items()
    if trial['state'] == layout.FAILED and name not in names
  ]
  title = f'{folder.name}: {kind} over {configs}'
  return Search(title, goals, members, dict(enumerate(schedule)), head, rows, wrong)


def _by_bracket(runs: Sequence[Run]) -> dict[int, list[Run]]:
  members: dict[int, list[Run]] = {}
  for run in runs:
    found = re.fullmatch(r'b(\d+)-\d+', run.path.name)
    if found and run.config and run.metrics:
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
  return f'{which} {" and ".join(goals)}{under}; on validation images.'


def _words(metric: str) -> str:
  return metric.replace('_', ' ')


class Setting(NamedTuple):
  """What the search tried: one trial, or in a grid one of every seed.

  Attributes:
    trials: those that finished, or where none did all of them.
    metrics: their means.
  """

  trials: Sequence[trials.Trial]
  metrics: Mapping[str, float]

  @property
  def is_finished(self) -> bool:
    """Whether it was trained to its end."""
    return self.trials[0]['state'] == layout.FINISHED

  @property
  def values(self) -> dict[str, Any]:
    """Its parameters, less the seed."""
    return {key: value for key, value in self.trials[0]['values'].items() if key != space.SEED}


def _settings_tried(of_search: Sequence[trials.Trial]) -> list[Setting]:
  by_values: dict[str, list[trials.Trial]] = {}
  for trial in of_search:
    values = {key: value for key, value in trial['values'].items() if key != space.SEED}
    key = (
      json.dumps(values, sort_keys=True) if space.SEED in trial['values'] else trial['directory']
    )
    by_values.setdefault(key, []).append(trial)
  found = []
  for own in by_values.values():
    measured = [trial for trial in own if trial['metrics']]
    shown = [trial for trial in measured if trial['state'] == layout.FINISHED] or measured
    if shown:
      names = [name for name in shown[0]['metrics'] if all(name in t['metrics'] for t in shown)]
      means = {name: moments([t['metrics'][name] for t in shown])[0] for name in names}
      found.append(Setting(shown, means))
  return found


def _best(
  settings: Mapping[str, Any], of_search: Sequence[trials.Trial]
) -> tuple[list[str], list[list[str]]]:
  """A table of the best settings: finished ones first, of several objectives the front."""
  tried = _settings_tried(of_search)
  if not tried:
    return [], []
  ranked = sorted(tried, key=lambda s: (not s.is_finished, *score(settings, s.metrics)))
  if len(settings['objectives']) > 1:
    ranked = _front(settings, ranked) or ranked
  has_seeds = any(len(setting.trials) > 1 for setting in ranked)
  figures, keys = list(ranked[0].metrics), list(ranked[0].values)
  head = ['trial', 'state', *(('n',) if has_seeds else ()), 'epochs', *map(_words, figures)]
  head += [*(('constraints',) if settings['constraints'] else ()), *map(short_name, keys)]
  return head, [_row(settings, s, figures, keys, has_seeds=has_seeds) for s in ranked[:MOST]]


def _row(settings, setting: Setting, figures, keys, *, has_seeds: bool) -> list[str]:
  first = setting.trials[0]
  row = [', '.join(trial['directory'] for trial in setting.trials), first['state']]
  row += [str(len(setting.trials))] if has_seeds else []
  row.append(f'{first["epoch"]:g}')
  row += [cells.figure(f, [t['metrics'].get(f, math.nan) for t in setting.trials]) for f in figures]
  row += [_kept(settings, setting.metrics)] if settings['constraints'] else []
  return row + [short_value(setting.values.get(key)) for key in keys]


def _kept(settings: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
  """Which constraints are broken and by how much."""
  above = zip(settings['constraints'], excesses(settings, metrics), strict=True)
  broken = [f'{_words(c["metric"])} {short_value(by)} above' for c, by in above if not by <= 0]
  return ', '.join(broken) or 'kept'


def _front(settings: Mapping[str, Any], ranked: Sequence[Setting]) -> list[Setting]:
  """Of the finished settings that break no constraint those that none beats in every objective."""
  goals = settings['objectives']
  study = optuna.create_study(directions=[goal['direction'] for goal in goals])
  able = [s for s in ranked if s.is_finished and score(settings, s.metrics)[0] == 0]
  for setting in able:
    values = [setting.metrics[goal['metric']] for goal in goals]
    study.add_trial(optuna.trial.create_trial(values=values))
  return [able[best.number] for best in study.best_trials]
