"""The part of a run's metrics that a report keeps: newest figures, a few curves of bounded size."""

import array
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sparsejax.reports.records import reading, record_checks

TRAINED = 'train_accuracy'
DRAWN = ('validation_accuracy', 'validation_loss', 'active_fraction')
MOST = 512  # points of a curve
MOST_BYTES = 1 << 20  # bytes of a line
MOST_NAMES = 4096  # names of figures


class Metrics(NamedTuple):
  """The metrics of a run.

  Attributes:
    last: the newest value of every figure.
    curves: the epochs and the values of each figure that is drawn. Training accuracy is averaged
      over whole epochs, because a line may cover a window of any length.
    is_lost: whether a loss became infinite or NaN.
  """

  last: Mapping[str, Any]
  curves: Mapping[str, tuple[array.array, array.array]]
  is_lost: bool

  @property
  def epoch(self) -> float:
    return float(self.last.get('epoch', 0.0))


class _Curve:
  """Points added one after the other, of which at most twice MOST are held."""

  def __init__(self):
    self._points: list[tuple[float, float]] = []

  def add(self, epoch: float, value: float) -> None:
    self._points.append((epoch, value))
    if len(self._points) >= 2 * MOST:
      self._points = list(map(tuple, thinned(np.array(self._points))))

  def columns(self) -> tuple[array.array, array.array]:
    epochs, values = thinned(np.array(self._points)).T
    return array.array('d', epochs), array.array('d', values)


class _ByEpoch:
  """Means over whole epochs, from values that are each the mean since the value before."""

  def __init__(self):
    self.curve = _Curve()
    self.is_empty = True
    self._end = self._sum = self._weight = 0.0

  def add(self, epoch: float, value: float | None) -> None:
    begin, self._end = self._end, max(self._end, epoch)
    length = self._end - begin
    if value is None or length <= 0:
      return
    edge = math.floor(begin) + 1.0
    if length > 1:  # the value is itself a mean over more than an epoch
      self._put(epoch, value, 1.0)
      self._sum = self._weight = 0.0
    elif epoch < edge:
      self._sum, self._weight = self._sum + length * value, self._weight + length
    else:
      own, rest = edge - begin, epoch - edge
      self._put(edge, self._sum + own * value, self._weight + own)
      self._sum, self._weight = rest * value, rest

  def _put(self, epoch: float, total: float, weight: float) -> None:
    if weight > 0.5:  # else most of the epoch has no value
      self.curve.add(epoch, total / weight)
      self.is_empty = False

  def close(self) -> None:
    """Adds the mean of a run that was shorter than a whole epoch."""
    if self.is_empty and self._weight > 0:
      self.curve.add(self._end, self._sum / self._weight)
      self.is_empty = False


def thinned(points: np.ndarray, most: int = MOST) -> np.ndarray:
  """Returns fewer points of a curve: its ends, and the lowest and highest point of each stretch.

  Args:
    points: (points, 2), in order.
    most: the most points that are left.
  """
  if len(points) <= most:
    return points
  kept = {0, len(points) - 1}
  for stretch in np.array_split(np.arange(len(points)), most // 2 - 1):
    values = points[stretch, 1]
    kept |= {int(stretch[values.argmin()]), int(stretch[values.argmax()])}
  return points[sorted(kept)]


def reduce_lines(lines: Iterable[Mapping[str, Any]]) -> Metrics:
  """Returns the curves and last values of lines of metrics; each has a number as `epoch`."""
  last: dict[str, Any] = {}
  curves: dict[str, _Curve] = {}
  trained = _ByEpoch()
  is_lost = False
  for line in lines:
    # A loss that is not finite is null in the metrics, because JSON has no such number.
    is_lost = is_lost or any(
      key in line and not record_checks.is_figure(line[key]) for key in record_checks.LOSSES
    )
    if len(last) < MOST_NAMES:
      last.update(line)
    else:
      last.update((key, value) for key, value in line.items() if key in last)
    for key in DRAWN:
      if key in line and record_checks.is_figure(line[key]):
        curves.setdefault(key, _Curve()).add(float(line['epoch']), float(line[key]))
    trained.add(float(line['epoch']), line.get(TRAINED))
  trained.close()
  if not trained.is_empty:
    curves[TRAINED] = trained.curve
  return Metrics(last, {key: curve.columns() for key, curve in curves.items()}, is_lost)


def read(path: pathlib.Path, problems: list[str]) -> Metrics:
  """Returns the part of a metrics.jsonl that is kept; adds what is wrong with it to a list.

  Lines that are cut off, or are not metrics, are left out and make one problem together.
  """
  wrong: list[int] = []
  try:
    with path.open('rb') as file:
      found = reduce_lines(_lines(file, wrong))
  except FileNotFoundError:
    problems.append(f'{path.name} is missing')
    return reduce_lines(())
  except OSError as error:
    problems.append(f'{path.name} cannot be read: {error.strerror}')
    return reduce_lines(())
  if wrong:
    others = f', and so are {len(wrong) - 1} more' if len(wrong) > 1 else ''
    problems.append(f'{path.name}, line {wrong[0]}, is cut off or not a line of metrics{others}')
  try:
    return found._replace(last=reading.cleaned(found.last))
  except reading.ReadingError as error:
    problems.append(f'{path.name} cannot be read: {error}')
    return reduce_lines(())


def _lines(file: BinaryIO, wrong: list[int]) -> Iterable[dict[str, Any]]:
  number, is_new = 0, True
  while content := file.readline(MOST_BYTES):
    number += is_new
    is_whole = is_new
    is_new = content.endswith(b'\n')
    if not content.strip():
      continue
    line = _line(content) if is_whole and len(content) < MOST_BYTES else None
    if line is not None:
      yield line
    elif wrong[-1:] != [number]:
      wrong.append(number)


def _line(content: bytes) -> dict[str, Any] | None:
  """A line of metrics, or None if the content is no such line."""
  try:
    line = json.loads(content.decode())
  except (ValueError, RecursionError):
    return None
  is_right = isinstance(line, dict) and record_checks.wrong_in_line(line) is None
  return line if is_right else None
