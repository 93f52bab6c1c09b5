"""Runs one experiment.

python launch.py --config=configs/NAME.py[:ARGUMENT] [--config.field=value ...] [--workdir=DIR]
python -m sparsejax.launch --config=NAME.py ...     the same, with your own config file

--workdir=DIR       the run directory; default: results/runs/NAME-HASH8/seedK
--restart           begins at step 0; the content of the run directory is moved to a folder in it
--shorten=0.1       makes every duration of the training a tenth as long
--print_config      prints the resolved settings and trains nothing; --config.help does the same
--help              prints this and every field: its default, its meaning, the values it may have

On several machines start the same command once on each: under SLURM's srun or Open MPI's mpirun as
it is, elsewhere with --coordinator=HOST:PORT (of the first process) --processes=N --process=K. The
first process writes; the devices of all share the batch.

Exit status: 0 finished, 2 if this cannot be run as asked, 143 after SIGTERM, 130 after SIGINT, 129
after SIGHUP (training saves first; nohup keeps SIGHUP away), 1 otherwise.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from sparsejax.experiment import command

CONFIG_HELP = '--config.help'  # not a field: other programs' name for --print_config


class Command(NamedTuple):
  """A parsed command line: the settings and the command's own flags."""

  settings: dict[str, Any]
  flags: argparse.Namespace


def read(argv: Sequence[str]) -> Command:
  """Reads a command line, which must not include the command's name.

  Raises:
    UsageError: says in one line what is wrong with it.
  """
  from sparsejax.experiment.config import check, commandline, overrides
  from sparsejax.experiment.terminal.arguments import Parser, folder
  from sparsejax.experiment.terminal.errors import UsageError

  argv = ['--print_config' if argument == CONFIG_HELP else argument for argument in argv]
  arguments = overrides.parse_config_flags(argv)
  parser = Parser(prog='launch', add_help=False, allow_abbrev=False)
  parser.add_argument('--workdir')
  parser.add_argument('--restart', action='store_true')
  parser.add_argument('--print_config', action='store_true')
  parser.add_argument('--shorten', type=float, default=1.0)
  parser.add_argument('--coordinator')
  parser.add_argument('--processes', type=int)
  parser.add_argument('--process', type=int)
  try:
    flags = parser.parse_args(arguments.others)
  except ValueError as error:
    raise UsageError(f'{error}; --help lists the flags') from None
  if flags.workdir is not None:
    flags.workdir = folder('--workdir', flags.workdir)
  if not 0 < flags.shorten < math.inf:
    raise UsageError(f'--shorten={flags.shorten} must be a number above 0')
  settings = commandline.resolve_arguments(arguments)
  settings = commandline.shortened(settings, flags.shorten)
  try:
    # Checked again, since --shorten has changed durations; unused settings were refused before.
    return Command(check.check(settings, all_read=False), flags)
  except ValueError as error:
    raise UsageError(f'--shorten={flags.shorten}: {error}') from None


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  from sparsejax.experiment.machine.hosts import FirstFailedError, LostError

  # Reads `argv` by `read` and does what it asks by `act`; every error becomes one line and an exit
  # status.
  return command.run(
    'launch.py',
    argv,
    text=_help,
    read=read,
    act=_run,
    folder=lambda asked: asked.flags.workdir or 'results/runs',
    failures=(LostError, FirstFailedError),
  )


def _help() -> str:
  from sparsejax.experiment.config import commandline

  return f'{__doc__}\n{commandline.help_text()}'


def _run(asked: Command) -> int | None:
  import os

  from sparsejax.experiment.config import base
  from sparsejax.experiment.machine import hosts
  from sparsejax.experiment.run import run
  from sparsejax.experiment.show import display

  settings, flags = asked
  if flags.print_config:
    display.settings_table(settings, base.defaults(settings))
    return None
  command.set_up_process()
  where = hosts.place(flags.coordinator, flags.processes, flags.process, os.environ)
  if where is not None:
    if hosts.GUARDED not in os.environ:
      return hosts.run_guarded([sys.executable, *sys.orig_argv[1:]])
    hosts.end_with_guard()
    hosts.join(where)
  # The defaults are needed only for the hash, which covers the settings that differ from them.
  defaults = base.defaults(settings)
  restart = flags.restart
  run(settings, defaults, version=base.VERSION, workdir=flags.workdir, restart=restart)
  return None


def start() -> None:
  """Runs the command with this process' own arguments, and ends the process."""
  sys.exit(command.guarded(main, sys.argv))


if __name__ == '__main__':
  start()
