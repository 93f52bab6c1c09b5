"""Tables, figures and a page of what runs left behind.

python -m sparsejax.report DIR... --out=DIR

Each DIR is a run directory or any folder above some, finished or not. The other folder gets
runs.csv (every setting and every figure), report.md, report.html (one file, opens offline), and the
figures of both as PNG and SVG: TASK.pareto, .traces, .weights, .units and .log_alpha, of searches
.brackets and .objectives.

Exit status: 0, 2 for what can't be reported as asked, 128 and its number after a signal. A broken
run is a row that says so.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from sparsejax import extras, signals
from sparsejax.experiment.arguments import Parser, folder
from sparsejax.experiment.errors import in_one_line


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  parser = Parser(prog='report', description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument('folders', nargs='*', metavar='DIR')
  parser.add_argument('--out')
  try:
    arguments = parser.parse_args(argv[1:])
    if not arguments.folders:
      raise ValueError('DIR is missing: allowed are run directories and folders above them')
    for given in arguments.folders:
      if not os.path.isdir(given):
        named = given if given and given.isprintable() else repr(given)
        raise ValueError(f'{named}: there is no such folder; allowed are folders with runs')
    if not arguments.out:
      raise ValueError('--out is missing: allowed is --out=a folder')
    print(report([*map(pathlib.Path, arguments.folders)], folder('--out', arguments.out)))
  except ValueError as error:
    return _fail(in_one_line(error))
  except OSError as error:
    return _fail(f'{error.filename}: {error.strerror}; allowed is a folder to write')
  return 0


def _fail(message: str) -> int:
  signals.say(f'report: {message}')
  return 2


def report(folders: Sequence[pathlib.Path], out: pathlib.Path) -> str:
  """Writes the report of the runs in and below some folders; returns what it says in a line.

  Args:
    folders: run directories, or folders above them.
    out: the folder to write to.

  Raises:
    ValueError: no run at all.
  """
  from sparsejax.reports import collect, figures, groups, page, searches, tables

  runs = collect.collect(folders)
  found = groups.group(runs)
  out.mkdir(parents=True, exist_ok=True)
  pictures: dict[str, list[pathlib.Path]] = {}
  searched = searches.of(runs)
  for task, name, figure in _figures(found, searched):
    if figure is not None:
      figures.save(figure, out, name)
      pictures.setdefault(task, []).append(out / f'{name}.png')
  names = [path.name for of_task in pictures.values() for path in of_task]
  (out / 'runs.csv').write_text(tables.runs_csv(runs, out))
  (out / 'report.md').write_text(tables.markdown(found, runs, searched, names))
  (out / 'report.html').write_text(page.page(found, runs, searched, pictures, out))
  wrong = len({row[0] for row in tables.problems(runs, searched)})
  return (
    f'{len(runs)} runs, {len(found)} experiments, {wrong} with something wrong: {out}/report.html'
  )


def _figures(found, searched):
  """Yields (task or stem of a search, name, figure or None)."""
  from sparsejax.reports import figures, groups, pareto, search_figures, tables

  for task in dict.fromkeys(group.task for group in found):
    own = [group for group in found if group.task == task]
    stem = tables.stem_of(task)
    yield task, f'{stem}.pareto', pareto.pareto(task, own)
    yield task, f'{stem}.traces', figures.traces(task, own)
    yield task, f'{stem}.weights', figures.by_layer(task, own, 'weights')
    yield task, f'{stem}.units', figures.by_layer(task, own, 'units')
    able = [g for g in own if any(run.summary.get('log_alpha') for run in g.counted[:1])]
    shown = figures.chosen(able)
    posteriors = {group.label: group.counted[0].summary['log_alpha'] for group in shown}
    grouped = [g.label for g in shown if groups.has_groups(g.runs[0].config)]
    title = f'{task}: log alpha by layer, of the first seed{figures.choice(shown, able)}'
    yield task, f'{stem}.log_alpha', figures.log_alpha(posteriors, title, grouped)
  for index, search in enumerate(searched):
    stem = tables.search_stem(index)
    if search.members:
      curves = search_figures.brackets(search.title, search.members, search.rungs)
      yield stem, f'{stem}.brackets', curves
    drawn = search_figures.objectives(search.title, search.settings, search.tried)
    yield stem, f'{stem}.objectives', drawn


if __name__ == '__main__':
  sys.exit(extras.explained(main, sys.argv))
