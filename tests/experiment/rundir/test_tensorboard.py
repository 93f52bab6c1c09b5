"""Event files, read back record by record."""

import math
import struct
import sys

import numpy as np
import pytest

from sparsejax.experiment.rundir import tensorboard

pytest.importorskip('tensorboardX')


def events(path):
  """The events of a file: records of length, its checksum, data, its checksum."""
  from tensorboardX.proto.event_pb2 import Event

  data, found = path.read_bytes(), []
  while data:
    (length,) = struct.unpack_from('<Q', data)
    found.append(Event.FromString(data[12 : 12 + length]))
    data = data[12 + length + 4 :]
  return found


def values(event):
  return {value.tag: value.simple_value for value in event.summary.value}


def test_a_line_is_on_the_disk_when_write_returns(tmp_path):
  writer = tensorboard.open_events(tmp_path / 'new' / 'events')
  writer.write(10, {'step': 10, 'train_loss': 0.5, 'kl': {'conv1': 2.0}, 'validation_loss': None})
  (path,) = (tmp_path / 'new' / 'events').iterdir()
  head, line = events(path)
  assert head.file_version == 'brain.Event:2'
  assert line.step == 10
  assert values(line) == {'train_loss': 0.5, 'kl/conv1': 2.0}
  writer.close()
  writer.close()


def test_nan_is_written(tmp_path):
  writer = tensorboard.open_events(tmp_path)
  writer.write(1, {'train_loss': math.nan})
  writer.close()
  (path,) = tmp_path.iterdir()
  assert math.isnan(values(events(path)[-1])['train_loss'])


def test_a_resumed_run_purges_from_the_step_that_it_writes_again(tmp_path):
  from tensorboardX.proto.event_pb2 import SessionLog

  first = tensorboard.open_events(tmp_path)
  first.write(20, {'train_loss': 0.5})
  first.close()
  second = tensorboard.open_events(tmp_path, purge_step=11)
  second.write(20, {'train_loss': 0.25})
  second.close()
  old, new = sorted(tmp_path.iterdir())  # a file of its own, and after the first by name
  assert [values(event) for event in events(old)[1:]] == [{'train_loss': 0.5}]
  _, start, line = events(new)
  assert (start.step, start.session_log.status) == (11, SessionLog.START)
  assert values(line) == {'train_loss': 0.25}


def test_without_tensorboardx_one_line_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboardX', None)
  with pytest.raises(ValueError, match=r'^.*pip install "sparsejax\[tensorboard\]"$'):
    tensorboard.open_events(tmp_path / 'events')
  assert not (tmp_path / 'events').exists()


def test_scalars_of_arrays_count():
  found = dict(tensorboard.scalars({'a': np.float32(0.5), 'b': np.array(2), 'c': np.zeros(3)}))
  assert found == {'a': 0.5, 'b': 2.0}
