"""Checkpoints: restored to the bit; one that is not whole is passed over for the one before."""

import errno
import json
import logging
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_folders

from sparsejax.experiment.machine import files, parallel
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.terminal.errors import UnreadableError

OWNER = checkpoint.Owner('0123abcd', 3)


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
    notes = {'seconds': step / 3, 'phases': {}}
    text = f'{{"step": {step}}}\n'
    checkpoint.save(root, OWNER, step, state_of(step), notes, keep=keep, metrics=text)


def steps_in(root):
  return [int(folder.name) for folder in checkpoint.committed(root)]


def test_a_state_comes_back_to_the_bit_with_what_the_host_noted(tmp_path):
  notes = {'seconds': 1 / 3, 'phases': {'dense': {'step': 5, 'validation_loss': 0.1}}}
  checkpoint.save(tmp_path, OWNER, 7, state_of(7), notes, keep=2)
  restored = checkpoint.restore_newest(tmp_path, OWNER, state_of(0))
  assert restored.step == 7
  assert restored.notes == notes
  assert_same(restored.state, state_of(7))
  draws = [jax.random.uniform(key, (3,)) for key in (restored.state['key'], jax.random.key(7))]
  np.testing.assert_array_equal(*draws)


def test_nothing_to_restore(tmp_path):
  assert checkpoint.restore_newest(tmp_path, OWNER, state_of(0)) is None
  assert checkpoint.restore_newest(tmp_path / 'missing', OWNER, state_of(0)) is None
  assert checkpoint.committed(tmp_path / 'missing') == []


def test_the_newest_are_kept_and_the_best_is_never_counted(tmp_path):
  checkpoint.write(tmp_path / checkpoint.BEST, OWNER, state_of(1), {})
  save(tmp_path, 8, 9, 10, 100, keep=2)
  assert steps_in(tmp_path) == [10, 100]
  assert checkpoint.restore_newest(tmp_path, OWNER, state_of(0)).step == 100
  save(tmp_path, 101, keep=0)  # one is always kept
  assert steps_in(tmp_path) == [101]
  assert checkpoint.read(tmp_path / checkpoint.BEST, state_of(0))[0]['step'] == 1


def test_saving_a_step_again_never_gives_up_the_one_that_is_there(tmp_path, monkeypatch):
  save(tmp_path, 7, keep=1)
  monkeypatch.setattr(checkpoint, 'write', lambda *_: pytest.fail('written again'))
  save(tmp_path, 7, keep=1)
  assert checkpoint.restore_newest(tmp_path, OWNER, state_of(0)).step == 7


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
    restored = checkpoint.restore_newest(root, OWNER, state_of(0))
  if restored is not None:
    assert_same(restored.state, state_of(restored.step))
    assert restored.notes == {'seconds': restored.step / 3, 'phases': {}}
    assert checkpoint.read_metrics(root, restored.step) == f'{{"step": {restored.step}}}\n'
  return restored and restored.step, [record.getMessage() for record in caplog.records]


def contents_of(folder):
  return {f.relative_to(folder): f.read_bytes() for f in folder.rglob('*') if f.is_file()}


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
    contents = contents_of(root / f'{2:09d}')
    step, (warning,) = restores(root, caplog)
    assert step == 1, name
    if name.name == checkpoint.MANIFEST and damage is remove:
      kept = f'unfinished-{2:09d}'
      assert f'{2:09d} has no {checkpoint.MANIFEST}; it is now {kept}' in warning
    else:
      kept = f'damaged-{2:09d}'
      assert f'{2:09d} is damaged (' in warning
      assert f'it is now {kept}, and the one before it is used' in warning
    assert steps_in(root) == [1]
    assert contents_of(root / kept) == contents


