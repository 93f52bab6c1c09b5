"""The README.md of the page of shipped networks, made only from the kept files."""

from collections.abc import Sequence
from typing import Any

from sparsejax.experiment.machine import files
from sparsejax.reports.figures import dress, pareto
from sparsejax.reports.records import collect, run_groups
from sparsejax.reports.text import cells, tables
from sparsejax.reports.text import shipped as shipments
from sparsejax.reports.text.markdown import table
from tools.pages import kept
from tools.pages.entries import Entry
from tools.pages.shipped.plan import ENTRIES, PAGE, PAGES, PAPERS

FOLDER = kept.RESULTS / PAGE
LOOK = dress.Look(formats=('png',))
AXES = {'bytes': pareto.BYTES, 'milliseconds': pareto.MILLISECONDS}


def write() -> None:
  """Draws the page's figures and writes its README.md."""
  FOLDER.mkdir(exist_ok=True)
  for task, own in _by_task().items():
    for name, axis in AXES.items():
      if (figure := pareto.pareto(task, own, axis)) is not None:
        dress.save(figure, FOLDER, f'{tables.task_stem(task)}.{name}', LOOK)
  (FOLDER / 'README.md').write_text(text())


def text() -> str:
  """Returns the page's text."""
  page = PAGES[PAGE]
  found = {entry: _read(entry) for entry in ENTRIES if entry.ships}
  parts = [f'# {page.title}', '', page.text, '', *_files(found), '']
  for task, own in _by_task().items():
    parts += [f'## {task}', '', shipments.NOTE, '']
    parts += table(' | '.join(shipments.HEADER), [' | '.join(shipments.row(g)) for g in own])
    stem = tables.task_stem(task)
    parts += ['', *(f'![test accuracy over {n}]({stem}.{n}.png)\n' for n in AXES)]
  parts += [f'Made by `python -m tools.reproduce {PAGE} --runs=DIR`.', *_machines(found)]
  return '\n'.join(parts) + '\n'


def _by_task() -> dict[str, list[run_groups.Group]]:
  """Returns the shipped experiments of the kept files by task."""
  found: dict[str, list[run_groups.Group]] = {}
  if any(_read(entry) for entry in ENTRIES):
    for group in run_groups.shipped(run_groups.group(collect.collect([FOLDER]))):
      found.setdefault(group.task, []).append(group)
  return found


def _read(entry: Entry) -> list[dict[str, Any]]:
  """Returns the kept shipments of a row's seeds."""
  paths = [FOLDER / entry.label / f'seed{seed}' / files.SHIPPED for seed in entry.seeds]
  return [kept.read(path) for path in paths if path.exists()]


def _files(found: dict[Entry, list[dict[str, Any]]]) -> list[str]:
  """Returns the table of files: bits, bytes, and test error before and after."""
  head = (
    'network | n | bits | bytes | dense bytes over these | test error of the run, % | '
    'of the file, % | accuracy gained, points | a paper'
  )
  rows = []
  for entry, seeds in found.items():
    paper, error = PAPERS.get(entry.ships, ('', None))
    published = f'{paper} at {error:g} %' if error is not None else ''
    if not seeds:
      rows.append(f'{entry.ships} | 0 | not run | | | | | | {published}')
      continue
    before = [1 - one['before']['test_accuracy'] for one in seeds]
    after = [1 - one['test_accuracy'] for one in seeds]
    gained = [x - y for x, y in zip(before, after, strict=True)]
    bits = ', '.join(dict.fromkeys(str(one['bits']) for one in seeds))
    rows.append(
      f'{entry.ships} | {len(seeds)} | {bits} | {_mean([one["bytes"] for one in seeds], ",.0f")} | '
      f'{_mean([one["dense_bytes"] / one["bytes"] for one in seeds], ".1f")}x | '
      f'{cells.format_percent(before)} | {cells.format_percent(after)} | '
      f'{cells.format_percent(gained)} | {published}'
    )
  return table(head, rows)


def _mean(values: Sequence[float], form: str) -> str:
  mean, spread = run_groups.moments(values)
  return cells.format_moments(mean, spread, f'{mean:{form}}')


def _machines(found: dict[Entry, list[dict[str, Any]]]) -> list[str]:
  """Returns a sentence for each machine on which shipments were measured, with the code."""
  commits: dict[str, set[str]] = {}
  for one in (one for seeds in found.values() for one in seeds):
    start = one['environment']
    machine = (
      f'{start["threads"]} of {start["cpus"]} cores of {start["processor"]}, Python '
      f'{start["python"]}, JAX {start["versions"]["jax"]}'
    )
    commits.setdefault(machine, set()).add(kept.commit_of(start))
  return [f'{name}: code of {", ".join(sorted(commits[name]))}.' for name in sorted(commits)]
