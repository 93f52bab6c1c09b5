"""The figures of the page on CIFAR-10: ours beside published ones, and the log's own charts."""

import itertools
import pathlib
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparsejax.experiment.show import scales
from sparsejax.reports.figures import published
from sparsejax.reports.figures.dress import GREY, grid, legend, save, styles
from tools.pages.cifar10.rows import Row

EXACT, DECAY, BY_SIZE = 'exact_sparsity.png', 'weight_decay.png', 'accuracy_by_size.png'
THROUGH_THE_CUT, BREAKDOWN = 'through_the_cut.png', 'breakdown.png'
OVERVIEWS = (EXACT, DECAY, BY_SIZE)
METHODS = (  # (a part of the label, the name of the method); the first match counts
  ('_exact_kernels_', ''),  # in their own figure
  ('_scales_stay', 'one cut, scales stay'),
  ('_exact_', 'one cut, all parameters'),
  ('_threshold_', 'one cut, threshold'),
  ('_gradual_', 'gradual, ERK'),
  ('_random_', 'random, ERK'),
  ('_rigl_', 'RigL, ERK'),
  ('_set_', 'SET, ERK'),
  ('_l1_', 'L1, proximal'),
  ('_rewound_', 'learning-rate rewinding'),
  ('_sparse_vd_', 'Sparse VD'),
  ('_bc_', 'Bayesian compression'),
  ('_180_', '180 epochs'),
  ('_dense', 'narrower, dense'),
)


def pareto_name(network: str) -> str:
  return f'pareto_{network}.png'


def draw(rows: Mapping[str, Row], folder: pathlib.Path) -> None:
  """Draws every figure that there are runs for, as PNG."""
  run = {label: row for label, row in rows.items() if row.runs}
  made = {
    EXACT: exact_sparsity(run),
    DECAY: weight_decay(run),
    BY_SIZE: accuracy_by_size(run),
    THROUGH_THE_CUT: through_the_cut(run),
    BREAKDOWN: breakdown(run),
  }
  networks = dict.fromkeys(row.network.partition('_width')[0] for row in run.values())
  made |= {pareto_name(network): pareto(network, run) for network in networks}
  for name, figure in made.items():
    (folder / name).unlink(missing_ok=True)
    if figure is not None:
      save(figure, folder, name.removesuffix('.png'))
      (folder / name).with_suffix('.svg').unlink()


def _method(label: str) -> str:
  return next((name for part, name in METHODS if part in label), '')


def _point(row: Row, x: str = 'active_parameters') -> tuple[float, float, float]:
  """The mean of a figure, the mean test accuracy, and its deviation."""
  accuracies = row.values('test_accuracy')
  spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
  return statistics.mean(row.values(x)), statistics.mean(accuracies), spread


def _draw(ax, points: Sequence[tuple[float, float, float]], style, label: str) -> Line2D:
  """Draws points with their deviations, joined from left to right; returns a handle."""
  x, y, spread = np.array(sorted(points)).T
  look = {'color': style['color'], 'marker': style['marker'], 'ms': 5}
  ax.errorbar(x, y, spread, ls=style['linestyle'], lw=1.1, capsize=2, **look)
  return Line2D([], [], label=label, ls=style['linestyle'], lw=1.1, **look)


def _axes(title: str) -> tuple[Figure, object]:
  figure = Figure(figsize=(7.5, 4.6), layout='constrained')
  ax = figure.subplots()
  ax.set_title(title, fontsize=10)
  ax.set_ylabel(f'test accuracy ({scales.BY_LOG})')
  return figure, ax