@pytest.mark.parametrize(
  'text', ['', '{', '[]', '3', 'null', '"text"', '{}', '[["a"]]', '{"a": 1}', '[' * 100_000]
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


def test_one_that_is_damaged_again_does_not_replace_the_first(two, tmp_path, caplog):
  root = copy(two, tmp_path)
  for _ in range(2):
    cut_short(root / f'{2:09d}' / checkpoint.NOTES)
    assert restores(root, caplog)[0] == 1
    save(root, 2)
  names = [f'{1:09d}', f'{2:09d}', f'damaged-{2:09d}', f'damaged-{2:09d}-2']
  assert sorted(path.name for path in root.iterdir()) == names


def test_what_a_kill_left_half_written_is_cleaned_up(two, tmp_path, caplog):
  root = copy(two, tmp_path)
  for name in (f'.{3:09d}.writing', f'.{1:09d}.removing'):
    shutil.copytree(root / f'{2:09d}', root / name)
  (root / 'notes').mkdir()  # not ours
  assert restores(root, caplog) == (2, [])
  assert sorted(path.name for path in root.iterdir()) == [f'{1:09d}', f'{2:09d}', 'notes']


@pytest.mark.parametrize('moment', ['manifest', 'rename'])
def test_a_kill_before_the_end_leaves_no_folder_of_the_step(two, tmp_path, monkeypatch, moment):
  root = copy(two, tmp_path)

  def killed(*_):
    monkeypatch.setattr(checkpoint.shutil, 'rmtree', lambda *_, **__: None)  # a kill cleans nothing
    raise KeyboardInterrupt

  if moment == 'manifest':
    monkeypatch.setattr(checkpoint, '_digests', killed)
  else:
    monkeypatch.setattr(checkpoint.pathlib.Path, 'rename', killed)
  with pytest.raises(KeyboardInterrupt):
    save(root, 3)
  monkeypatch.undo()
  assert steps_in(root) == [1, 2]
  assert (root / f'.{3:09d}.writing').exists()
  assert checkpoint.restore_newest(root, OWNER, state_of(0)).step == 2
  save(root, 3)
  assert steps_in(root) == [1, 2, 3]


@pytest.mark.parametrize(
  'number', [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.EINTR]
)
@pytest.mark.parametrize('where', ['manifest', 'arrays', 'folder'])
def test_an_error_of_the_disk_is_no_damage(two, tmp_path, monkeypatch, number, where):
  root = copy(two, tmp_path)
  before = contents_of(root)
  real_open, real_list = checkpoint.pathlib.Path.open, checkpoint.os.listdir

  def failing(path, *arguments, **settings):
    if where == 'manifest' or checkpoint.ARRAYS in path.parts:
      raise OSError(number, os.strerror(number), str(path))
    return real_open(path, *arguments, **settings)

  def failing_list(path):
    if checkpoint.pathlib.Path(path) == root:
      raise OSError(number, os.strerror(number), str(path))
    return real_list(path)

  if where == 'folder':
    monkeypatch.setattr(checkpoint.os, 'listdir', failing_list)
  else:
    monkeypatch.setattr(checkpoint.pathlib.Path, 'open', failing)
  with pytest.raises(UnreadableError, match='could not be read') as error:
    checkpoint.restore_newest(root, OWNER, state_of(0))
  monkeypatch.undo()
  assert os.strerror(number) in str(error.value)
  assert '\n' not in str(error.value)
  assert contents_of(root) == before
  assert checkpoint.restore_newest(root, OWNER, state_of(0)).step == 2


def test_what_is_damaged_and_can_not_be_renamed_is_not_told_as_a_read_error(
  two, tmp_path, monkeypatch
):
  root = copy(two, tmp_path)
  damaged = root / f'{2:09d}'
  flip_a_bit(damaged / checkpoint.NOTES)
  before = contents_of(root)

  def fail(self, target):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

  monkeypatch.setattr(pathlib.Path, 'rename', fail)
  with pytest.raises(UnreadableError) as error:
    checkpoint.restore_newest(root, OWNER, state_of(0))
  assert str(error.value) == (
    f'{damaged} is damaged, and could not be renamed: Read-only file system; nothing was changed; '
    'give the same command again once it can be renamed'
  )
  assert contents_of(root) == before


def test_what_orbax_can_not_read_though_every_byte_is_there_is_no_damage(
  two, tmp_path, monkeypatch
):
  import orbax.checkpoint as ocp

  root = copy(two, tmp_path)

  def failing(*_):
    raise ValueError('Error reading\nfrom the array store')

  monkeypatch.setattr(ocp.StandardCheckpointer, 'restore', failing)
  with pytest.raises(UnreadableError, match='Error reading from the array store'):
    checkpoint.restore_newest(root, OWNER, state_of(0))
  assert steps_in(root) == [1, 2]


@pytest.mark.parametrize('other', [OWNER._replace(hash='00000000'), OWNER._replace(seed=4)])
def test_a_checkpoint_of_another_run_is_refused(two, tmp_path, other):
  root = copy(two, tmp_path)
  before = contents_of(root)
  with pytest.raises(checkpoint.ForeignError) as error:
    checkpoint.restore_newest(root, other, state_of(0))
  message = (
    f'{2:09d} is of the run 0123abcd, seed 3, and this run is {other.hash}, seed {other.seed}'
  )
  assert message in str(error.value)
  assert contents_of(root) == before
  assert checkpoint.read_owner(root / f'{2:09d}') == OWNER


def test_a_checkpoint_that_does_not_say_whose_it_is_is_refused(tmp_path):
  folder = tmp_path / f'{1:09d}'
  save(tmp_path, 1)
  run_folders.forget_owner(folder)
  before = contents_of(tmp_path)
  with pytest.raises(checkpoint.ForeignError, match=r'1 does not say which run it is of$'):
    checkpoint.restore_newest(tmp_path, OWNER, state_of(0))
  with pytest.raises(checkpoint.ForeignError, match=r'1 does not say which run it is of$'):
    checkpoint.read_owner(folder)
  assert contents_of(tmp_path) == before


def test_the_newest_step_that_was_saved_is_noted(tmp_path):
  root = tmp_path / 'checkpoints'
  for step in (7, 12):
    save(root, step)
    noted = json.loads((tmp_path / files.PROGRESS).read_text())
    assert noted == {'hash': '0123abcd', 'seed': 3, 'saved_step': step}


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    (
      {'kernel': jnp.zeros((3, 5))},
      r'params/kernel is float32\[3, 4\] there, but must be float32\[3, 5',
    ),
    ({'half': jnp.zeros(3)}, r'params/half is bfloat16\[3\] there, but must be float32\[3\]'),
    ({'bias': jnp.zeros(4)}, r'params/bias is missing there, but must be float32\[4\]'),
  ],
)
def test_a_state_of_another_structure_is_no_damage(two, tmp_path, params, message):
  root = copy(two, tmp_path)
  like = state_of(0)
  other = like | {'params': like['params'] | params}
  with pytest.raises(ValueError, match=message) as error:
    checkpoint.restore_newest(root, OWNER, other)
  assert not isinstance(error.value, checkpoint.DamagedError)
  assert '\n' not in str(error.value)
  assert steps_in(root) == [1, 2]
  smaller = {name: part for name, part in like.items() if name != 'odd'}
  with pytest.raises(ValueError, match=r'odd is float32\[3\] there, but must be absent'):
    checkpoint.restore_newest(root, OWNER, smaller)


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
  assert checkpoint.restore_newest(root, OWNER, state_of(0)).step == 2


