"""The states of a search's trials, as the search wrote them beside its runs."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records import reading
from sparsejax.reports.records.record_checks import is_figure
from sparsejax.search import search_folder

Trial = Mapping[str, Any]


class Trials(NamedTuple):
  """The trials of a search.

  Attributes:
    by_directory: the last trial of each run directory, by its name; {} if none has ended.
    problem: why they cannot be read; '' if they can.
  """

  by_directory: Mapping[str, Trial]
  problem: str = ''


def read(search: pathlib.Path) -> Trials:
  """Returns the trials of the search in a folder."""
  try:
    found = [_checked(trial) for trial in reading.read(search / search_folder.TRIALS)]
  except FileNotFoundError:
    return Trials({})
  except (ValueError, TypeError, KeyError) as error:
    return Trials({}, f'{search_folder.TRIALS} cannot be read: {printable(error)}')
  # A place in a later rung has no directory until a trial goes on to it.
  placed = [trial for trial in found if trial['directory'] is not None]
  return Trials({t['directory']: t for t in sorted(placed, key=lambda trial: trial['rung'])})


def _checked(trial: Any) -> Trial:
  metrics = {} if trial['metrics'] is None else trial['metrics']
  if not isinstance(metrics, Mapping) or not all(
    map(is_figure, (trial['epoch'], trial['rung'], *metrics.values()))
  ):
    raise ValueError(f'a trial of {trial["directory"]} has figures that are not numbers')
  if not isinstance(trial['directory'], str | None) or not isinstance(trial['values'], Mapping):
    raise ValueError('a trial has no directory or no values')
  if not isinstance(trial['state'], str):
    raise ValueError(f'a trial of {trial["directory"]} has no state')
  return {key: trial[key] for key in KEYS}


KEYS = ('directory', 'rung', 'epoch', 'state', 'values', 'metrics', 'error')
