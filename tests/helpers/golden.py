"""What every config resolves to and is called by, kept beside the tests.

PYTHONPATH=. python tests/helpers/golden.py    writes both files anew

A run's directory is named after its hash: under another one it would be trained again.
"""

import importlib
import inspect
import json
import pathlib
from typing import get_args

from sparsejax.experiment.config import base, commandline, identity
from tools import ROOT, running
from tools.pages import pages

HERE = pathlib.Path(__file__).resolve().parent
CONFIGS, HASHES = HERE / 'golden_configs.json', HERE / 'golden_hashes.json'


def names() -> list[str]:
  """Every config by name: NAME of NAME.py, NETWORK_METHOD for each network of METHOD.py."""
  found = []
  for file in sorted((ROOT / 'configs').glob('*.py')):
    get_config = importlib.import_module(f'configs.{file.stem}').get_config
    first = next(iter(inspect.signature(get_config).parameters.values()), None)
    needed = first is not None and first.default is inspect.Parameter.empty
    networks = [f'{network}_' for network in get_args(first.annotation)] if needed else ['']
    found += [f'{network}{file.stem}' for network in networks]
  return sorted(found)


def resolve(name: str, *argument: str) -> dict:
  """The settings of a config by name, with an argument or without."""
  return commandline.resolve([f'--config=configs/{":".join((f"{name}.py", *argument))}'])


def hash_of(settings: dict) -> str:
  return identity.hash8(settings, base.defaults(settings), base.VERSION)


def configs() -> dict[str, dict]:
  """By name what a config sets differently from the defaults of its chain, by dotted name."""
  return {name: _differences(resolve(name)) for name in names()}


def _differences(settings: dict) -> dict:
  flat, default = (
    json.loads(json.dumps(identity.flatten(one))) for one in (settings, base.defaults(settings))
  )
  kept = ('chain', 'events')
  return {k: v for k, v in flat.items() if k in kept or k not in default or v != default[k]}


def hashes() -> dict[str, str]:
  """The hash of every config, and of every row of the pages of results."""
  found = {name: hash_of(resolve(name)) for name in names()}
  for page, content in pages.PAGES.items():
    for entry in content.entries:
      if entry.config:
        _, *flags = running.command_of(entry, 0, pathlib.Path('runs'), None)
        asked = [f for f in flags if f.startswith('--config') and 'init_from' not in f]
        found[f'{page}/{entry.label}'] = hash_of(commandline.resolve(asked))
  return found


def _lines(values: dict) -> str:
  """A setting a line."""
  return ',\n'.join(f'  {json.dumps(name)}: {json.dumps(values[name])}' for name in sorted(values))


if __name__ == '__main__':
  blocks = [f' "{name}": {{\n{_lines(values)}\n }}' for name, values in configs().items()]
  CONFIGS.write_text('{\n' + ',\n'.join(blocks) + '\n}\n')
  HASHES.write_text(json.dumps(hashes(), indent=1, sort_keys=True) + '\n')