def test_the_source_of_another_run_must_be_finished_and_one_run(tmp_path):
  checkpoint.check_source(None)
  save(tmp_path / 'checkpoints', 1)
  unfinished = r'^init_from=.* must be the directory of a finished run$'
  with pytest.raises(ValueError, match=unfinished):
    checkpoint.check_source(str(tmp_path))
  network = {'params': state_of(1)['params']}
  best = checkpoint.best_folder(str(tmp_path))
  checkpoint.write(best, OWNER, network, {'step': 1})
  with pytest.raises(ValueError, match=unfinished):
    checkpoint.check_source(str(tmp_path))
  summary = tmp_path / files.SUMMARY
  for text in ('', 'null', '{}', '[' * 100_000, json.dumps(OWNER._replace(seed=4)._asdict())):
    summary.write_text(text)
    with pytest.raises(ValueError, match=r'^init_from=') as error:
      checkpoint.check_source(str(tmp_path))
    assert '\n' not in str(error.value)
  assert 'is of the run 0123abcd, seed 4, but its network is of the run 0123abcd, seed 3' in str(
    error.value
  )
  summary.write_text(json.dumps(OWNER._asdict()))
  checkpoint.check_source(str(tmp_path))
  found, notes = checkpoint.read(best, network)
  assert notes == {'step': 1}
  assert_same(found, network)
  flip_a_bit(best / checkpoint.NOTES)
  with pytest.raises(ValueError, match=r'^init_from=.*best is damaged'):
    checkpoint.check_source(str(tmp_path))


def test_the_manifest_counts_every_file(two):
  folder = two / f'{2:09d}'
  manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
  there = {str(f.relative_to(folder)) for f in folder.rglob('*') if f.is_file()}
  assert set(manifest) == there - {checkpoint.MANIFEST}
