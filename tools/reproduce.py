"""Runs the experiments whose results are committed here, and writes their pages.

python -m tools.reproduce NAME [NAME ...] --runs=DIR [--data=DIR]

Every run is an ordinary `launch.py` in its own directory below DIR/NAME. Finished runs are skipped
and others resume from their checkpoint, so the command can be killed and started again. The files
kept of each run go to results/NAME: its config, environment, summary, a thinned metrics.jsonl, and
the trace of the first seed; for a row that ships another's network, only what was measured. The
README.md there is made only from these files (`--collect` remakes it without training). If a row
continues from another row's network, that row is trained first. With a GPU, the rows for a GPU come
before all others.

On a machine that is available only for minutes, keep results and compiled programs like this:

python -m tools.reproduce cifar10 --runs=DIR --seconds=480 --cache=CACHE --out=OUT

Exit status: 0 if every run ended well, 1 if one failed, 2 for bad arguments; after SIGTERM,
SIGINT or SIGHUP the current runs are saved, and the status is 143, 130 or 129.
"""

import argparse
import os
import pathlib
import re
import sys

from sparsejax.experiment.terminal.arguments import Parser
from sparsejax.experiment.terminal.say import complain, shown
from tools import running
from tools.pages import kept, readme
from tools.pages.pages import PAGES


def main() -> None:
  arguments = parse()
  names = arguments.names
  all_well = True
  if arguments.cache:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(arguments.cache.absolute())
  if not arguments.collect:
    chosen = [(name, arguments.only) for name in names]
    with running.Children() as children:
      all_well = running.train(
        running.plan(chosen, gpu=running.has_gpu()),
        arguments.runs,
        arguments.data,
        arguments.jobs,
        children,
        arguments.seconds,
      )
  for name in names:
    kept.keep(name, arguments.runs, arguments.out)
    if arguments.out == kept.RESULTS:
      readme.write(name)
  sys.exit(not all_well)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  """Returns the arguments; wrong ones end the command with one line and status 2."""
  try:
    return _parsed(argv)
  except ValueError as error:
    complain(f'reproduce.py: {error}')
    sys.exit(2)


def _parsed(argv: list[str] | None) -> argparse.Namespace:
  parser = Parser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('names', nargs='+', choices=PAGES, metavar='NAME', help=', '.join(PAGES))
  add('--runs', type=pathlib.Path, required=True, help='where the runs live')
  add('--data', help='the folder of tensorflow-datasets; default: its own')
  add('--collect', action='store_true', help='only collect finished runs')
  add('--jobs', type=int, default=1, help='runs at a time, each on its own cores')
  add('--seconds', type=float, help='time left; a run that cannot end in it is not started')
  add('--cache', type=pathlib.Path, help='a folder of compiled programs, to carry along')
  add('--out', type=pathlib.Path, default=kept.RESULTS, help='the folder for the kept files')
  add('--only', default='', help='a regular expression for the rows; needed rows are added')
  arguments = parser.parse_args(argv)
  labels = [entry.label for name in arguments.names for entry in PAGES[name].entries]
  try:
    found = any(re.search(arguments.only, label) for label in labels)
  except (re.error, OverflowError, RecursionError) as error:
    parser.error(f'--only={shown(arguments.only)}: it must be a regular expression ({error})')
  for ok, problem in (
    (str(arguments.runs) not in ('', '.'), '--runs= must name a folder'),
    (arguments.seconds is None or arguments.seconds > 0, '--seconds must be more than 0'),
    (arguments.jobs >= 1, f'--jobs={arguments.jobs} must be 1 or more'),
    (found, f'--only={shown(arguments.only)} must match a row; there are {", ".join(labels)}'),
  ):
    if not ok:
      parser.error(problem)
  return arguments


if __name__ == '__main__':
  main()
