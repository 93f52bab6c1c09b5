"""runs.csv, with every setting and figure of every run, and the tables of report.md."""

import collections
import csv
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, TextIO

from sparsejax.experiment.config.identity import flatten
from sparsejax.experiment.show import phases
from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records.collect import AS_MEANT, COLLAPSED, STOPPED, Run
from sparsejax.reports.records.run_groups import KINDS, Group, shipped
from sparsejax.reports.text import cells
from sparsejax.reports.text import shipped as shipments
from sparsejax.reports.text.drawn import Drawn, Picture
from sparsejax.reports.text.searches import Search

LONGEST_STEM = 60  # characters of up to four bytes each: the name of a file has at most 255 bytes
HEAD = ('run', 'path', 'state', 'epoch', 'problems')


def write_csv(runs: Sequence[Run], root: pathlib.Path, file: TextIO) -> None:
  """Writes runs.csv.

  It has a column for each setting (config.*), each figure of the summary (summary.*) or, without a
  summary, of the last metrics (last.*), and each fact about the machine (machine.*). Lists are
  written as JSON.

  Args:
    runs: the runs, one a row.
    root: the folder that the paths are relative to.
    file: the file to write to.
  """
  names = sorted(set().union(*(row(run, root) for run in runs)) - set(HEAD))
  columns = (*HEAD, *names)
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(map(cells.defused, columns))
  for run in runs:
    found = row(run, root)
    writer.writerow([cells.defused(found.get(name, '')) for name in columns])


def row(run: Run, root: pathlib.Path) -> dict[str, Any]:
  """Returns the row of a run in runs.csv, by column."""
  row = {
    'run': run.name,
    'path': printable(relative(run.path, root)),
    'state': run.state,
    'epoch': f'{run.epoch:g}',
    'problems': '; '.join(run.problems),
  }
  for prefix, found in (
    ('config', run.config),
    ('summary', run.summary),
    ('last', run.metrics.last),
    ('machine', run.environment),
  ):
    row |= {f'{prefix}.{name}': _cell(value) for name, value in flatten(found).items()}
  return row


def _cell(value: Any) -> Any:
  return json.dumps(value) if isinstance(value, list | dict) else value


def relative(path: pathlib.Path, root: pathlib.Path) -> str:
  """Returns a path as it stands in a link from the report's folder."""
  return pathlib.PurePath(os.path.relpath(path, root.resolve())).as_posix()


def markdown(
  groups: Sequence[Group], runs: Sequence[Run], searches: Sequence[Search], drawn: Drawn
) -> str:
  """Returns the text of report.md."""
  pictures = [_shown(picture) for of_task in drawn.pictures.values() for picture in of_task]
  text = ['# Runs', '', *states(runs), '']
  for task in dict.fromkeys(group.task for group in groups):
    text += [f'## {task}', '']
    for kind, head, rows in task_tables([g for g in groups if g.task == task]):
      text += [f'### {kind}', '', *_table(head, rows), '']
    text += [*_images(task_stem(task), pictures), '']
  for index, search in enumerate(searches):
    text += [f'## {search.title}', '', search.goals, '']
    text += [*(_table(search.header, search.rows) if search.rows else ())]
    text += ['', *_images(search_stem(index), pictures), '']
  if wrong := problems(runs, searches, drawn):
    text += ['## What is wrong', '', *_table(('run', 'state', 'problem'), wrong), '']
  text += ['## Machines', '', *(f'- {line}' for line in machines(runs)), '']
  return '\n'.join(text).rstrip() + '\n'


def _images(stem: str, pictures: Sequence[str]) -> list[str]:
  """A line for each picture: the picture, or a link to a file that a page cannot show."""
  own = [name for name in pictures if name.startswith(f'{stem}.')]
  return [f'{"" if name.endswith(".pdf") else "!"}[{name}]({name})' for name in own]


def _shown(picture: Picture) -> str:
  """The file of a figure that a page can show."""
  return next((name for name in picture.files if not name.endswith('.pdf')), picture.files[0])


def search_stem(index: int) -> str:
  """The beginning of the names of a search's files."""
  return f'search{index}'


def task_stem(task: str) -> str:
  """The task as part of a file's name; a long one is cut and gets a hash.

  Example:
    >>> task_stem('vgg16 of width 8 on 10,000 images of cifar10')
    'vgg16_of_width_8_on_10000_images_of_cifar10'
  """
  text = task.replace(' ', '_').replace(',', '')
  stem = ''.join(c if c.isalnum() or c in '_-' else '-' for c in text)
  if len(stem) <= LONGEST_STEM:
    return stem
  return f'{stem[: LONGEST_STEM - 9]}-{hashlib.sha256(task.encode()).hexdigest()[:8]}'


