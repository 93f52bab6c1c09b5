"""One worker of a search; `python -m sparsejax.sweep` starts it.

python -m sparsejax.sweep_worker FOLDER NAME

The URL of its study is in the environment variable SPARSEJAX_STUDY.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparsejax.experiment import command
from sparsejax.experiment.terminal.errors import TerminatedError, in_one_line
from sparsejax.experiment.terminal.say import complain
from sparsejax.search import search_folder

URL = 'SPARSEJAX_STUDY'


def resolver(overrides: Sequence[str]) -> Callable[[str], dict[str, Any]]:
  """Returns a function from 'configs/NAME.py:ARGUMENT' to that config's resolved settings.

  Args:
    overrides: strings 'field=value' for every config.

  Raises:
    ValueError: a string is not an override.
  """
  from sparsejax.search.plan import field_checks

  return functools.cache(functools.partial(_resolve, field_checks.check_overrides(overrides)))


def _resolve(changes: Mapping[str, str], config: str) -> dict[str, Any]:
  from sparsejax.experiment.config import commandline, overrides

  if not isinstance(config, str) or not config:
    raise ValueError(f'configs: {config!r} must be a config file, NAME.py[:ARGUMENT]')
  try:
    arguments = overrides.ConfigArguments(config, changes, ())
    # Other varied settings may read what nothing in this config reads.
    return commandline.resolve_arguments(arguments, all_read=False)
  except ValueError as error:
    raise ValueError(f'configs: {config}: {error}') from None


def defaults(settings: dict[str, Any]) -> tuple[dict[str, Any], int]:
  """Returns the defaults that a run's directory is named after, and their version."""
  from sparsejax.experiment.config import base

  return base.defaults(settings), base.VERSION


def main() -> None:
  """Runs the command."""
  # These imports are slow, and the command, which imports this module, refuses mistakes first.
  from sparsejax.search.plan import settings
  from sparsejax.search.storage import identity, open_storage
  from sparsejax.search.study import Study
  from sparsejax.search.worker import Worker, is_disk_error

  parser = argparse.ArgumentParser()
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('name')
  arguments = parser.parse_args()
  command.set_up_process()
  search = json.loads((arguments.folder / search_folder.SWEEP).read_text())
  resolve = resolver(search['overrides'])
  sweep = settings.check(search, resolve)
  url = os.environ.get(URL)
  storage = open_storage(url, arguments.folder)
  study = Study(sweep, storage, arguments.name, identity(arguments.folder, url))
  try:
    Worker(study, arguments.folder, resolve, defaults).run()
  except TerminatedError as error:
    sys.exit(128 + error.signal)
  except Exception as error:
    if not is_disk_error(error):
      raise
    complain(f'sweep: {in_one_line(error)}')
    sys.exit(search_folder.DISK_FAILED)


def _command(argv: Sequence[str]) -> int:
  del argv  # argparse reads it by itself
  main()
  return 0


if __name__ == '__main__':
  sys.exit(command.guarded(_command, sys.argv))
