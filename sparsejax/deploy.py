"""Deploys the posterior of a finished run under other thresholds of log alpha, without training.

python -m sparsejax.deploy --run=DIR [--workdir=NEW] --thresholds=conv1=4.0,fc1=2.3

--run=DIR           a finished run whose layers have posteriors
--workdir=NEW       the run directory to write, with all the files of a run. Without it nothing is
                    written and the test set is not read: only validation figures are printed
--threshold=X       the threshold of layers without their own
--thresholds=LIST   LAYER=NUMBER,LAYER=NUMBER, or `suggested` for those in the run's summary
--data_dir=DIR      the folder of tensorflow-datasets, if it is not the run's own
--parts=FILE        the Python file that registers your own parts that the run uses

Thresholds that are not given stay as in the run. The hash of the new run is that of a run of
launch.py with these thresholds, which would end in the same network. Its summary names the run that
trained the posterior as `deployed_from`.

Exit status: 0 finished, 2 if this cannot be deployed as asked, 128 plus the signal's number after a
signal, 1 otherwise.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence

from sparsejax.experiment.terminal import extras
from sparsejax.experiment.terminal.say import complain, say_lines

FINISHED, CRASHED, USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  if any(argument in ('--help', '-h') for argument in argv[1:]):
    say_lines(__doc__)
    return FINISHED
  try:
    arguments = _arguments(argv[1:])
  except ValueError as error:
    return _fail(error)
  # These imports take seconds, so mistakes that need none of them were reported above.
  from sparsejax.experiment.machine import files
  from sparsejax.experiment.terminal import logs
  from sparsejax.experiment.terminal.errors import UnreadableError, UsageError

  logs.show_warnings()
  try:
    _deploy(arguments)
  except UsageError as error:
    return _fail(error)
  except UnreadableError as error:
    return _fail(error, CRASHED)
  except OSError as error:
    if (message := files.path_error(error, arguments.workdir)) is None:
      raise
    return _fail(UsageError(message))
  return FINISHED


def _fail(error: Exception, status: int = USAGE) -> int:
  from sparsejax.experiment.terminal.errors import in_one_line

  complain(f'deploy: {in_one_line(error)}')
  return status


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
  from sparsejax.experiment.terminal.arguments import Parser, folder

  parser = Parser(prog='deploy', add_help=False, allow_abbrev=False)
  for name in ('run', 'workdir', 'threshold', 'thresholds', 'data_dir', 'parts'):
    parser.add_argument(f'--{name}')
  arguments = parser.parse_args(argv)
  if not arguments.run:
    raise ValueError('--run is missing: it must be --run=DIR, a finished run')
  arguments.run = pathlib.Path(arguments.run)
  if arguments.workdir is not None:
    arguments.workdir = folder('--workdir', arguments.workdir)
  return arguments


def _deploy(arguments: argparse.Namespace) -> None:
  from sparsejax.experiment.config import base, loading
  from sparsejax.experiment.machine import allocator, compilation, threads
  from sparsejax.experiment.outcome import finished, threshold_options
  from sparsejax.experiment.outcome.redeploy import deploy, look

  if arguments.parts is not None:
    loading.execute(pathlib.Path(arguments.parts))
  source = finished.read(arguments.run)
  defaults = base.defaults(source.config)
  config = threshold_options.change(
    source.config,
    source.summary,
    threshold=arguments.threshold,
    thresholds=arguments.thresholds,
  )
  if arguments.data_dir is not None:
    config['data'] = {**config['data'], 'dir': arguments.data_dir}
  allocator.keep_freed_memory()
  threads.serve_devices(os.environ)
  compilation.use_cache()
  known = source, config, defaults
  if arguments.workdir is None:
    say_lines(json.dumps(look(*known, version=base.VERSION), indent=2))
  else:
    deploy(*known, version=base.VERSION, workdir=arguments.workdir)


if __name__ == '__main__':
  sys.exit(extras.explained(main, sys.argv))
