"""Checkpoints: back to the bit, and whatever is not whole refused for the one before it."""

import errno
import json
import logging
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.experiment import checkpoint, files, parallel


class Masks(NamedTuple):
  masks: Any
  nothing: Any


def state_of(step: int):
  """Everything that a run's state may hold, different at every step."""
  key = jax.random.key(step)
  return parallel.replicate(
    {
      'step': jnp.int32(step),
      'params': {'kernel': jax.random.normal(key, (3, 4)), 'half': jnp.arange(3, dtype='bfloat16')},
      'batch_stats': {},
      'opt_state': (Masks(jax.random.bernoulli(key, 0.5, (3, 4)), ()), jnp.float32(jnp.inf)),
      'key': key,
      'odd': jnp.array([jnp.nan, -0.0, 1e-45], jnp.float32),
    }
  )


def bits(leaf):
  is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert bits(one) == bits(other)
    assert len(one.addressable_shards) == jax.local_device_count() == 4


def save(root, *steps, keep=3):
  for step in steps:
    checkpoint.save(root, step, state_of(step), {'seconds': step / 3, 'phases': {}}, keep=keep)


def steps_in(root):
  return [int(folder.name) for folder in checkpoint.committed(root)]


def test_a_state_comes_back_to_the_bit_with_what_the_host_noted(tmp_path):
  host = {'seconds': 1 / 3, 'phases': {'dense': {'step': 5, 'validation_loss': 0.1}}}
  checkpoint.save(tmp_path, 7, state_of(7), host, keep=2)
  restored = checkpoint.restore_newest(tmp_path, state_of(0))
  assert restored.step == 7
  assert restored.host == host
  assert_same(restored.state, state_of(7))
  draws = [jax.random.uniform(key, (3,)) for key in (restored.state['key'], jax.random.key(7))]
  np.testing.assert_array_equal(*draws)


def test_nothing_to_restore(tmp_path):
  assert checkpoint.restore_newest(tmp_path, state_of(0)) is None
  assert checkpoint.restore_newest(tmp_path / 'missing', state_of(0)) is None
  assert checkpoint.committed(tmp_path / 'missing') == []


def test_the_newest_are_kept_and_the_best_is_never_counted(tmp_path):
  checkpoint.write(tmp_path / checkpoint.BEST, state_of(1), {})
  save(tmp_path, 8, 9, 10, 100, keep=2)
  assert steps_in(tmp_path) == [10, 100]
  assert checkpoint.restore_newest(tmp_path, state_of(0)).step == 100
  save(tmp_path, 101, keep=0)  # one is always kept
  assert steps_in(tmp_path) == [101]
  assert checkpoint.read(tmp_path / checkpoint.BEST, state_of(0))[0]['step'] == 1


def test_saving_a_step_again_never_gives_up_the_one_that_is_there(tmp_path, monkeypatch):
  save(tmp_path, 7, keep=1)
  monkeypatch.setattr(checkpoint, 'write', lambda *_: pytest.fail('written again'))
  save(tmp_path, 7, keep=1)
  assert checkpoint.restore_newest(tmp_path, state_of(0)).step == 7


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """The folder of two checkpoints, to be copied and damaged."""
  root = tmp_path_factory.mktemp('two')
  save(root, 1, 2)
  return root


def copy(two, tmp_path, name='copy'):
  return shutil.copytree(two, tmp_path / name)


def restores(root, caplog):
  """The step that is restored, and the warnings on the way."""
  caplog.clear()
  with caplog.at_level(logging.WARNING, 'absl'):
    restored = checkpoint.restore_newest(root, state_of(0))
  if restored is not None:
    assert_same(restored.state, state_of(restored.step))
    assert restored.host == {'seconds': restored.step / 3, 'phases': {}}
  return restored and restored.step, [record.getMessage() for record in caplog.records]


