"""The searches that runs belong to: their brackets, and which of their trials are best."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from sparsejax.experiment.runs import short_name, short_value
from sparsejax.reports import trials
from sparsejax.reports.collect import Run
from sparsejax.search import layout
from sparsejax.search.brackets import Rung, brackets
from sparsejax.search.settings import score

BEST = 20  # rows of a search's table


class Search(NamedTuple):
  """A search and its runs.

  Attributes:
    title: what it is of.
    members: the runs to draw by bracket: of a grid none, without brackets all in the first.
    rungs: of each bracket.
    head: of a table of its best trials.
    rows: of it.
    without_run: (trial, error) of those that failed before they had a run directory.
  """

  title: str
  members: Mapping[int, Sequence[Run]]
  rungs: Mapping[int, Sequence[Rung]]
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  without_run: Sequence[tuple[str, str]]


def of(runs: Sequence[Run]) -> list[Search]:
  """Returns the searches that some of the runs belong to."""
  by_folder: dict[pathlib.Path, list[Run]] = {}
  for run in runs:
    if (folder := layout.search_of(run.path)) is not None:
      by_folder.setdefault(folder, []).append(run)
  return [search for folder, own in by_folder.items() if (search := _search(folder, own))]


KINDS = {
  'hyperband': 'Hyperband',
  'optuna_hyperband': "Hyperband by Optuna's pruner",
  'none': 'Search',
}


def _search(folder: pathlib.Path, runs: Sequence[Run]) -> Search | None:
  try:
    settings = json.loads((folder / layout.SWEEP).read_text())
    scheduler, eta = settings['scheduler']['name'], settings['scheduler']['eta']
    is_grid = settings['sampler'] == 'grid'
    kind = 'Grid' if is_grid else KINDS[scheduler]
    members = {} if is_grid else _by_bracket(runs)
    epochs = max((int(run.config['epochs']) for own in members.values() for run in own), default=0)
    schedule = brackets(epochs, eta) if scheduler == 'hyperband' and members else []
    of_search = trials.by_directory(folder)
    head, rows = _best(settings, list(of_search.values()))
    names = {run.path.name for run in runs}
  except (OSError, ValueError, KeyError, TypeError):
    return None
  without_run = [
    (f'{folder.name}/{name}', str(trial['error']))
    for name, trial in of_search.items()
    if trial['state'] == layout.FAILED and name not in names
  ]
  title = f'{kind} over {", ".join(map(str, settings["configs"]))}'
  return Search(title, members, dict(enumerate(schedule)), head, rows, without_run)


def _by_bracket(runs: Sequence[Run]) -> dict[int, list[Run]]:
  members: dict[int, list[Run]] = {}
  for run in runs:
    found = re.fullmatch(r'b(\d+)-\d+', run.path.name)
    if found and run.config and run.metrics:
      members.setdefault(int(found[1]), []).append(run)
  return members


def _best(
  settings: Mapping[str, Any], of_search: Sequence[trials.Trial]
) -> tuple[list[str], list[list[str]]]:
  """A table of the best trials: finished ones first, of several objectives the front."""
  measured = [trial for trial in of_search if trial['metrics']]
  if not measured:
    return [], []
  ranked = sorted(measured, key=lambda t: (t['state'] != layout.FINISHED, *_score(settings, t)))
  if len(settings['objectives']) > 1:
    ranked = _front(settings, ranked) or ranked
  figures, values = list(ranked[0]['metrics']), list(ranked[0]['values'])
  head = ['trial', 'epochs', *(name.replace('_', ' ') for name in figures)]
  head += [short_name(key) for key in values]
  rows = [
    [
      trial['directory'] + (', breaks a constraint' if _score(settings, trial)[0] == 1 else ''),
      f'{trial["epoch"]:g}',
      *(short_value(trial['metrics'][name]) for name in figures),
      *(short_value(trial['values'][key]) for key in values),
    ]
    for trial in ranked[:BEST]
  ]
  return head, rows


def _score(settings: Mapping[str, Any], trial: trials.Trial) -> tuple[int, float]:
  return score(settings, trial['metrics'])


def _front(settings: Mapping[str, Any], ranked: Sequence[trials.Trial]) -> list[trials.Trial]:
  """Of the finished trials that break no constraint those that none beats in every objective."""
  goals = settings['objectives']
  study = optuna.create_study(directions=[goal['direction'] for goal in goals])
  able = [t for t in ranked if t['state'] == layout.FINISHED and _score(settings, t)[0] == 0]
  for trial in able:
    values = [trial['metrics'][goal['metric']] for goal in goals]
    study.add_trial(optuna.trial.create_trial(values=values))
  return [able[best.number] for best in study.best_trials]