def pareto(network: str, rows: Mapping[str, Row]) -> Figure | None:
  """Test accuracy over active weights, a line for each method, of a model at all its widths.

  The share is of the weights of the model at its full width, so that narrower dense networks have
  their place on the same axis.
  """
  own = {label: row for label, row in rows.items() if label.split('_')[0] == network}
  whole = max((row.runs[0].summary['weights'] for row in own.values()), default=0)
  found: dict[str, list] = {}
  for label, row in own.items():
    name = _method(label)
    if (
      name
      and not label.endswith(('control', '_trunk'))
      and (name != 'narrower, dense' or 'width' in label)
    ):
      weights, accuracy, spread = _point(row, 'active_weights')
      found.setdefault(name, []).append((weights / whole, accuracy, spread))
  if not found:
    return None
  figure, ax = _axes(f'{network} on CIFAR-10: test accuracy over weights left')
  others = published.points(f'{network} on cifar10')
  every = [point for points in found.values() for point in points]
  fractions = [p[0] for p in every] + [p.active_fraction for o in others.values() for p in o]
  scales.fraction_along_x(ax, np.array(fractions))
  shown = [p[1] for p in every] + [p.accuracy for o in others.values() for p in o]
  control = own.get(f'{network}_exact_control')
  level = None if control is None else _point(control)[1]
  shown += [] if level is None else [level]
  scales.spaced_accuracy(ax, scales.spacing(np.array(shown)))
  handles = [_draw(ax, points, style, name) for (name, points), style in _styled(found)]
  for (source, points), marker in zip(others.items(), itertools.cycle('*hpd8'), strict=False):
    x, y = [p.active_fraction for p in points], [p.accuracy for p in points]
    look = {'color': GREY, 'ls': ':', 'lw': 0.9, 'marker': marker, 'mfc': 'none', 'ms': 8}
    ax.plot(x, y, **look)
    handles.append(Line2D([], [], label=source, **look))
  if level is not None:
    handles.append(ax.axhline(level, color='black', lw=0.9, ls='--', label='dense control'))
  ax.set_xlabel('active weights')
  grid(ax)
  legend(figure, handles, [published.note(others)] if others else [])
  return figure


def _styled(found: Mapping[str, list]):
  return zip(found.items(), styles(list(found)).values(), strict=True)


def exact_sparsity(rows: Mapping[str, Row]) -> Figure | None:
  """The log's chart of 14 December: networks at exact shares of all their parameters."""
  found: dict[str, list] = {}
  for row in rows.values():
    if _method(row.entry.label) == 'one cut, all parameters':  # the control keeps all of them
      found.setdefault(row.network, []).append(_point(row, 'active_fraction'))
  if not found:
    return None
  figure, ax = _axes('One cut to an exact share of all parameters')
  sources = {n: published.points(f'{n} on cifar10').get('log of 2017', []) for n in found}
  values = [p[1] for points in found.values() for p in points]
  values += [p.accuracy for points in sources.values() for p in points]
  scales.fraction_along_x(ax, np.array([p[0] for points in found.values() for p in points]))
  scales.spaced_accuracy(ax, scales.spacing(np.array(values)))
  handles = []
  for (network, points), style in _styled(found):
    handles.append(_draw(ax, points, style, network))
    if logged := sources[network]:
      look = {'color': style['color'], 'marker': '*', 'mfc': 'none', 'ls': ':', 'lw': 0.9}
      ax.plot([p.active_fraction for p in logged], [p.accuracy for p in logged], **look)
      handles.append(Line2D([], [], label=f'{network}, log of 2017, validation', **look))
  ax.set_xlabel('active parameters')
  grid(ax)
  legend(figure, handles)
  return figure


LOGGED_DECAYS = {5e-3: (0.00051, 0.7282), 1e-3: (0.01, 0.915), 5e-4: (0.024, 0.924)} | {
  5e-5: (0.1045, 0.925)
}


def weight_decay(rows: Mapping[str, Row]) -> Figure | None:
  """The log's figures of 6 November: weight decay and the weights above a threshold of 0.02."""
  own = {
    float(label.rpartition('_')[2]): row
    for label, row in rows.items()
    if label.startswith('resnet20_threshold_decay_')
  }
  if not own:
    return None
  figure = Figure(figsize=(9, 4), layout='constrained')
  left, right = figure.subplots(1, 2)
  series = {
    "resnet20, this page's test images": (
      list(own),
      [1 - row.runs[0].lines[-1]['below_1e-3'] for row in own.values()],
      [_point(row)[1] for row in own.values()],
    ),
    'resnet50, log of 2017, validation images': (
      list(LOGGED_DECAYS),
      *zip(*LOGGED_DECAYS.values(), strict=True),
    ),
  }
  handles = []
  for (label, (decays, fractions, accuracies)), style in _styled(series):
    look = {'color': style['color'], 'marker': style['marker'], 'ls': style['linestyle'], 'lw': 1.1}
    for ax, values in ((left, fractions), (right, accuracies)):
      ax.plot(decays, values, **look)
    handles.append(Line2D([], [], label=label, **look))
  for ax, name in ((left, 'parameters above 1e-3'), (right, f'accuracy ({scales.BY_LOG})')):
    ax.set(xscale='log', xlabel="weight decay, in the log's units", ylabel=name)
    grid(ax)
  scales.fraction(left, np.array([f for _, fractions, _ in series.values() for f in fractions]))
  scales.accuracy(right, np.array([a for *_, accuracies in series.values() for a in accuracies]))
  figure.suptitle('One cut at a threshold of 0.02', fontsize=10)
  legend(figure, handles)
  return figure


