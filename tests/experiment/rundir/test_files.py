"""Files that are whole or absent, and the one error that tells of a full disk."""

import errno
import json
import os
import shutil

import pytest

from sparsejax.experiment.machine import files


def test_a_file_is_replaced_whole(tmp_path):
  path = tmp_path / 'a.txt'
  files.write_atomically(path, 'old')
  files.write_atomically(path, 'new ±')
  assert path.read_text() == 'new ±'
  assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
  path = tmp_path / 'a.txt'
  path.write_text('old')

  def fail(*_):
    raise OSError(errno.EIO, 'broken')

  monkeypatch.setattr(files.os, step, fail)
  with pytest.raises(OSError, match='broken'):
    files.write_atomically(path, 'new')
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['a.txt']


def test_others_may_read_what_a_plain_file_lets_them(tmp_path):
  (tmp_path / 'plain').write_text('')
  files.write_atomically(tmp_path / 'atomic', '')
  modes = [(tmp_path / name).stat().st_mode for name in ('plain', 'atomic')]
  assert modes[0] == modes[1]


def test_json_is_one_key_a_line(tmp_path):
  content = {'b': 1, 'a': {'c': (1, 2.5)}, 'd': None}
  files.write_json(tmp_path / 'a.json', content)
  text = (tmp_path / 'a.json').read_text()
  assert text.startswith('{\n  "b": 1,\n')
  assert text.endswith('}\n')
  assert json.loads(text) == {'b': 1, 'a': {'c': [1, 2.5]}, 'd': None}


@pytest.mark.parametrize(
  'error',
  [
    ValueError('INTERNAL: write: No space left on device [/somewhere]'),
    RuntimeError('Disk quota exceeded'),
    OSError('No space left on device'),  # without an errno, as some writers raise it
  ],
)
def test_a_full_disk_is_told_as_one_whatever_the_writer_raised(tmp_path, error):
  with pytest.raises(OSError, match='no space left') as found, files.naming_full_disk(tmp_path):
    raise error
  assert found.value.errno == errno.ENOSPC
  assert found.value.filename == str(tmp_path)
  assert found.value.__cause__ is error


@pytest.mark.parametrize(
  'error',
  [
    ValueError('another'),
    OSError(errno.ENOSPC, 'No space left on device', 'the very file'),
    PermissionError(errno.EACCES, 'Permission denied', 'a file'),
    KeyboardInterrupt(),
  ],
)
def test_other_errors_pass_as_they_are(tmp_path, error):
  with pytest.raises(type(error)) as found, files.naming_full_disk(tmp_path):
    raise error
  assert found.value is error


def test_room_is_asked_for_before_anything_is_written(tmp_path):
  free = shutil.disk_usage(tmp_path).free
  begun = []
  with (
    pytest.raises(OSError, match='no space left') as found,
    files.naming_full_disk(tmp_path, needed=free + 2**40),
  ):
    begun.append('written')
  assert found.value.errno == errno.ENOSPC
  assert begun == []
  with files.naming_full_disk(tmp_path, needed=1):
    begun.append('written')
  assert begun == ['written']


def test_room_that_ran_out_meanwhile_is_a_full_disk(tmp_path, monkeypatch):
  left = iter([100, 5])
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(files.shutil, 'disk_usage', lambda _: usage._replace(free=next(left)))
  with pytest.raises(OSError, match='no space') as found, files.naming_full_disk(tmp_path, 50):
    raise ValueError('a short write')
  assert found.value.errno == errno.ENOSPC


@pytest.mark.parametrize('name', ['n' * 240, 'n' * 255, 'ř' * 127, 'n' + '名' * 84])
def test_whatever_name_a_file_may_have_it_can_be_written(name, tmp_path):
  files.write_json(tmp_path / name, {'a': 1})
  assert [path.name for path in tmp_path.iterdir()] == [name]
  with pytest.raises(ValueError), files.replacing(tmp_path / name) as temporary:  # noqa: PT012
    temporary.write_text('half')
    assert files.TEMPORARY.fullmatch(temporary.name)
    raise ValueError
  assert files.read_json(tmp_path / name) == {'a': 1}
