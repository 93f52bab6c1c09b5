"""Searches over the settings of a config.

python -m sparsejax.sweep --config=configs/sweeps/NAME.py --workdir=DIR [--study=URL] [--workers=N]

Every trial is an ordinary run in an ordinary run directory below DIR/runs. The study is in DIR,
or in any database that Optuna supports: --study=URL, or the environment variable SPARSEJAX_STUDY,
which other users of the machine do not see. The same command resumes a search that was stopped;
started on other machines that share DIR, it joins the search. The fields are in
sparsejax/search/plan/base.py; `--config.FIELD=VALUE` sets one.

Exit status: 0 finished, 2 if this cannot be run as asked, 143 after SIGTERM, 130 after SIGINT,
129 after SIGHUP (the workers save first), 1 otherwise.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import signal
import sys
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsejax.experiment import command
from sparsejax.experiment.config.check import unknown
from sparsejax.experiment.config.identity import get_by_path
from sparsejax.experiment.config.setting_kinds import literal
from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.arguments import Parser, folder
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import complain, shown
from sparsejax.search import search_folder

if TYPE_CHECKING:
  from sparsejax.experiment.config import overrides

KINDS = {tuple: 'a tuple', int: 'an integer', str: 'a string'}  # the types of a search's fields


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  return command.run(
    'sweep',
    argv,
    text=lambda: __doc__,
    read=parse,
    act=_search,
    folder=lambda asked: asked[1].workdir,
    refusal=ValueError,
  )


def _search(asked: tuple[dict[str, Any], argparse.Namespace]) -> int:
  settings, flags = asked
  study = dict(url=flags.study, name=flags.name, workers=flags.workers)
  return search(settings, flags.workdir, **study)


def parse(argv: Sequence[str]) -> tuple[dict[str, Any], argparse.Namespace]:
  """Returns the settings of the search and the command's own flags.

  Raises:
    ValueError: a setting is missing, unknown or impossible, or the config cannot be loaded.
  """
  from sparsejax.experiment.config import overrides

  arguments = overrides.parse_config_flags(argv)
  parser = Parser(prog='sweep', add_help=False, allow_abbrev=False)
  for name in ('workdir', 'study'):
    parser.add_argument(f'--{name}')
  parser.add_argument('--name', default='sweep')
  parser.add_argument('--workers', type=int, default=1)
  flags = parser.parse_args(arguments.others)
  given = {'config': arguments.file, 'workdir': flags.workdir}
  for flag, allowed in (('config', 'configs/sweeps/NAME.py'), ('workdir', 'FOLDER')):
    if not given[flag]:
      raise UsageError(f'--{flag} is missing: it must be --{flag}={allowed}')
  flags.workdir = folder('--workdir', flags.workdir)
  for name in ('study', 'name'):
    text = getattr(flags, name)
    if text is not None and not (text and text.isprintable()):
      raise UsageError(f'--{name}={text!r} must be a string of one line')
  if flags.workers < 1:
    raise UsageError(f'--workers={flags.workers} must be 1 or more')
  return _settings(arguments), flags


def _settings(arguments: 'overrides.ConfigArguments') -> dict[str, Any]:
  """The settings of a search from its file, with fields set from the command line."""
  from sparsejax.experiment.config import loading

  assert arguments.file is not None  # `parse` requires it
  settings = loading.load(arguments.file).to_dict()
  for name, text in arguments.overrides.items():
    _set(settings, name, text)
  return settings


def _set(settings: dict[str, Any], name: str, text: str) -> None:
  """Sets a field to the value that a string stands for, whatever the file has there."""
  from sparsejax.search.plan import base

  defaults = base.get_config().to_dict()
  scheduler = [f'scheduler.{key}' for key in defaults['scheduler']]
  known = [*defaults, *scheduler]
  if name not in known:
    raise UsageError(unknown(f'config.{name}', [f'config.{one}' for one in known]))
  value = literal(text)
  kind = type(get_by_path(defaults, name))
  kinds = (tuple, list) if kind is tuple else kind
  if not isinstance(value, kinds) or isinstance(value, bool):
    raise UsageError(f'config.{name}={shown(value)} must be {KINDS.get(kind, "a block")}')
  block, _, key = name.rpartition('.')
  place = settings.setdefault(block, {}) if block else settings
  if not isinstance(place, dict):
    raise UsageError(f'{block}={shown(place)} must be a block such as {defaults[block]!r}')
  place[key] = value


def search(
  asked: dict[str, Any], folder: pathlib.Path, *, url: str | None, name: str, workers: int
) -> int:
  """Runs a search, or resumes it.

  Args:
    asked: the sweep's settings.
    folder: the folder of the search.
    url: the URL of a database; None takes the environment's, or a file in the folder.
    name: the name of the study.
    workers: the number of local processes.

  Raises:
    UsageError, ValueError: the search is impossible; nothing has been written except, if its
      settings were right, the study.
  """
  from sparsejax.search.plan import field_checks

  asked = field_checks.check(asked)
  is_new = _is_new(folder, asked)

  # These imports take seconds, so mistakes that need none of them were reported above.
  from sparsejax import sweep_worker
  from sparsejax.search.plan import settings

  resolve = sweep_worker.resolver(asked['overrides'])
  sweep = settings.check(asked, resolve)

  import jax

  from sparsejax.search.plan import ends

  jax.config.update('jax_platforms', 'cpu')  # only in this process: the workers use the GPUs
  for warning in settings.repeats(sweep, resolve) + ends.check(sweep, resolve, with_ends=is_new):
    complain(f'sweep: warning: {warning}')

  from sparsejax.search.storage import IDENTITY, identity, open_storage
  from sparsejax.search.study import Study
  from sparsejax.search.supervisor import Supervisor

  url = url or os.environ.get(sweep_worker.URL)
  storage = open_storage(url, folder) if url else None  # fails early if it cannot be reached
  with _lock_folder(folder, IDENTITY):
    is_new = _is_new(folder, sweep.settings)
    own = identity(folder, url, is_new=is_new)
    study = Study(sweep, storage or open_storage(None, folder), name, own)
    study.plan()
    if is_new:
      text = json.dumps(sweep.settings, indent=2) + '\n'
      files.write_atomically(folder / search_folder.SWEEP, text)
  command = [sys.executable, '-m', sweep_worker.__name__, str(folder), name]
  if url:
    os.environ[sweep_worker.URL] = url  # a command line could be read by everyone
  workers = min(workers, len(sweep.slots))
  return Supervisor(study, folder, command, workers=workers).run()


OWN = (search_folder.STUDY, search_folder.SWEEP)


def _is_new(folder: pathlib.Path, settings: Mapping[str, Any]) -> bool:
  """Returns whether a folder holds no search yet; refuses one with anything but this search."""
  file = folder / search_folder.SWEEP
  advice = 'give another folder'
  try:
    is_there = file.exists()
    held = files.read_json(file) if is_there else None
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
  except OSError as error:
    raise UsageError(f'workdir={folder}: {error.strerror}; {advice}') from error
  except ValueError as error:
    raise UsageError(f'{file} is damaged ({error}); {advice}') from None
  if not is_there:
    # A command that was killed at its start may have left only its study, and one that starts at
    # this moment may be ahead.
    if others := [name for name in names if name[0] != '.' and name not in OWN]:
      raise UsageError(f'workdir={folder}: it holds {others[0]}, but no search; {advice}')
    return True
  if held != settings:
    raise UsageError(f'workdir={folder}: it holds another search; {advice}')
  return False


@contextlib.contextmanager
def _lock_folder(folder: pathlib.Path, *own: str) -> Generator[None]:
  """Makes other commands wait while one sets up a search.

  If the search is refused, a folder that did not exist before is removed, with these files in it.
  """
  is_made = not folder.exists()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT, 0o666)
  except OSError as error:
    raise UsageError(f'workdir={folder}: {error.strerror}; it must be a writable folder') from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
  except ValueError:
    if is_made:
      for name in ('.lock', *own):
        (folder / name).unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # another command's study may be in it by now
        folder.rmdir()
    raise
  finally:
    os.close(lock)


if __name__ == '__main__':
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  sys.exit(command.guarded(main, sys.argv))
