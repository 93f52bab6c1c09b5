"""The README.md of a page and its figures, made only from the kept files."""

import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.experiment.show import phases
from sparsejax.posterior import precision
from sparsejax.reports.text import cells
from sparsejax.reports.text.markdown import table, times
from tools.pages import figures, kept
from tools.pages.cifar10 import page as cifar10_page
from tools.pages.kept import RESULTS
from tools.pages.pages import PAGES
from tools.pages.shipped import page as shipped_page

FIGURE, CURVES, HISTOGRAMS = 'error_over_compression.png', 'by_epoch.png', 'log_alpha.png'
OWN = {'cifar10': cifar10_page, 'shipped': shipped_page}  # pages with a maker of their own
TITLES = {
  FIGURE: 'test error over compression',
  CURVES: 'accuracy, KL and active weights by epoch',
  HISTOGRAMS: 'log alpha by layer',
}


def write(name: str) -> None:
  """Draws a page's figures and writes its README.md."""
  if name in OWN:
    OWN[name].write()
    return
  folder, page, drawn = RESULTS / name, PAGES[name], []
  folder.mkdir(exist_ok=True)
  if page.figure:
    rows = {e.label: kept.summaries(name, e) for e in page.entries if 'lenet5' not in e.label}
    figures.error_over_compression(rows, folder / FIGURE, page.figure)
    drawn.append(FIGURE)
  if page.curves:
    columns = {title: _metrics(kept.firsts(name, only)) for title, only in page.curves}
    figures.over_epochs({title: rows for title, rows in columns.items() if rows}, folder / CURVES)
    drawn.append(CURVES)
  if shown := _with_posteriors(name):
    figures.log_alpha(shown, folder / HISTOGRAMS)
    drawn.append(HISTOGRAMS)
  (folder / 'README.md').write_text(text_of(name, drawn))


def _metrics(summaries: dict[str, pathlib.Path]) -> dict[str, pathlib.Path]:
  return {label: path.with_name('metrics.jsonl') for label, path in summaries.items()}


def _with_posteriors(name: str) -> dict[str, pathlib.Path]:
  """The summary of the first seed of each row that has histograms of log alpha."""
  return {
    label: path for label, path in kept.firsts(name).items() if 'log_alpha' in kept.read(path)
  }


def text_of(name: str, drawn: Sequence[str]) -> str:
  """Returns the page's text.

  Args:
    name: the name of the page.
    drawn: the files of its figures.
  """
  if name in OWN:
    return OWN[name].text()
  folder, page = RESULTS / name, PAGES[name]
  paths = {entry: kept.summaries(name, entry) for entry in page.entries}
  found = {entry: list(map(kept.read, of_entry)) for entry, of_entry in paths.items()}
  text = [f'# {page.title}', '', page.text, '']
  text += [f'![{TITLES[file]}]({file})\n' for file in drawn]
  text += _means(found)
  if any(found.values()):
    text += ['', *_runs(found)]
  if posteriors := _posteriors(found):
    text += ['', *posteriors]
  if tried := _validated(folder, page):
    text += ['', *tried]
  machines = _machines([path for of_entry in paths.values() for path in of_entry])
  made_by = f'Made by `python -m tools.reproduce {name} --runs=DIR`.'
  text += ['', ' '.join([made_by, *machines])]
  pictures = sorted(folder.glob('*/seed*/trace.png'))
  text += [f'\n![{p.parent.parent.name}]({p.relative_to(folder)})' for p in pictures]
  return '\n'.join(text) + '\n'


def _posteriors(found) -> list[str]:
  """The extra table of variational runs: units kept, bits, and the figures with bits."""
  head = (
    'run | seed | units kept by layer | bits by layer | compression | with bits | '
    'test error, % | with bits'
  )
  rows = []
  for entry, summaries in found.items():
    for s in summaries:
      if 'architecture' in s:
        units, widths = ('-'.join(map(str, x)) for x in (s['architecture'], s['bits'].values()))
        errors = [
          f'{100 * (1 - s[key]):.2f}' for key in ('test_accuracy', 'test_accuracy_with_bits')
        ]
        rows.append(
          f'{entry.label} | {s["seed"]} | {units} | {widths} | {times(s["compression"])} | '
          f'{times(s["compression_with_bits"])} | {errors[0]} | {errors[1]}'
        )
  return [*table(head, rows), '', f'Compression with bits: {precision.LEFT_OUT}.'] if rows else []


