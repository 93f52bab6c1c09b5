"""The figure of a page that compares methods: test error over compression."""

import itertools
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sparsejax.experiment.show import windows
from sparsejax.reports.figures import dress
from sparsejax.reports.figures import experiments as reports
from sparsejax.reports.records import run_groups

# Okabe and Ito's colours, which colour-blind people can tell apart; in print the markers differ.
STYLES = {
  'gradual': ('gradual magnitude', '#0072B2', 'o'),
  'rigl': ('RigL', '#D55E00', 's'),
  'set': ('SET', '#009E73', '^'),
  'l1': ('L1, proximal', '#CC79A7', 'D'),
  'random': ('random', '#666666', 'x'),
}
PAPERS = (
  ('Deep Compression 2015', 12, 1.59, (4, -11)),
  ('network surgery 2016', 56, 1.99, (-46, -26)),
  ('Sparse VD 2017', 68, 1.92, (6, -9)),
)


def error_over_compression(
  rows: Mapping[str, Sequence[pathlib.Path]], path: pathlib.Path, title: str
) -> None:
  """Draws each method's means over seeds, with bars of one standard deviation, and the dense run.

  Args:
    rows: the summaries of each row, by its label `method_point`; 'dense' is the control.
    path: the path of the PNG.
    title: the title of the figure.
  """
  figure, axes = plt.subplots(figsize=(7, 4.5), layout='constrained')
  found = {label: [json.loads(p.read_text()) for p in paths] for label, paths in rows.items()}
  found = {label: summaries for label, summaries in found.items() if summaries}
  for method, (name, colour, marker) in STYLES.items():
    points = sorted(
      _point(summaries) for label, summaries in found.items() if label.startswith(f'{method}_')
    )
    if points:
      x, y, spread = zip(*points, strict=True)
      axes.errorbar(x, y, spread, color=colour, marker=marker, capsize=2, lw=1.2, ms=5, label=name)
  if 'dense' in found:
    _, error, _ = _point(found['dense'])
    axes.axhline(error, color='black', lw=0.8, ls=':', label='dense')
  for name, compression, error, offset in PAPERS:
    axes.plot(compression, error, '*', color='black', ms=8)
    axes.annotate(name, (compression, error), offset, textcoords='offset points', fontsize=7)
  axes.set(xscale='log', yscale='log')
  axes.set_title(title, fontsize=10)
  axes.set(xlabel='compression (weights / active weights)', ylabel='test error, %')
  axes.set_xticks([2, 5, 10, 20, 50, 100], ['2x', '5x', '10x', '20x', '50x', '100x'])
  axes.set_yticks([1, 2, 3, 5, 10, 20, 50], ['1', '2', '3', '5', '10', '20', '50'])
  axes.minorticks_off()
  axes.grid(lw=0.4, alpha=0.5)
  axes.legend(fontsize=8)
  figure.savefig(path, dpi=130)
  plt.close(figure)


def _point(summaries: Sequence[Mapping]) -> tuple[float, float, float]:
  """The mean compression, the mean test error in % and its standard deviation over the seeds."""
  errors = [100 * (1 - s['test_accuracy']) for s in summaries]
  spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
  compression = statistics.mean(s['compression'] for s in summaries)
  return compression, statistics.mean(errors), spread


CURVES = (
  ('train_accuracy', 'training accuracy, %', 100, 'linear'),
  ('kl_term', 'KL term, nats an example', 1, 'log'),
  ('active_fraction', 'active parameters, %', 100, 'log'),
)


def over_epochs(columns: Mapping[str, Mapping[str, pathlib.Path]], path: pathlib.Path) -> None:
  """Draws accuracy, KL and active weights over the epochs of runs that each differ by one change.

  Args:
    columns: {title: {row: metrics.jsonl}}, a column of panels for each title.
    path: the path of the PNG.
  """
  shape = (len(CURVES), len(columns))
  figure, axes = plt.subplots(*shape, figsize=(9, 8), sharex='col', squeeze=False)
  for (title, rows), panels in zip(columns.items(), axes.T, strict=True):
    panels[0].set_title(title, fontsize=10)
    panels[-1].set_xlabel('epoch')
    for (key, name, scale, kind), panel in zip(CURVES, panels, strict=True):
      styles = zip(itertools.cycle(dress.COLOURS[:4]), itertools.cycle(dress.LINES), strict=True)
      for (label, metrics), (colour, style) in zip(rows.items(), styles, strict=False):
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        lines = [line for line in lines if key in line]
        epochs, values = (np.array([line[x] for line in lines], float) for x in ('epoch', key))
        if key.startswith('train'):
          epochs, values = windows.equal(epochs, values)
        marker = 'o' if len(epochs) == 1 else None  # for a posterior that was deployed again
        panel.plot(epochs, scale * values, style, marker=marker, color=colour, lw=1.3, label=label)
      panel.set(yscale=kind, ylabel=name)
      panel.grid(lw=0.4, alpha=0.5)
    panels[-1].legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)
  plt.close(figure)


def log_alpha(rows: Mapping[str, pathlib.Path], path: pathlib.Path) -> None:
  """Draws the histogram of log alpha in each layer, with the threshold used and the suggested one.

  Args:
    rows: {row: summary.json}; if there are too many for a page, the first few are drawn.
    path: the path of the PNG.
  """
  found = {label: json.loads(p.read_text())['log_alpha'] for label, p in rows.items()}
  configs = {label: json.loads(p.with_name('config.json').read_text()) for label, p in rows.items()}
  grouped = [label for label, config in configs.items() if run_groups.has_groups(config)]
  figure = reports.log_alpha(found, grouped=grouped)
  FigureCanvasAgg(figure)
  figure.savefig(path, dpi=dress.DPI)
