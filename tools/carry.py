"""Gives settings of runs from before version 3 their current names.

python -m tools.carry FOLDER [FOLDER ...]

The hash of a kept run is unchanged, since it named the run under the settings' version at that
time. Collected runs pass through `carried` too, so that runs started under the old names are read
under the new ones.
"""

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.config.setting_kinds import FORMER

VALUES = ('granularity', 'schedule')  # the settings whose values have other names too


def carried(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of a run under their current names.

  Example:
    >>> carried({'prune': {'allocation': 'absolute_threshold', 'target': 0.02}, 'lobs': {}})
    {'prune': {'allocation': 'absolute_threshold', 'threshold': 0.02}, 'lobs': {}}
    >>> carried({'prune': {'granularity': 'n_of_m', 'target': 0.5, 'm': 4}})
    {'prune': {'granularity': 'n_m', 'density': 0.5, 'm': 4, 'n': 2}}
  """
  blocks = {'prune': _prune, 'lobs': _named}
  return {
    name: blocks[name](value) if name in blocks and isinstance(value, Mapping) else value
    for name, value in config.items()
  }


def _named(block: Mapping[str, Any]) -> dict[str, Any]:
  return {FORMER.get(name, name): value for name, value in block.items()}


def _prune(block: Mapping[str, Any]) -> dict[str, Any]:
  found = _named(block)
  for name in VALUES:
    if name in found:
      found[name] = FORMER.get(found[name], found[name])
  if 'target' in block and found.get('allocation') == 'absolute_threshold':
    found = {'threshold' if name == 'density' else name: v for name, v in found.items()}
  if 'target' in block and found.get('granularity') == 'n_m':
    found['n'] = round(block['target'] * block['m'])
  return found


def main() -> None:
  """Renames the settings in every config.json below the folders."""
  for folder in sys.argv[1:]:
    for file in sorted(pathlib.Path(folder).rglob('config.json')):
      before = json.loads(file.read_text())
      if (now := carried(before)) != before:
        file.write_text(json.dumps(now, indent=2) + '\n')


if __name__ == '__main__':
  main()
