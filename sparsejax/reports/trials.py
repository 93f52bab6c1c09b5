"""How the trials of a search stand, as the search left it beside its runs."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.config.kinds import is_number
from sparsejax.experiment.errors import in_one_line
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
    found = [_checked(trial) for trial in json.loads((search / layout.TRIALS).read_text())]
  except FileNotFoundError:
    return Trials({})
  except (OSError, ValueError, TypeError, KeyError) as error:
    return Trials({}, f'{layout.TRIALS} can not be read: {in_one_line(error)}')
  # A place in a later rung has no directory before somebody goes on to it.
  placed = [trial for trial in found if trial['directory'] is not None]
  return Trials({t['directory']: t for t in sorted(placed, key=lambda trial: trial['rung'])})


def _checked(trial: Any) -> Trial:
  metrics = trial['metrics'] or {}
  if not all(is_number(number) for number in (trial['epoch'], trial['rung'], *metrics.values())):
    raise ValueError(f'a trial of {trial["directory"]} whose figures are no numbers')
  if not isinstance(trial['directory'], str | None) or not isinstance(trial['values'], Mapping):
    raise ValueError('a trial without a directory or values')
  return {key: trial[key] for key in KEYS}


KEYS = ('directory', 'rung', 'epoch', 'state', 'values', 'metrics', 'error')
