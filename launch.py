"""Runs one experiment.

python launch.py --config=configs/NAME.py[:ARGUMENT] [--config.field=value ...] [--workdir=DIR]

Exit status: 0 finished, 2 for what can't be run as asked, 143 after SIGTERM, 1 otherwise.
"""

import difflib
import pathlib
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from configs import base
from sparsejax.experiment import compilation, files, runs
from sparsejax.experiment.errors import NonFiniteLossError, TerminatedError, UsageError
from sparsejax.experiment.run import run

CONFIG = config_flags.DEFINE_config_file('config', help_string='configs/NAME.py[:ARGUMENT]')
WORKDIR = flags.DEFINE_string('workdir', None, 'the run directory; default: results/runs/NAME-...')

FINISHED, CRASHED, USAGE, TERMINATED = 0, 1, 2, 128 + 15


def main(argv: list[str]) -> int:
  del argv
  logging.set_verbosity(logging.WARNING)
  try:
    config = resolve()
    compilation.use_cache()
    defaults = base.get_config(config['chain'], config['events']).to_dict()
    workdir = pathlib.Path(WORKDIR.value) if WORKDIR.value else None
    run(config, defaults, version=base.VERSION, workdir=workdir)
  except UsageError as error:
    return _fail(USAGE, error)
  except TerminatedError as error:
    return _fail(TERMINATED, error)
  except NonFiniteLossError as error:
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
    raise UsageError(_one_line(error)) from error
  for name in config_flags.get_override_values(flag):
    block = name.partition('.')[0]
    if block not in config:
      raise UsageError(f"config.{name} is set, but neither chain nor events name '{block}'")
  return config.to_dict()


def parse(argv: list[str]) -> list[str]:
  """Parses the flags; whatever is wrong with them ends the command with one line and status 2."""
  try:
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise UsageError(f"unexpected argument '{rest[1]}': allowed are --config and --workdir")
    if CONFIG.value is None:
      raise UsageError('--config is missing: allowed is --config=configs/NAME.py[:ARGUMENT]')
    CONFIG.value.name  # noqa: B018  (a config that could not be loaded raises on first use)
  except (flags.Error, UsageError, ValueError, TypeError, AttributeError, KeyError, OSError) as e:
    sys.exit(_fail(USAGE, _explain(e, argv)))
  return rest


def _explain(error: Exception, argv: list[str]) -> str:
  """One line for a person: for an unknown field the nearest known, else the error's own words."""
  for name in re.findall(r'--(?:no)?config\.([\w.]+)', ' '.join(argv)):
    known = _fields(argv)
    if known and name not in known:
      near = difflib.get_close_matches(name, known, n=1)
      hint = f": did you mean '{near[0]}'?" if near else ''
      return f"unknown field 'config.{name}'{hint} Known are those of configs/base.py"
  return _one_line(error)


def _fields(argv: list[str]) -> list[str]:
  """The dotted names of every field and block of the config named on the command line."""
  config = next((arg.partition('=')[2] for arg in argv if arg.startswith('--config=')), '')
  try:
    settings = config_flags.config_flags.ConfigFileFlagParser('config').parse(config).to_dict()
  except Exception:  # the config itself is broken: its own error is the one to show
    return []
  leaves = list(runs.flatten(settings))
  return leaves + sorted({leaf.rpartition('.')[0] for leaf in leaves} - {''})


def _one_line(error: Exception) -> str:
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__


def _fail(status: int, message: object) -> int:
  print(f'launch.py: {message}', file=sys.stderr)
  return status


if __name__ == '__main__':
  app.run(main, flags_parser=parse)
