"""The panels in the trace of a run, their lines, and the metrics that these draw."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sparsejax.experiment.show import scales
from sparsejax.experiment.terminal.numbers import number, percent

# Okabe and Ito's palette without its yellows, which are unreadable on white.
BLACK, BLUE, VERMILLION, GREEN = '#000000', '#0072B2', '#D55E00', '#009E73'
PURPLE, GREY, PALE = '#AA4499', '#6B6B6B', '#E3E3E3'


class Line(NamedTuple):
  """One line of a panel: its metric and its look."""

  label: str
  key: str
  color: str
  complement: bool = False  # the metric is the share below a magnitude: draw 1 minus it
  style: str = '-'
  width: float = 1.6
  noisy: bool = False
  drawstyle: str = 'default'


class Panel(NamedTuple):
  """One panel: its height in inches, its scale, the form of its values, its lines."""

  name: str
  height: float
  scale: Callable
  text: Callable[[float], str]
  lines: tuple[Line, ...]


def column(metrics: Sequence[Mapping], key: str) -> np.ndarray:
  """Returns the metric `key` of every line, or NaN if it is missing or not a number.

  Args:
    metrics: the lines of a run.
    key: the metric's name.

  Returns:
    float64 of shape (len(metrics),).

  Example:
    >>> column([{'loss': 2}, {}, {'loss': None}, {'loss': 0.5}], 'loss')
    array([2. , nan, nan, 0.5])
  """
  return np.array([number(line.get(key)) for line in metrics], float)  # None becomes NaN


def _short(value):
  return f'{value:.3g}'


PANELS = (
  Panel(
    'loss',
    2.15,
    scales.log,
    _short,
    (
      Line('train', 'train_loss', BLUE, noisy=True),
      Line('validation', 'validation_loss', VERMILLION),
    ),
  ),
  Panel(
    f'accuracy\n({scales.BY_LOG})',
    2.45,
    scales.accuracy,
    percent,
    (
      Line('train', 'train_accuracy', BLUE, noisy=True),
      Line('validation', 'validation_accuracy', VERMILLION),
    ),
  ),
  Panel(
    'learning rate',
    1.1,
    scales.log,
    _short,
    (Line('', 'learning_rate', GREEN, drawstyle='steps-pre'),),
  ),
  Panel(
    'active fraction',
    2.15,
    scales.fraction,
    percent,
    (
      Line('not exactly zero', 'active_fraction', BLACK, width=2.6),
      Line('above 1e-3', 'below_1e-3', BLUE, complement=True),
      Line('above threshold', 'below_threshold', PURPLE, complement=True, style='--'),
    ),
  ),
)


KL = 'kl/'  # the prefix of the layers' metrics, which end in their paths
LAYER_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, GREY)


def run_panels(metrics):
  """Returns the panels of a run: those of every run, and a variational run's own three."""
  layers = {key for line in metrics for key in line if key.startswith(KL)}
  if not layers:
    return PANELS
  most = sorted(layers, key=lambda key: -np.nanmax(column(metrics, key), initial=0))
  shown = sorted(most[: len(LAYER_COLOURS)])
  terms = (
    Line('cross-entropy', 'train_loss', BLUE, noisy=True),
    Line('KL', 'kl_term', VERMILLION),
  )
  by_layer = (
    Line('total', 'kl', BLACK, width=2.6),
    *(
      Line(key.removeprefix(KL), key, colour)
      for key, colour in zip(shown, LAYER_COLOURS, strict=False)
    ),
  )
  return (
    *PANELS,
    Panel('nats an example', 1.8, scales.log, _short, terms),
    Panel('KL, nats', 2.15, scales.log, _short, by_layer),
    Panel('at their bounds', 1.1, scales.fraction, percent, (Line('', 'at_bounds', GREEN),)),
  )


def series(metrics, line):
  """The values that a line draws, NaN where there are none."""
  values = column(metrics, line.key)
  values[~np.isfinite(values)] = np.nan
  return 1 - values if line.complement else values
