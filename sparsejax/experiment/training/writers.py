"""The destinations of a run's lines of metrics: metrics.jsonl and, on request, TensorBoard."""

from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import checkpoint, metrics, runs
from sparsejax.experiment.training.setup import Experiment


class Writers:
  """All destinations of a line of metrics; only the process that writes has any."""

  def __init__(self, directory: runs.RunDirectory | None, experiment: Experiment, step: int):
    self._file = self._events = None
    if directory is None:
      return
    saved = checkpoint.read_metrics(directory.checkpoints, step)
    self._file = metrics.MetricsFile(directory.path / files.METRICS, saved)
    if experiment.config['log']['tensorboard']:
      from sparsejax.experiment.rundir import tensorboard

      last = self.lines[-1]['step'] if self.lines else 0
      self._events = tensorboard.open_events(directory.path / 'tensorboard', purge_step=last + 1)

  @property
  def lines(self) -> list[dict[str, Any]]:
    return self._file.lines if self._file else []

  @property
  def text(self) -> str:
    """The content of metrics.jsonl."""
    return self._file.text if self._file else ''

  def append(self, line: Mapping[str, Any]) -> None:
    if self._file:
      self._file.append(line)
    if self._events:
      self._events.write(line['step'], line)

  def sync(self) -> None:
    if self._file:
      self._file.sync()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    for place in (self._file, self._events):
      if place:
        place.close()
