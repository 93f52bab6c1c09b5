"""Every field of every config, with values that it can't have: by flag, in a file, and from Python.

python tests/fuzz/every_field.py [--seed=0] [--share=1.0] [--configs=quickstart,...]

A value is of another type, out of range, nan, inf or empty. Whatever a config's check and its
builder refuse must be refused in one line that names the field; whatever they take must be a value
that the field's definition has, and be there as it was given. Nothing is trained. Prints the counts
and every wrong case. Exit status: 0 when there was none, 1 when there was one.
"""

import argparse
import collections
import os
import pathlib
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What is of another type than any number, flag or text; and what of each is out of its range.
VALUES: dict[str, Any] = {
  'None': None,
  'nan': float('nan'),
  'inf': float('inf'),
  '-inf': float('-inf'),
  'empty text': '',
  'empty tuple': (),
  'empty dict': {},
  'a text': 'nope',
  'a list': ['nope'],
  'a set': {1},
  'a dict': {'nope': 1},
  'bytes': b'nope',
  'True': True,
  '-1': -1,
  '-0.5': -0.5,
  '1.5': 1.5,
  '10**40': 10**40,
  '1e39': 1e39,
}
WAYS = ('flag', 'file', 'Python')


class Case(NamedTuple):
  """One value for one field.

  Attributes:
    config: its path.
    field: dotted.
    value: a key of `VALUES`.
    way: one of `WAYS`.
  """

  config: str
  field: str
  value: str
  way: str


def configs() -> list[str]:
  """Returns the path of every config, with each network that it may have."""
  import golden

  return [f'configs/{name}.py' for name in golden.names()]


def fields_of(config: str) -> list[str]:
  """Returns the dotted names of a config's fields and blocks."""
  from sparsejax.experiment.config import loading

  def walk(block, prefix):
    for key, value in block.items():
      yield f'{prefix}{key}'
      if isinstance(value, dict):
        yield from walk(value, f'{prefix}{key}.')

  return list(walk(loading.load(config).to_dict(), ''))


def cases(seed: int, share: float, chosen: Sequence[str]) -> Iterator[Case]:
  """Yields every case of some configs, or a share of them; a seed draws the same ones."""
  chance = random.Random(seed)
  for config in chosen:
    for field in fields_of(config):
      for value in VALUES:
        for way in WAYS:
          if chance.random() < share:
            yield Case(config, field, value, way)


def settings_of(case: Case, folder: pathlib.Path) -> dict[str, Any]:
  """Returns what the settings of a case resolve to.

  Raises:
    UsageError: they can't be.
  """
  from sparsejax.experiment.config import commandline, loading

  value = VALUES[case.value]
  if case.way == 'flag':
    return commandline.resolve([f'--config={case.config}', f'--config.{case.field}={value}'])
  if case.way == 'file':
    file = folder / 'mine.py'
    file.write_text(FILE.format(config=case.config, field=case.field, value=case.value))
    return commandline.resolve([f'--config={file}'])
  settings = loading.load(case.config).to_dict()
  put(settings, case.field, value)
  return commandline.checked(settings)


FILE = """
import every_field
from ml_collections import ConfigDict
from sparsejax.experiment.config import loading


def get_config():
  settings = loading.load('{config}').to_dict()
  every_field.put(settings, '{field}', every_field.VALUES['{value}'])
  return ConfigDict(settings)
"""


def put(settings: dict[str, Any], field: str, value: Any) -> None:
  """Sets a field of nested settings, in place."""
  *blocks, key = field.split('.')
  for block in blocks:
    settings = settings[block]
  settings[key] = value


def judged(case: Case, folder: pathlib.Path, build) -> tuple[str, str]:
  """Gives a value to its field; returns 'refused', 'taken' or 'wrong', and what was said.

  Args:
    case: to try.
    folder: for its file.
    build: of the settings, which may refuse them too; None checks them alone.
  """
  from sparsejax.experiment.terminal.errors import UsageError

  try:
    settings = settings_of(case, folder)
  except UsageError as error:
    return _told(case, str(error))
  except Exception as error:
    return 'wrong', f'{type(error).__name__}: {error}'
  if wrong := _is_not_what_was_given(case, settings):
    return 'wrong', wrong
  try:
    if build is not None:
      build(settings)
  except ValueError as error:  # of a field beside it too: a cut after the end of the run
    return _told(case, str(error), beside=settings)
  except Exception as error:
    return 'wrong', f'{type(error).__name__}: {error}'
  return 'taken', ''


def _told(case: Case, line: str, beside: Iterable[str] = ()) -> tuple[str, str]:
  """Whether a refusal is one line that names the field, its block, or one of those beside it."""
  parts = case.field.split('.')
  stems = [part.removesuffix('_epochs').removesuffix('_steps') for part in (parts[0], parts[-1])]
  if '\n' in line or not line.isprintable():
    return 'wrong', f'not one line: {line!r}'
  return ('refused', line) if any(stem in line for stem in (*stems, *beside)) else ('wrong', line)


def _is_not_what_was_given(case: Case, settings: dict[str, Any]) -> str:
  """What is wrong with the value of a field that took one, '' where nothing is."""
  from sparsejax.experiment.config import fields
  from sparsejax.experiment.config.setting_kinds import WrongError

  name, _, key = case.field.partition('.')
  table = fields.FIELDS.get(name) or fields.BLOCKS.get(name)
  field = table if not key else fields.find(table, key) if isinstance(table, dict) else None
  held: Any = settings
  for part in case.field.split('.'):
    held = held[part]
  value = VALUES[case.value]
  if case.field == 'name' and value == '':  # which the file's own name then is
    return ''
  if case.way != 'flag' and held != value and not isinstance(value, tuple | list | dict):
    return f'it was given {value!r} and is {held!r}'
  if isinstance(field, fields.Field):
    try:
      field.kind.convert(held)
    except WrongError as error:
      return f'it is {held!r} and must be {error}'
  return ''


def tried(
  seed: int, share: float, chosen: Sequence[str], folder: pathlib.Path, *, with_build: bool = True
) -> Iterator[tuple[Case, str, str]]:
  """Yields each case, what came of it, and what was said.

  Args:
    seed: of the share.
    share: of all cases.
    chosen: configs.
    folder: for files, empty.
    with_build: builds what the check takes, where the config's data are embedded.
  """
  from sparsejax.experiment.training import setup

  for case in cases(seed, share, chosen):
    is_embedded = 'quickstart' in case.config
    build = setup.build if with_build and is_embedded and case.way == 'Python' else None
    yield case, *judged(case, folder, build)


def main() -> int:
  """Runs the program; returns its exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--share', type=float, default=1.0)
  parser.add_argument('--configs', default='')
  arguments = parser.parse_args()
  sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'helpers')]
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  os.chdir(ROOT)
  chosen = [name for name in configs() if arguments.configs in name]
  counts: collections.Counter = collections.Counter()
  with tempfile.TemporaryDirectory() as folder:
    for case, came, said in tried(arguments.seed, arguments.share, chosen, pathlib.Path(folder)):
      counts[came] += 1
      counts[f'{came}, {case.way}'] += 1
      if came == 'wrong':
        print(*case, '|', said[:300], flush=True)
  print(dict(sorted(counts.items())))
  return int(counts['wrong'] > 0)


if __name__ == '__main__':
  sys.exit(main())
