"""Which runs belong to a search by Hyperband, and to which of its brackets."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparsejax.reports.collect import Run
from sparsejax.search.brackets import Rung, brackets


class Search(NamedTuple):
  """A search and its runs.

  Attributes:
    title: what it is of.
    members: the runs of each bracket.
    rungs: of each bracket.
  """

  title: str
  members: Mapping[int, Sequence[Run]]
  rungs: Mapping[int, Sequence[Rung]]


def of(runs: Sequence[Run]) -> list[Search]:
  """Returns the searches by synchronous brackets that some of the runs belong to."""
  by_folder: dict[pathlib.Path, list[Run]] = {}
  for run in runs:
    if (file := run.path.parent.parent / 'sweep.json').exists():
      by_folder.setdefault(file, []).append(run)
  return [search for file, own in by_folder.items() if (search := _search(file, own))]


def _search(file: pathlib.Path, runs: Sequence[Run]) -> Search | None:
  try:
    settings = json.loads(file.read_text())
    scheduler = settings['scheduler']
  except (ValueError, KeyError, TypeError):
    return None
  members: dict[int, list[Run]] = {}
  for run in runs:
    found = re.fullmatch(r'b(\d+)-\d+', run.path.name)
    if found and run.config and run.metrics:
      members.setdefault(int(found[1]), []).append(run)
  if scheduler.get('name') != 'hyperband' or not members:
    return None
  epochs = max(int(run.config['epochs']) for own in members.values() for run in own)
  try:
    schedule = brackets(epochs, scheduler['eta'])
  except (KeyError, TypeError, ValueError):
    return None
  configs = ', '.join(settings.get('configs', ()))
  return Search(f'Hyperband over {configs}', members, dict(enumerate(schedule)))
