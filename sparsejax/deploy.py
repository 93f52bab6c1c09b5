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
import pathlib
import sys
from collections.abc import Sequence

from sparsejax.experiment import command
from sparsejax.experiment.terminal.say import say_lines


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  return command.run(
    'deploy',
    argv,
    text=lambda: __doc__,
    read=_arguments,
    act=_deploy,
    folder=lambda arguments: arguments.workdir,
  )


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
  from sparsejax.experiment.terminal.arguments import Parser, folder
  from sparsejax.experiment.terminal.errors import UsageError

  parser = Parser(prog='deploy', add_help=False, allow_abbrev=False)
  for name in ('run', 'workdir', 'threshold', 'thresholds', 'data_dir', 'parts'):
    parser.add_argument(f'--{name}')
  arguments = parser.parse_args(argv)
  if not arguments.run:
    raise UsageError('--run is missing: it must be --run=DIR, a finished run')
  arguments.run = pathlib.Path(arguments.run)
  if arguments.workdir is not None:
    arguments.workdir = folder('--workdir', arguments.workdir)
  return arguments


def _deploy(arguments: argparse.Namespace) -> None:
  # These imports take seconds, so mistakes that need none of them were reported before.
  from sparsejax.experiment.config import base, loading
  from sparsejax.experiment.outcome import finished, threshold_options
  from sparsejax.experiment.outcome.redeploy import deploy, look

  command.set_up_process()
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
  known = source, config, defaults
  if arguments.workdir is None:
    say_lines(json.dumps(look(*known, version=base.VERSION), indent=2))
  else:
    deploy(*known, version=base.VERSION, workdir=arguments.workdir)


if __name__ == '__main__':
  sys.exit(command.guarded(main, sys.argv))
