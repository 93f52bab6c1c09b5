"""Makes tables, figures and a page about runs.

python -m sparsejax.report DIR... --out=DIR [flags]

Each DIR is a run directory, finished or not, or any folder above some; links are followed. The
--out folder gets runs.csv (every setting and every figure of each run), report.md, report.html (one
file that opens offline), and the figures of both: TASK.pareto, .traces, .weights, .units and
.log_alpha; of shipped runs .bytes and .milliseconds; of searches .brackets and .objectives.

The folders that `sparsejax.ship` wrote are found like runs, and belong to the runs in their
shipped.json.

--runs=NAMES     only runs with these names or paths below DIR: lenet5_*,*/seed0 (* is any text)
--methods=NAMES  only runs of these methods, likewise; quote what the shell would expand
--size=3.3x2.5   width and height of every figure in inches, such as a column of a paper
--format=pdf     formats of the figures: png, svg or pdf, or several with commas; default png,svg

Exit status: 0 finished, 2 if this cannot be reported as asked, 128 plus the signal's number after a
signal. A broken run becomes a row that says so.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sparsejax.experiment import command
from sparsejax.experiment.terminal.arguments import Parser, folder
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import say

if TYPE_CHECKING:
  from sparsejax.reports.figures import dress
  from sparsejax.reports.records import collect


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  return command.run(
    'report',
    argv,
    text=lambda: __doc__,
    read=_read,
    act=_report,
    folder=lambda asked: asked.out,
    refusal=ValueError,
  )


class _Asked(NamedTuple):
  """A parsed command line, as the arguments of `report`."""

  folders: Sequence[pathlib.Path]
  out: pathlib.Path
  choice: 'collect.Choice'
  look: 'dress.Look'


def _read(argv: Sequence[str]) -> _Asked:
  parser = Parser(prog='report', add_help=False, allow_abbrev=False)
  parser.add_argument('folders', nargs='*', metavar='DIR')
  for flag in ('out', 'runs', 'methods', 'size', 'format'):
    parser.add_argument(f'--{flag}')
  arguments = parser.parse_args(argv)
  sources = _sources(arguments.folders)
  if not arguments.out:
    raise ValueError('--out is missing: it must be --out=FOLDER')
  choice, look = _choice(arguments), _look(arguments)
  return _Asked(sources, folder('--out', arguments.out), choice, look)


def _report(asked: _Asked) -> None:
  try:
    say(report(*asked))
  except OSError as error:
    if error.filename is None:
      raise
    what = f'{error.filename}: {error.strerror}; it must be a writable folder'
    raise UsageError(what) from error


def _sources(folders: Sequence[str]) -> list[pathlib.Path]:
  """The folders that runs are looked for in, each of which must exist."""
  if not folders:
    raise ValueError('DIR is missing: give run directories or folders above them')
  for given in folders:
    if not os.path.isdir(given):
      named = given if given and given.isprintable() else repr(given)
      raise ValueError(f'{named}: there is no such folder; give folders with runs')
  return [*map(pathlib.Path, folders)]


def _choice(arguments: argparse.Namespace) -> 'collect.Choice':
  """The runs and methods that the report is limited to."""
  from sparsejax.reports.records import collect

  return collect.Choice(*(_names(arguments, flag) for flag in ('runs', 'methods')))


def _names(arguments: argparse.Namespace, flag: str) -> list[str]:
  """The patterns of a flag, or [] if it is not given."""
  if (text := getattr(arguments, flag)) is None:
    return []
  names = [name.strip() for name in text.split(',')]
  if not all(names):
    raise ValueError(f"--{flag}={text!r} must be names with commas between them, such as 'a,b*'")
  return names


def _look(arguments: argparse.Namespace) -> 'dress.Look':
  """The size and the file formats of the figures."""
  from sparsejax.reports.figures import dress

  formats = _names(arguments, 'format') or dress.Look().formats
  if set(formats) - set(dress.FORMATS):
    raise ValueError(f'--format={arguments.format} must be one of {", ".join(dress.FORMATS)}')
  return dress.Look(_size(arguments.size), tuple(dict.fromkeys(formats)))


SMALLEST, LARGEST = 1.0, 50.0  # inches


def _size(text: str | None) -> tuple[float, float] | None:
  """Reads a size such as 3.3x2.5; None stays None.

  Example:
    >>> _size('3.3x2.5')
    (3.3, 2.5)
  """
  if text is None:
    return None
  try:
    width, height = map(float, text.split('x'))
  except ValueError:
    width = height = 0.0
  if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
    raise ValueError(
      f'--size={text} must be WIDTHxHEIGHT, each from {SMALLEST:g} to {LARGEST:g} inches'
    )
  return width, height


def report(
  folders: Sequence[pathlib.Path],
  out: pathlib.Path,
  choice: 'collect.Choice | None' = None,
  look: 'dress.Look | None' = None,
) -> str:
  """Writes the report of the runs in and below some folders; returns a line that sums it up.

  Args:
    folders: run directories, or folders above them.
    out: the folder to write to.
    choice: the runs to select; None selects all.
    look: the look of the figures; None for the default.

  Raises:
    ValueError: there is no run, or none is selected.
  """
  from sparsejax.reports import whole
  from sparsejax.reports.figures import dress
  from sparsejax.reports.records import collect

  runs = collect.collect(folders, choice)
  out.mkdir(parents=True, exist_ok=True)
  return whole.write(runs, out, look or dress.Look())


if __name__ == '__main__':
  sys.exit(command.guarded(main, sys.argv))
