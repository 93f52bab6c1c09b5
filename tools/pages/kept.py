"""The kept files of each run, in its own folder below results/NAME."""

import json
import pathlib
import re
from typing import Any

from sparsejax.experiment.machine import files
from tools import ROOT, carry
from tools.pages.entries import Entry
from tools.pages.pages import PAGES

RESULTS = ROOT / 'results'
THRESHOLDS = 'thresholds.json'  # tools/thresholds.py's validation figures of a posterior


def commit_of(environment: dict[str, Any]) -> str:
  """Returns the commit of the code that made a figure.

  Example:
    >>> commit_of({'git_commit': '0123456789', 'git_dirty': True})
    '0123456 with changes'
  """
  changed = ' with changes' if environment.get('git_dirty') else ''
  return f'{environment["git_commit"][:7]}{changed}'


def keep(name: str, runs: pathlib.Path, results: pathlib.Path | None = None) -> None:
  """Copies the files to keep of a page's finished runs into the page's folder below `results`."""
  results = results or RESULTS
  page = PAGES[name]
  folder = runs / (page.runs or name)
  for entry in page.entries:
    for seed in entry.seeds:
      source = folder / entry.label / f'seed{seed}'
      target = results / name / entry.label / f'seed{seed}'
      if not (source / entry.result).exists():
        continue
      if entry.ships:
        target.mkdir(parents=True, exist_ok=True)
        (target / files.SHIPPED).write_text((source / files.SHIPPED).read_text())
      else:
        traced = seed == entry.seeds[0] and re.search(page.traces, entry.label)
        _copy(source, target, page.lines, with_trace=bool(traced))


def _copy(source: pathlib.Path, target: pathlib.Path, most: int, *, with_trace: bool) -> None:
  target.mkdir(parents=True, exist_ok=True)
  config = carry.carried(read(source / 'config.json'))
  config['data']['dir'] = None
  if config.get('init_from'):
    config['init_from'] = '/'.join(pathlib.Path(config['init_from']).parts[-2:])
  (target / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
  for file in ('summary.json', 'environment.json'):
    (target / file).write_text((source / file).read_text())
  lines = (source / 'metrics.jsonl').read_text().splitlines(keepends=True)
  (target / 'metrics.jsonl').write_text(''.join(thin(lines, most)))
  if with_trace:
    (target / 'trace.png').write_bytes((source / 'trace.png').read_bytes())


def thin(lines: list[str], most: int) -> list[str]:
  """Returns the lines of evaluations and every k-th other line, about `most` in all."""
  evaluations = sum('validation_loss' in line for line in lines)
  every = -(-len(lines) // max(most - evaluations, 1))
  return [line for i, line in enumerate(lines) if i % every == 0 or 'validation_loss' in line]


def read(path: pathlib.Path) -> Any:
  return json.loads(path.read_text())


def summaries(name: str, entry: Entry) -> list[pathlib.Path]:
  """Returns the existing summaries of a row's seeds."""
  folder = RESULTS / name / entry.label
  paths = [folder / f'seed{seed}' / 'summary.json' for seed in entry.seeds]
  return [path for path in paths if path.exists()]


def firsts(name: str, only: str = '') -> dict[str, pathlib.Path]:
  """Returns the summary of the first seed of each row that matches the expression, by label."""
  entries = [entry for entry in PAGES[name].entries if re.search(only, entry.label)]
  found = {entry.label: summaries(name, entry)[:1] for entry in entries}
  return {label: path for label, paths in found.items() for path in paths}
