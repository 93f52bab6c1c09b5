"""Searches over the settings of a config.

python -m sparsejax.sweep --config=configs/sweeps/NAME.py --workdir=DIR [--study=URL] [--workers=N]

Every trial is an ordinary run in an ordinary run directory below DIR/runs. The study lies in DIR,
or in any database that Optuna speaks to: --study=URL, or the environment's SPARSEJAX_STUDY, which
other users of the machine do not see. The same command goes on with a search that was stopped,
and started on more machines that share DIR it works on the same search. Fields:
configs/sweeps/base.py; `--config.FIELD=VALUE` sets one.

Exit status: 0 finished, 2 for what can't be run as asked, 143 after SIGTERM, 130 after SIGINT (the
workers save first), 1 otherwise.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags
from ml_collections import config_flags

from sparsejax.experiment import commandline, files
from sparsejax.experiment.errors import UsageError
from sparsejax.search import layout

FINISHED, USAGE = 0, 2


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit status."""
  if any(argument in ('--help', '-h') for argument in argv[1:]):
    print(__doc__)
    return FINISHED
  try:
    values = parse(argv)
    return search(
      values['config'].value.to_dict(),
      pathlib.Path(values['workdir'].value),
      url=values['study'].value,
      name=values['name'].value,
      workers=values['workers'].value,
    )
  except (flags.Error, ValueError) as error:
    return _fail(commandline.explain(error, argv, fields_in='configs/sweeps/base.py'))
  except OSError as error:
    if error.errno not in files.FULL_DISK:
      raise
    where = error.filename or values['workdir'].value
    return _fail(f'{error.strerror}: {where}; what was saved before stays')


def _fail(message: str) -> int:
  print(f'sweep: {message}', file=sys.stderr)
  return USAGE


def parse(argv: list[str]) -> flags.FlagValues:
  """Returns the flags.

  Raises:
    UsageError: one is missing, unknown or can't be, or the config can't be loaded.
  """
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', None, 'a sweep', flag_values=values, sys_argv=argv)
  flags.DEFINE_string('workdir', None, 'the folder of the search', flag_values=values)
  flags.DEFINE_string('study', None, 'URL of a database', flag_values=values)
  flags.DEFINE_string('name', 'sweep', 'of the study', flag_values=values)
  flags.DEFINE_integer('workers', 1, 'local processes', flag_values=values, lower_bound=1)
  try:
    rest = values(argv)
  except (TypeError, AttributeError, KeyError, SyntaxError) as error:
    raise UsageError(commandline.one_line(error)) from error
  if len(rest) > 1:
    raise UsageError(f"unexpected argument '{rest[1]}': allowed are flags")
  for flag, allowed in (('config', 'configs/sweeps/NAME.py'), ('workdir', 'a folder')):
    if values[flag].value is None:
      raise UsageError(f'--{flag} is missing: allowed is --{flag}={allowed}')
  try:
    values['config'].value.to_dict()  # one that could not be loaded raises on first use
  except OSError as error:
    raise UsageError(commandline.one_line(error)) from error
  return values


def search(
  asked: dict[str, Any], folder: pathlib.Path, *, url: str | None, name: str, workers: int
) -> int:
  """Runs a search, or goes on with it.

  Args:
    asked: the sweep's settings.
    folder: of the search.
    url: of a database; None for that of the environment, or a file in the folder.
    name: of the study.
    workers: local processes.

  Raises:
    UsageError, ValueError: what can't be; nothing has been written but, where its settings were
      right, the study.
  """
  from configs.sweeps import base

  if wrong := set(asked) ^ set(base.get_config().to_dict()):
    raise UsageError(f"config: '{min(wrong)}': allowed are the fields of configs/sweeps/base.py")
  is_new = _is_new(folder, json.loads(json.dumps(asked)))

  # These take seconds: what can be told without them has been.
  from sparsejax import sweep_worker
  from sparsejax.search import settings

  resolve = sweep_worker.resolver(asked['overrides'])
  sweep = settings.check(asked, resolve)

  import jax

  from sparsejax.search import ends

  jax.config.update('jax_platforms', 'cpu')  # of this process alone: GPUs are for the workers
  for warning in ends.check(sweep, resolve, with_ends=is_new):
    print(f'sweep: warning: {warning}', file=sys.stderr)

  from sparsejax.search.storage import identity, open_storage
  from sparsejax.search.study import Study
  from sparsejax.search.supervisor import Supervisor

  url = url or os.environ.get(sweep_worker.URL)
  with _alone_in(folder):
    is_new = _is_new(folder, sweep.settings)
    study = Study(sweep, open_storage(url, folder), name, identity(folder))
    study.plan()
    if is_new:
      text = json.dumps(sweep.settings, indent=2) + '\n'
      files.write_atomically(folder / layout.SWEEP, text)
  command = [sys.executable, '-m', sweep_worker.__name__, str(folder), name]
  if url:
    os.environ[sweep_worker.URL] = url  # not on a command line, which everyone can read
  return Supervisor(study, folder, command, workers=workers).run()


OWN = (layout.STUDY, layout.SWEEP)


def _is_new(folder: pathlib.Path, asked: Mapping[str, Any]) -> bool:
  """Whether a folder holds no search yet; one with anything but this search is refused."""
  file, allowed = folder / layout.SWEEP, 'allowed is another folder'
  try:
    text = file.read_text() if file.exists() else None
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
  except OSError as error:
    raise UsageError(f'workdir={folder}: {error.strerror}; {allowed}') from error
  if text is None:
    # A command that was killed at its start may have left its study alone; one that starts at this
    # moment may be ahead.
    if others := [name for name in names if name[0] != '.' and name not in OWN]:
      raise UsageError(f'workdir={folder}: it holds {others[0]}, but no search; {allowed}')
    return True
  try:
    held = json.loads(text)
  except ValueError as error:
    raise UsageError(f'{file} is damaged ({error}); {allowed}') from None
  if held != asked:
    raise UsageError(f'workdir={folder}: it holds another search; {allowed}')
  return False


@contextlib.contextmanager
def _alone_in(folder: pathlib.Path) -> Iterator[None]:
  """While one command sets a search up, another waits."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT, 0o666)
  except OSError as error:
    raise UsageError(f'workdir={folder}: {error.strerror}; allowed is a folder to write') from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
  finally:
    os.close(lock)


if __name__ == '__main__':
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  sys.exit(main(sys.argv))
