"""Event files for TensorBoard, by tensorboardX, without TensorFlow or a thread.

The tags are the names in metrics.jsonl. Every line is on the disk when `write` returns, so a killed
run leaves no gap before the step that it is restored to.
"""

import os
import time
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any


def scalars(metrics: Mapping, prefix: str = '') -> Iterator[tuple[str, float]]:
  """Yields (tag, value) for every number among the metrics, nested ones as `outer/inner`.

  Args:
    metrics: a line of metrics; values that are not numbers (None, text) are skipped, NaN is kept.
    prefix: the beginning of each tag.

  Example:
    >>> list(scalars({'train_loss': 0.5, 'kl': {'conv1': 2}, 'note': 'x', 'validation_loss': None}))
    [('train_loss', 0.5), ('kl/conv1', 2.0)]
  """
  for name, value in metrics.items():
    if isinstance(value, Mapping):
      yield from scalars(value, f'{prefix}{name}/')
    elif isinstance(value, Real) or getattr(value, 'shape', None) == ():
      yield f'{prefix}{name}', float(value)


class EventWriter:
  """One event file; `open_events` makes it."""

  def __init__(self, directory: Path, purge_step: int | None):
    from tensorboardX import RecordWriter
    from tensorboardX.proto import event_pb2, summary_pb2

    events: Any = event_pb2  # a generated module, like the next: its classes are made at import
    summaries: Any = summary_pb2
    self._event, self._summary = events.Event, summaries.Summary
    # TensorBoard reads the files of a folder in the order of their names, which here are times.
    seconds, rest = divmod(time.time_ns(), 10**9)
    name = f'events.out.tfevents.{seconds:010d}.{rest:09d}'
    self._records: Any = RecordWriter(str(directory / name))
    self._put(file_version='brain.Event:2')
    if purge_step is not None:
      start = events.SessionLog(status=events.SessionLog.START)
      self._put(step=purge_step, session_log=start)
    self._records.flush()

  def _put(self, **fields):
    event = self._event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())

  def write(self, step: int, metrics: Mapping) -> None:
    """Writes one line of metrics to the disk, as one event.

    Args:
      step: the step that the line belongs to.
      metrics: its metrics; `step` among them is not written again.
    """
    values = [
      self._summary.Value(tag=tag, simple_value=value)
      for tag, value in scalars(metrics)
      if tag != 'step'
    ]
    self._put(step=step, summary=self._summary(value=values))
    self._records.flush()

  def close(self) -> None:
    """Closes the file; closing again does nothing."""
    if self._records is not None:
      self._records.close()
      self._records = None


def check_installed() -> None:
  """Raises a ValueError that says how to install tensorboardX if it cannot be imported."""
  try:
    import tensorboardX  # noqa: F401
  except ImportError as error:
    raise ValueError(
      'tensorboard event files need tensorboardX: pip install "sparsejax[tensorboard]"'
    ) from error


def open_events(directory: str | os.PathLike, *, purge_step: int | None = None) -> EventWriter:
  """Opens a new event file in `directory`, which is created if it is missing.

  Args:
    directory: the folder that TensorBoard reads; a resumed run takes the same one.
    purge_step: for a resumed run, the first step that will be written again, one more than the
      restored step; TensorBoard hides the earlier files' events from that step on.

  Returns:
    The writer of the file, to which `write(step, metrics)` appends and which `close()` ends.

  Raises:
    ValueError: tensorboardX is not installed.
  """
  check_installed()
  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  return EventWriter(directory, purge_step)
