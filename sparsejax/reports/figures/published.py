"""Results of papers and of the log of 2017-18, to draw beside runs of the same network and data.

Active fractions are shares of the weights, as the papers count; ours on the same axis are shares of
all trainable parameters. Accuracies are on test images, those of the log on validation images.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Point(NamedTuple):
  """One published figure.

  Attributes:
    task: the task, as in `Run.task`.
    source: the publication that reports it.
    active_fraction: the active share of the weights, 0 to 1.
    accuracy: 0 to 1.
  """

  task: str
  source: str
  active_fraction: float
  accuracy: float

  @property
  def is_collapsed(self) -> bool:
    """Whether the network only guesses; all of these tasks have ten classes."""
    return self.accuracy < 0.11


def _points(task: str, source: str, *points: tuple[float, float]) -> tuple[Point, ...]:
  """Returns a publication's points, given in percent of the weights and of the images."""
  return tuple(Point(task, source, active / 100, right / 100) for active, right in points)


LENET300, LENET5 = 'lenet300 on mnist', 'lenet5 on mnist'
POINTS = (
  # Han, Mao and Dally 2016, https://arxiv.org/abs/1510.00149
  *_points(LENET300, 'Deep Compression 2015', (100 / 12, 98.42)),
  *_points(LENET5, 'Deep Compression 2015', (100 / 12, 99.26)),
  # Guo et al. 2016, https://arxiv.org/abs/1608.04493
  *_points(LENET300, 'dynamic network surgery 2016', (1.8, 98.01)),
  *_points(LENET5, 'dynamic network surgery 2016', (0.9, 99.09)),
  # Molchanov et al. 2017, https://arxiv.org/abs/1701.05369
  *_points(LENET300, 'sparse variational dropout 2017', (100 / 68, 98.08)),
  *_points(LENET5, 'sparse variational dropout 2017', (100 / 280, 99.25)),
  # Louizos et al. 2017, https://arxiv.org/abs/1705.08665
  *_points(LENET300, 'Bayesian compression 2017, normal-Jeffreys', (100 / 9, 98.2)),
  *_points(LENET5, 'Bayesian compression 2017, normal-Jeffreys', (100 / 108, 99.0)),
  *_points(LENET300, 'Bayesian compression 2017, horseshoe', (100 / 9, 98.2)),
  *_points(LENET5, 'Bayesian compression 2017, horseshoe', (100 / 156, 99.0)),
  # The log: Deep Compression at exact sparsity, and L1, on validation images.
  *_points('resnet50 on cifar10', 'log of 2017', (5, 93.5), (1, 92.7), (0.5, 90.7), (0.1, 62)),
  *_points('vgg16 on cifar10', 'log of 2017', (5, 92.3), (1, 91.3), (0.5, 89.6), (0.1, 10)),
  *_points('mobilenet on cifar10', 'log of 2017', (5, 89.1), (1, 87.2), (0.5, 10), (0.1, 10)),
  *_points(
    'mobilenet on cifar10', 'log of 2017, L1', (0.55, 85.6), (1.4, 88.4), (3.6, 89.3), (40, 89.5)
  ),
  # Renda, Frankle and Carbin 2020, https://arxiv.org/abs/2003.02389
  *_points(
    'resnet56 on cifar10',
    'learning-rate rewinding 2020',
    (10.7, 93.56),
    (5.5, 92.88),
    (4.4, 92.58),
    (2.8, 91.75),
    (2.25, 91.15),
  ),
  # Tanaka et al. 2020, https://arxiv.org/abs/2006.05467
  *_points(
    'vgg16 on cifar10',
    'SynFlow 2020, at initialisation',
    (10, 93.3),
    (5.6, 92.7),
    (1.8, 91.2),
    (1, 90.1),
    (0.6, 88.5),
    (0.1, 80.4),
  ),
)


def note(found: Mapping[str, Sequence[Point]]) -> str:
  """Returns a note under the figure that says how these points are counted."""
  text = 'published: fractions of the weights, without biases and norms'
  has_log = any(source.startswith('log of 2017') for source in found)
  return text + ("; the log's accuracies are on validation images" if has_log else '')


def points(task: str) -> dict[str, list[Point]]:
  """Returns the published points of a task, by source."""
  found: dict[str, list[Point]] = {}
  for point in POINTS:
    if point.task == task:
      found.setdefault(point.source, []).append(point)
  return found