def accuracy_by_size(rows: Mapping[str, Row]) -> Figure | None:
  """The log's chart of 4 October: accuracy over active parameters, narrow beside pruned."""
  found: dict[str, list] = {}
  for label, row in rows.items():
    model = label.split('_')[0]
    if label.endswith('_dense') or label == f'{model}_exact_control':
      found.setdefault(f'{model}, dense', []).append(_point(row))
    elif _method(label) in ('one cut, all parameters', 'gradual, ERK'):
      found.setdefault(f'{model}, {_method(label)}', []).append(_point(row))
  if not found:
    return None
  figure, ax = _axes('Accuracy over size: dense at several widths, and pruned')
  sizes, accuracies, _ = np.array([point for points in found.values() for point in points]).T
  scales.spaced_accuracy(ax, scales.spacing(accuracies))
  ax.set_xlim(sizes.min() / 1.5, sizes.max() * 1.5)
  ax.set_xscale('log')
  handles = [_draw(ax, points, style, name) for (name, points), style in _styled(found)]
  ax.set_xlabel('active parameters')
  grid(ax)
  legend(figure, handles)
  return figure


def through_the_cut(rows: Mapping[str, Row]) -> Figure | None:
  """The log's sparsity traces: accuracy and parameters above 1e-3, from the trunk on."""
  names = ('_exact_1_percent', '_exact_0.1_percent', '_threshold_decay_0.0005')
  own = {label: row for label, row in rows.items() if label.endswith(names)}
  if not own:
    return None
  figure = Figure(figsize=(7.5, 5.6), layout='constrained')
  upper, lower = figure.subplots(2, 1, sharex=True)
  handles, accuracies, fractions = [], [], []
  for (label, row), style in _styled(own):
    trunk = row.trunks[0].lines
    begin = row.trunks[0].summary['epochs']
    lines = [*trunk, *({**line, 'epoch': begin + line['epoch']} for line in row.runs[0].lines)]
    epochs = [line['epoch'] for line in lines]
    look = {'color': style['color'], 'ls': style['linestyle'], 'lw': 1.2}
    accuracies += (y := [line['validation_accuracy'] for line in lines])
    fractions += (z := [1 - line['below_1e-3'] for line in lines])
    upper.plot(epochs, y, **look)
    lower.plot(epochs, z, **look)
    handles.append(Line2D([], [], label=label, **look))
  scales.accuracy(upper, np.array(accuracies))
  scales.fraction(lower, np.array(fractions))
  upper.set_ylabel(f'validation accuracy\n({scales.BY_LOG})')
  lower.set(ylabel='parameters above 1e-3', xlabel='epoch')
  upper.set_title('Through the cut', fontsize=10)
  grid(upper)
  grid(lower)
  legend(figure, handles)
  return figure


def breakdown(rows: Mapping[str, Row]) -> Figure | None:
  """How few of resnet20's kernel weights still train, by how they are allocated."""
  names = {
    'rank': 'global rank, a weight at least in each layer',
    'rank_no_floor': 'global rank, no floor',
    'erk': 'ERK',
  }
  found = {
    name: [
      _point(row, 'sparsity')
      for label, row in rows.items()
      if label.startswith(f'resnet20_exact_kernels_{rule}_')
      and label.removeprefix(f'resnet20_exact_kernels_{rule}_')[0].isdigit()
    ]
    for rule, name in names.items()
  }
  found = {
    name: [(1 - x, *rest) for x, *rest in points] for name, points in found.items() if points
  }
  if not found:
    return None
  figure, ax = _axes('resnet20: one cut of the kernels')
  every = [point for points in found.values() for point in points]
  scales.fraction_along_x(ax, np.array([p[0] for p in every]))
  scales.spaced_accuracy(ax, scales.spacing(np.array([p[1] for p in every])))
  handles = [_draw(ax, points, style, name) for (name, points), style in _styled(found)]
  ax.set_xlabel('active weights')
  grid(ax)
  legend(figure, handles)
  return figure
