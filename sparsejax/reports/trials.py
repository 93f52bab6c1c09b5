"""How the trials of a search stand, as the search left it beside its runs."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.rates import is_number
from sparsejax.search import layout

Trial = Mapping[str, Any]


def by_directory(search: pathlib.Path) -> dict[str, Trial]:
  """Returns of each run directory's name the last of its trials; {} where none has ended.

  Raises:
    ValueError: the file, and that it can't be read.
  """
  try:
    read = json.loads((search / layout.TRIALS).read_text())
    found = [_checked(trial) for trial in read]
  except FileNotFoundError:
    return {}
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise ValueError(f'{layout.TRIALS} can not be read: {" ".join(str(error).split())}') from None
  # A place in a later rung has no directory before somebody goes on to it.
  placed = [trial for trial in found if trial['directory'] is not None]
  return {t['directory']: t for t in sorted(placed, key=lambda trial: trial['rung'])}


def _checked(trial: Any) -> Trial:
  metrics = trial['metrics'] or {}
  if not all(is_number(number) for number in (trial['epoch'], trial['rung'], *metrics.values())):
    raise ValueError(f'a trial of {trial["directory"]} whose figures are no numbers')
  if not isinstance(trial['directory'], str | None) or not isinstance(trial['values'], Mapping):
    raise ValueError('a trial without a directory or values')
  return {key: trial[key] for key in KEYS}


KEYS = ('directory', 'rung', 'epoch', 'state', 'values', 'metrics', 'error')