def cut_short(file):
  with file.open('r+b') as opened:
    opened.truncate(file.stat().st_size // 2)


def flip_a_bit(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def remove(file):
  file.unlink()


@pytest.mark.parametrize('damage', [cut_short, flip_a_bit, remove])
def test_any_damage_to_any_file_is_seen_and_the_one_before_is_used(two, tmp_path, caplog, damage):
  names = [f.relative_to(two) for f in (two / f'{2:09d}').rglob('*') if f.is_file()]
  sizes = {name: (two / name).stat().st_size for name in names}
  assert {name.name for name in names} > {checkpoint.MANIFEST, checkpoint.NOTES}
  for i, name in enumerate(name for name in names if sizes[name]):
    root = copy(two, tmp_path, str(i))
    damage(root / name)
    step, warnings = restores(root, caplog)
    assert step == 1, name
    if name.name == checkpoint.MANIFEST and damage is remove:
      assert warnings == []  # never committed
    else:
      (warning,) = warnings
      assert f'{2:09d} is damaged (' in warning
      assert 'using the one before it' in warning
    assert steps_in(root) == [1]


@pytest.mark.parametrize(
  'text', ['', '{', '[]', '3', 'null', '"text"', '{}', '[["a"]]', '{"a": 1}']
)
def test_a_manifest_that_is_none_is_damage(two, tmp_path, caplog, text):
  root = copy(two, tmp_path)
  (root / f'{2:09d}' / checkpoint.MANIFEST).write_text(text)
  step, warnings = restores(root, caplog)
  assert step == 1
  assert len(warnings) == 1


def test_where_all_are_damaged_there_is_none(two, tmp_path, caplog):
  root = copy(two, tmp_path)
  for step in (1, 2):
    cut_short(root / f'{step:09d}' / checkpoint.NOTES)
  step, warnings = restores(root, caplog)
  assert step is None
  assert ['000000002 is damaged' in warnings[0], '000000001 is damaged' in warnings[1]] == [
    True
  ] * 2


def test_a_checkpoint_killed_half_way_never_existed_and_is_cleaned_up(two, tmp_path, caplog):
  root = copy(two, tmp_path)
  half = root / f'{3:09d}'
  shutil.copytree(root / f'{2:09d}', half)
  (half / checkpoint.MANIFEST).unlink()
  (root / 'notes').mkdir()  # not ours
  assert restores(root, caplog) == (2, [])
  assert not half.exists()
  assert (root / 'notes').exists()


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    (
      {'kernel': jnp.zeros((3, 5))},
      r'params/kernel is float32\[3, 4\] there; needed is float32\[3, 5',
    ),
    ({'half': jnp.zeros(3)}, r'params/half is bfloat16\[3\] there; needed is float32\[3\]'),
    ({'bias': jnp.zeros(4)}, r'params/bias is missing there; needed is float32\[4\]'),
  ],
)
def test_a_state_of_another_structure_is_no_damage(two, tmp_path, params, message):
  root = copy(two, tmp_path)
  like = state_of(0)
  other = like | {'params': like['params'] | params}
  with pytest.raises(ValueError, match=message) as error:
    checkpoint.restore_newest(root, other)
  assert not isinstance(error.value, checkpoint.DamagedError)
  assert '\n' not in str(error.value)
  assert steps_in(root) == [1, 2]
  smaller = {name: part for name, part in like.items() if name != 'odd'}
  with pytest.raises(ValueError, match=r'odd is float32\[3\] there; needed is nothing'):
    checkpoint.restore_newest(root, smaller)


def free_bytes(monkeypatch, free):
  usage = shutil.disk_usage('/')._replace(free=free)
  monkeypatch.setattr(files.shutil, 'disk_usage', lambda path: usage)


def test_too_little_room_is_told_before_anything_is_written(two, tmp_path, monkeypatch):
  root = copy(two, tmp_path)
  free_bytes(monkeypatch, 10)
  with pytest.raises(OSError, match='no space left') as error:
    save(root, 3)
  assert error.value.errno == errno.ENOSPC
  assert sorted(path.name for path in root.iterdir()) == [f'{step:09d}' for step in (1, 2)]


@pytest.mark.parametrize(
  'failure',
  [
    ValueError('RESOURCE_EXHAUSTED: write failed: No space left on device'),
    OSError('Failed to flush: Disk quota exceeded'),
    OSError(errno.EDQUOT, 'Disk quota exceeded'),
  ],
)
def test_a_disk_that_fills_up_leaves_the_earlier_ones(two, tmp_path, monkeypatch, failure):
  import orbax.checkpoint as ocp

  def half(self, path, state):
    path.mkdir()
    (path / 'data').write_bytes(b'half')
    raise failure

  root = copy(two, tmp_path)
  monkeypatch.setattr(ocp.StandardCheckpointer, 'save', half)
  with pytest.raises(OSError, match=r'no space left|quota') as error:
    save(root, 3, keep=1)
  assert error.value.errno in files.FULL_DISK
  assert sorted(path.name for path in root.iterdir()) == [f'{step:09d}' for step in (1, 2)]
  monkeypatch.undo()
  assert checkpoint.restore_newest(root, state_of(0)).step == 2


def test_the_source_of_another_run_must_be_finished(tmp_path):
  checkpoint.check_source(None)
  save(tmp_path / 'checkpoints', 1)
  with pytest.raises(
    ValueError, match=r'^init_from=.*: allowed is the directory of a finished run'
  ):
    checkpoint.check_source(str(tmp_path))
  network = {'params': state_of(1)['params']}
  checkpoint.write(checkpoint.source_of(str(tmp_path)), network, {'step': 1})
  checkpoint.check_source(str(tmp_path))
  found, host = checkpoint.read(checkpoint.source_of(str(tmp_path)), network)
  assert host == {'step': 1}
  assert_same(found, network)


def test_the_manifest_counts_every_file(two):
  folder = two / f'{2:09d}'
  manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
  there = {str(f.relative_to(folder)) for f in folder.rglob('*') if f.is_file()}
  assert set(manifest) == there - {checkpoint.MANIFEST}
