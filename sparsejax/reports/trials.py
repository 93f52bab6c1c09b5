"""How the trials of a search stand, as the search left it beside its runs."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from sparsejax.search import layout

STOPPED, WAITING = 'stopped', 'waiting'
Trial = Mapping[str, Any]


def by_directory(search: pathlib.Path) -> dict[str, Trial]:
  """Returns of each run directory's name the trial that got furthest; {} where none can be read."""
  found: dict[str, Trial] = {}
  try:
    for trial in json.loads((search / layout.TRIALS).read_text()):
      known = found.setdefault(str(trial['directory']), trial)
      if trial['epochs'] > known['epochs'] and trial['state'] != WAITING:
        found[trial['directory']] = trial
  except (OSError, ValueError, TypeError, KeyError):
    return {}
  return found