def states(runs: Sequence[Run]) -> list[str]:
  """Returns a line with the number of runs in each state, and an explanation of the figures."""
  counts = collections.Counter(run.state for run in runs)
  parts = ', '.join(f'{count} {state}' for state, count in sorted(counts.items()))
  notes = [shipments.NOTE] if any(run.shipments for run in runs) else []
  return [
    f'{len(runs)} runs: {parts}. Figures cover finished and collapsed runs, as mean ± standard '
    'deviation over n seeds. Networks were chosen on validation images. Active parameters are the '
    'trainable numbers that are not exactly zero; compression is weights over active weights; '
    'speed-up is all multiply-accumulates over those of active weights. Stopped runs are those '
    'that a search did not continue.',
    *notes,
  ]


COLUMNS = (
  'experiment',
  'n',
  'active parameters',
  'compression',
  'speed-up',
  'cut: validation accuracy before to after, %',
  'validation accuracy, %',
  'test accuracy, %',
  'epochs',
  'time of a run',
)


def task_tables(groups: Sequence[Group]) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
  """Returns (kind, head, rows) for each kind of sparsity, since these are reported separately.

  A table of shipments follows if any run was shipped.

  A run that a search stopped has no network, so it appears only in the table of every run.
  """
  found = []
  shown = [group for group in groups if any(run.state != STOPPED for run in group.runs)]
  for kind in KINDS:
    rows = [_experiment(group) for group in shown if group.kind == kind]
    if rows:
      found.append((kind, COLUMNS, rows))
  if rows := [shipments.row(group) for group in shipped(groups)]:
    found.append((shipments.KIND, shipments.HEADER, rows))
  return found


def _experiment(group: Group) -> list[str]:
  n = len(group.counted)
  total = len({run.config.get('seed') for run in group.runs})
  collapsed = sum(run.state == COLLAPSED for run in group.counted)
  label = group.label + (f' ({collapsed} of {n} collapsed)' if collapsed else '')
  first = group.runs[0]
  return [
    label,
    str(n) if n == total else f'{n} of {total}',
    cells.active(*group.moments('active_fraction')),
    cells.measured(*group.moments('compression'), 'x'),
    cells.measured(*group.moments('theoretical_speedup'), 'x'),
    _cut(group),
    cells.format_percent(
      [a for run in group.counted if (a := phases.final(run.summary)) is not None]
    ),
    cells.format_percent([run.figure('test_accuracy') for run in group.counted]),
    f'{float(first.config.get("epochs", math.nan)):g}',
    _seconds(group),
  ]


def _cut(group: Group) -> str:
  """Validation accuracy before and after the cut or, without a cut, the reason."""
  found = [phases.cut_accuracies(run.summary) for run in group.counted]
  if pairs := [pair for pair in found if pair is not None]:
    return ' to '.join(map(cells.format_percent, zip(*pairs, strict=True)))
  return next((phases.no_cut_reason(run.summary) for run in group.counted), '-')


def _seconds(group: Group) -> str:
  mean, _ = group.moments('seconds')
  if math.isnan(mean):
    return '-'
  return f'{mean:.0f} s' if mean < 120 else f'{mean / 60:.0f} min'


def problems(runs: Sequence[Run], searches: Sequence[Search], drawn: Drawn) -> list[list[str]]:
  """Returns (run, state, problem) for everything that is wrong.

  That includes trials without a run, and figures that cannot be drawn.
  """
  found = [[run.name, run.state, problem] for run in runs for problem in run.problems]
  known = {row[0] for row in found}
  for run in runs:
    if run.state not in AS_MEANT and run.name not in known:
      found.append([run.name, run.state, f'it is at epoch {run.epoch:g} of {_epochs(run)}'])
    elif run.state == 'collapsed':
      found.append([run.name, run.state, 'a layer has no weight left, or the network only guesses'])
  found += [list(row) for search in searches for row in search.problems]
  return found + [[name, 'not drawn', reason] for name, reason in drawn.missing]


def _epochs(run: Run) -> str:
  return f'{run.config["epochs"]:g}' if 'epochs' in run.config else 'an unknown number'


def machines(runs: Sequence[Run]) -> list[str]:
  """Returns the machines that the runs used, a line for each machine and version."""
  lines = set()
  for run in runs:
    e = run.environment
    if e:
      devices = e.get('devices') or []
      lines.add(
        f'{e.get("cpus", "?")} cores of {e.get("processor", "?")}, {len(devices)} '
        f'{e.get("backend", "?")} device(s), Python {e.get("python", "?")}, JAX '
        f'{(e.get("versions") or {}).get("jax", "?")}, commit {str(e.get("git_commit"))[:7]}'
      )
  return sorted(lines) or ['unknown']


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  cells = [head, ['---'] * len(head), *rows]
  return [f'| {" | ".join(cell.replace("|", "/") for cell in row)} |' for row in cells]
