"""How the trials of a search stand, as the search left it beside its runs."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records import reading
from sparsejax.reports.records.shapes import is_figure
from sparsejax.search import layout

Trial = Mapping[str, Any]


class Trials(NamedTuple):
  """The trials of a search.

  Attributes:
    by_directory: of each run directory's name the last of its trials; {} where none has ended.
    problem: that they can't be read, and why; '' where they can.
  """

  by_directory: Mapping[str, Trial]
  problem: str = ''


def read(search: pathlib.Path) -> Trials:
  """Returns the trials of the search in a folder."""
  try:
    found = [_checked(trial) for trial in reading.read(search / layout.TRIALS)]
  except FileNotFoundError:
    return Trials({})
  except (ValueError, TypeError, KeyError) as error:
    return Trials({}, f'{layout.TRIALS} cannot be read: {printable(error)}')
  # A place in a later rung has no directory before somebody goes on to it.
  placed = [trial for trial in found if trial['directory'] is not None]
  return Trials({t['directory']: t for t in sorted(placed, key=lambda trial: trial['rung'])})


def _checked(trial: Any) -> Trial:
  metrics = {} if trial['metrics'] is None else trial['metrics']
  if not isinstance(metrics, Mapping) or not all(
    map(is_figure, (trial['epoch'], trial['rung'], *metrics.values()))
  ):
    raise ValueError(f'a trial of {trial["directory"]} whose figures are no numbers')
  if not isinstance(trial['directory'], str | None) or not isinstance(trial['values'], Mapping):
    raise ValueError('a trial without a directory or values')
  if not isinstance(trial['state'], str):
    raise ValueError(f'a trial of {trial["directory"]} without a state')
  return {key: trial[key] for key in KEYS}


KEYS = ('directory', 'rung', 'epoch', 'state', 'values', 'metrics', 'error')
