"""The searches that runs belong to: their brackets, and which of their trials are best."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment.runs import short_name, short_value
from sparsejax.reports import trials
from sparsejax.reports.collect import Run
from sparsejax.search import layout
from sparsejax.search.brackets import Rung, brackets
from sparsejax.search.settings import score

BEST = 10  # rows of a search's table


class Search(NamedTuple):
  """A search and its runs.

  Attributes:
    title: what it is of.
    members: its runs by bracket; one without brackets has them all in the first.
    rungs: of each bracket.
    head: of a table of its best trials.
    rows: of it.
  """

  title: str
  members: Mapping[int, Sequence[Run]]
  rungs: Mapping[int, Sequence[Rung]]
  head: Sequence[str]
  rows: Sequence[Sequence[str]]


def of(runs: Sequence[Run]) -> list[Search]:
  """Returns the searches that some of the runs belong to, grids not among them."""
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
    if settings['sampler'] == 'grid':
      return None
    title = f'{KINDS[scheduler]} over {", ".join(settings["configs"])}'
    members: dict[int, list[Run]] = {}
    for run in runs:
      found = re.fullmatch(r'b(\d+)-\d+', run.path.name)
      if found and run.config and run.metrics:
        members.setdefault(int(found[1]), []).append(run)
    epochs = max((int(run.config['epochs']) for own in members.values() for run in own), default=0)
    schedule = brackets(epochs, eta) if scheduler == 'hyperband' and members else []
    head, rows = _best(settings, trials.by_directory(folder))
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return Search(title, members, dict(enumerate(schedule)), head, rows)


def _best(
  settings: Mapping[str, Any], of_search: Mapping[str, trials.Trial]
) -> tuple[list[str], list[list[str]]]:
  measured = [trial for trial in of_search.values() if trial['metrics']]
  if not measured:
    return [], []
  ranked = sorted(
    measured,
    key=lambda t: (t['state'] == trials.STOPPED, score(settings, t['metrics'])),
  )
  figures, values = list(ranked[0]['metrics']), list(ranked[0]['values'])
  head = ['trial', 'epochs', *(name.replace('_', ' ') for name in figures)]
  head += [short_name(key) for key in values]
  rows = [
    [
      trial['directory'],
      str(trial['epochs']),
      *(short_value(trial['metrics'][name]) for name in figures),
      *(short_value(trial['values'][key]) for key in values),
    ]
    for trial in ranked[:BEST]
  ]
  return head, rows