def _validated(folder: pathlib.Path, page) -> list[str]:
  """Returns the table of thresholds and their validation figures, for rows that chose them."""
  rows = []
  for entry in page.entries:
    file = folder / entry.label / kept.THRESHOLDS
    for tried in kept.read(file) if file.exists() else ():
      if 'refused' in tried:
        rows.append(f'{entry.label} | {tried["asked"]} | a layer would be lost | - | -')
        continue
      asked = ', '.join(f'{layer} {value:g}' for layer, value in tried['thresholds'].items())
      units = '-'.join(map(str, tried['architecture']))
      rows.append(
        f'{entry.label} | {asked} | {100 * tried["validation_accuracy"]:.1f} | '
        f'{times(tried["compression"])} | {units}'
      )
  head = 'posterior of | thresholds tried | validation accuracy, % | compression | units kept'
  return table(head, rows) if rows else []


def _means(found) -> list[str]:
  head = 'row | n | test error, % | compression | theoretical speed-up | active fraction'
  rows = []
  for entry, summaries in found.items():
    if not summaries:
      rows.append(f'{entry.label} | 0 | not run | | |')
      continue
    error = cells.format_percent([1 - s['test_accuracy'] for s in summaries])
    ratios = [
      statistics.mean(math.inf if s[key] is None else s[key] for s in summaries)
      for key in ('compression', 'theoretical_speedup', 'active_fraction')
    ]
    rows.append(
      f'{entry.label} | {len(summaries)} | {error} | {times(ratios[0])} | {times(ratios[1])} | '
      f'{100 * ratios[2]:.2f} %'
    )
  return table(head, rows)


def _runs(found) -> list[str]:
  head = (
    'run | seed | cut: validation accuracy before to after, % | validation accuracy, % | '
    'test accuracy, % | active weights | seconds'
  )
  rows = []
  for entry, summaries in found.items():
    for s in summaries:
      pair = phases.cut_accuracies(s)
      cut = ' to '.join(f'{100 * a:.2f}' for a in pair) if pair else phases.no_cut_reason(s)
      rows.append(
        f'{entry.label} | {s["seed"]} | {cut} | {100 * phases.final(s):.2f} | '
        f'{100 * s["test_accuracy"]:.2f} | '
        f'{s["active_weights"]:,} of {s["weights"]:,} | {s["seconds"]:.0f}'
      )
  return table(head, rows)


def _machines(summaries: Sequence[pathlib.Path]) -> list[str]:
  """A sentence for each machine that runs used, with the code; a run may continue elsewhere."""
  commits: dict[str, set[str]] = {}
  for summary in summaries:
    for start in kept.read(summary.with_name('environment.json')):
      machine = (
        f'{start["cpus"]} cores of {start["processor"]}, {_devices(start)}, '
        f'Python {start["python"]}, JAX {start["versions"]["jax"]}'
      )
      commits.setdefault(machine, set()).add(kept.commit_of(start))
  return [
    f'{machine}: code of {", ".join(sorted(commits[machine]))}.' for machine in sorted(commits)
  ]


def _devices(start) -> str:
  kinds = kinds_of(start)
  return f'{len(start["devices"])} {start["backend"]} device(s)' + (f' ({kinds})' if kinds else '')


def kinds_of(start: Mapping[str, Any]) -> str:
  """The kinds of an environment's devices; '' for a CPU, which the environment names itself.

  Example:
    >>> kinds_of({'backend': 'gpu', 'devices': ['a chip', 'a chip']})
    'a chip'
  """
  return '' if start['backend'] == 'cpu' else ', '.join(sorted(set(start['devices'])))
