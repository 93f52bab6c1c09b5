"""Runs one experiment.

python launch.py --config=configs/NAME.py[:ARGUMENT] [--config.field=value ...] [--workdir=DIR]

On several machines the same command once on each, under SLURM's srun or Open MPI's mpirun as it is,
elsewhere with --coordinator=HOST:PORT (of the first) --processes=N --process=K. The first one
writes; the batch is shared by the devices of all.

Exit status: 0 finished, 2 for what can't be run as asked, 143 after SIGTERM, 130 after SIGINT (both
save first), 1 otherwise.
"""

import functools
import os
import pathlib
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from configs import base
from sparsejax.experiment import (
  allocator,
  commandline,
  compilation,
  files,
  hosts,
  runs,
  threads,
)
from sparsejax.experiment.errors import NonFiniteLossError, TerminatedError, UsageError
from sparsejax.experiment.run import run

_argv: list[str] = []  # where config_flags looks for overrides
CONFIG = config_flags.DEFINE_config_file('config', None, 'a config', sys_argv=_argv)
WORKDIR = flags.DEFINE_string('workdir', None, 'the run directory; default: results/runs/NAME-...')
COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of the first of several processes'
)
PROCESSES = flags.DEFINE_integer('processes', None, 'how many train as one')
PROCESS = flags.DEFINE_integer('process', None, 'which of them this is, from 0')

FINISHED, CRASHED, USAGE, SIGNALLED = 0, 1, 2, 128

# Settings of links and events that the command line itself names: their blocks come into being with
# the chain, so they are set after it. So are numbers in the place of a schedule's block.
_late: dict[str, str] = {}


def main(argv: list[str]) -> int:
  del argv
  logging.set_verbosity(logging.WARNING)
  allocator.keep_freed_memory()
  threads.serve_devices(os.environ)
  try:
    config = resolve()
    where = hosts.place(COORDINATOR.value, PROCESSES.value, PROCESS.value, os.environ)
    if where is not None:
      if hosts.IS_GUARDED not in os.environ:
        return hosts.guarded([sys.executable, *sys.orig_argv[1:]])
      hosts.join(where)
    compilation.use_cache()
    workdir = pathlib.Path(WORKDIR.value) if WORKDIR.value else None
    run(config, base.defaults(config), version=base.VERSION, workdir=workdir)
  except UsageError as error:
    return _fail(USAGE, error)
  except TerminatedError as error:
    return _fail(SIGNALLED + error.signal, error)
  except (NonFiniteLossError, hosts.LostError) as error:
    return _fail(CRASHED, error)
  except OSError as error:
    if error.errno not in files.FULL_DISK:
      raise
    where = error.filename or WORKDIR.value or 'results/runs'
    return _fail(USAGE, f'{error.strerror}: {where}; what was saved before stays')
  return FINISHED


def resolve() -> dict:
  """Returns the settings as plain nested dicts, with the blocks that the chain needs."""
  flag = flags.FLAGS['config']
  try:
    config = base.complete(CONFIG.value)
    path, _, _ = config_flags.get_config_filename(flag).partition(':')
    config.name = pathlib.Path(path).stem
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise UsageError(commandline.one_line(error)) from error
  settings = config.to_dict()
  for name in (*config_flags.get_override_values(flag), *_late):
    block = name.partition('.')[0]
    if block not in settings and block not in _links(settings):
      raise UsageError(f"config.{name} is set, but chain, events and layers name no '{block}'")
  for name, text in _late.items():
    *blocks, last = name.split('.')
    target = functools.reduce(lambda at, block: at.setdefault(block, {}), blocks, settings)
    target[last] = commandline.value_of(text)
  return settings


def _links(settings: dict) -> set[str]:
  return {*base.links(settings), *settings['events'], settings['layers']}


def parse(argv: list[str]) -> list[str]:
  """Parses the flags; whatever is wrong with them ends the command with one line and status 2."""
  if any(argument in ('--help', '-h', '--helpfull') for argument in argv):
    print(f'{__doc__}\nThe fields and their meaning: configs/base.py. Experiments: configs/*.py.')
    sys.exit(FINISHED)
  try:
    return read(argv)
  except UsageError as error:
    sys.exit(_fail(USAGE, error))


def read(argv: list[str]) -> list[str]:
  """Reads the flags, for `resolve`; returns what is left of the command line.

  Raises:
    UsageError: whatever is wrong with them.
  """
  _late.clear()
  try:
    _argv[:] = _without_late(argv)
    rest = flags.FLAGS(_argv)
    if len(rest) > 1:
      raise UsageError(f"unexpected argument '{rest[1]}': allowed are --config and --workdir")
    if CONFIG.value is None:
      raise UsageError('--config is missing: allowed is --config=configs/NAME.py[:ARGUMENT]')
    CONFIG.value.name  # noqa: B018  (a config that could not be loaded raises on first use)
  except (flags.Error, UsageError, ValueError, TypeError, AttributeError, KeyError, OSError) as e:
    line = commandline.explain(e, argv, fields_in='configs/base.py', known_too=_late)
    raise UsageError(line) from e
  return rest


def _without_late(argv: list[str]) -> list[str]:
  """Sets aside what can only be set once the chain is known; returns the other arguments."""
  settings = commandline.settings_of(argv)
  chains = ' '.join(
    arg for arg in argv if re.match(r'--config\.(chain|events|layers|\w+\.inner)=', arg)
  )
  new_links = set(re.findall(r'\w+', chains)) - set(settings)
  fields = runs.flatten(settings)
  kept = []
  for argument in argv:
    name, _, value = argument.removeprefix('--config.').partition('=')
    of_new_link = name.partition('.')[0] in new_links and '.' in name
    for_schedule = f'{name}.schedule' in fields
    if argument.startswith('--config.') and (of_new_link or for_schedule):
      _late[name] = value
    else:
      kept.append(argument)
  return kept


def _fail(status: int, message: object) -> int:
  print(f'launch.py: {message}', file=sys.stderr)
  return status


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
