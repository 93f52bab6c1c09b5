"""Masks on disk: packed into bits, in their own file, and restored exactly."""

import errno
import os
import pathlib
import re
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax import load_masks, one_shot, pack_masks, prune, save_masks, unpack_masks
from sparsejax.experiment.rundir import checkpoint


@pytest.mark.parametrize('shape', [(), (1,), (8,), (9,), (3, 3, 5, 7), (0, 4)])
def test_packed_masks_are_restored(shape):
  masks = {'m': jnp.asarray(np.random.default_rng(0).random(shape) < 0.3), 'w': jnp.ones(3)}
  packed = pack_masks(masks)
  assert packed['m'].dtype == jnp.uint8
  assert packed['m'].shape == (-(-masks['m'].size // 8),)
  assert packed['w'] is masks['w']
  found = unpack_masks(packed, masks)
  assert found['m'].dtype == jnp.bool_
  np.testing.assert_array_equal(found['m'], masks['m'])


def test_a_checkpoint_holds_masks_as_bits_and_restores_them(tmp_path):
  # Random weights and masks do not compress, so the file's size shows the bytes of a mask.
  weights = 2**20
  params = {'kernel': jax.random.normal(jax.random.key(0), (1024, 1024))}
  tx = sparsejax.prune(sparsejax.one_shot(0, 0.5))
  _, state = jax.jit(tx.update)(params, tx.init(params), params)
  owner = checkpoint.Owner('0123abcd', 0)
  checkpoint.write(tmp_path / 'one', owner, {'masks': optax.tree.get(state, 'masks')}, {})
  arrays = [f for f in (tmp_path / 'one' / checkpoint.ARRAYS).rglob('*') if f.is_file()]
  assert weights / 8 < sum(f.stat().st_size for f in arrays) < 1.2 * weights / 8
  like = {'masks': {'kernel': jnp.zeros((1024, 1024), bool)}}
  found, _ = checkpoint.read(tmp_path / 'one', like)
  np.testing.assert_array_equal(found['masks']['kernel'], state.masks['kernel'])


# Mask files


def masks_of_a_network():
  """Returns masks with names that NumPy's writer would take for arguments, and a whole leaf."""
  rng = np.random.default_rng(0)
  kernels = {name: {'kernel': jnp.asarray(rng.random((5, 7)) < 0.3)} for name in ('a', 'b')}
  return kernels | {'file': jnp.ones((), bool), 'allow_pickle': jnp.zeros((3,), bool)}


def test_a_file_holds_the_masks_by_path(tmp_path):
  masks = masks_of_a_network()
  save_masks(tmp_path / 'masks.npz', masks)
  found = load_masks(str(tmp_path / 'masks.npz'), masks)
  jax.tree.map(np.testing.assert_array_equal, found, masks)
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(bool)}
  with np.load(tmp_path / 'masks.npz', allow_pickle=False) as arrays:
    assert sorted(arrays) == ['a/kernel', 'allow_pickle', 'b/kernel', 'file']
    np.testing.assert_array_equal(arrays['b/kernel'], masks['b']['kernel'])


def test_equal_masks_give_equal_files_of_about_a_bit_per_weight(tmp_path):
  mask = jnp.asarray(np.random.default_rng(0).random((1000, 1000)) < 0.1)
  for name in ('one', 'other'):
    save_masks(tmp_path / name, {'w': mask})
  one, other = ((tmp_path / name).read_bytes() for name in ('one', 'other'))
  assert one == other
  assert len(one) < 1.2 * mask.size / 8


def test_masks_of_prune_are_restored_into_its_state_or_beside_parameters(tmp_path):
  params = {'fc': {'kernel': jnp.arange(1.0, 9.0).reshape(2, 4), 'bias': jnp.ones(4)}}
  tx = prune(one_shot(0, 0.5))
  _, state = tx.update(params, tx.init(params), params)
  save_masks(tmp_path / 'masks', optax.tree.get(state, 'masks'))
  for like in (state.masks, params, jax.eval_shape(lambda: state.masks)):
    jax.tree.map(np.testing.assert_array_equal, load_masks(tmp_path / 'masks', like), state.masks)


BOOLS = jnp.ones((2, 3), bool)


@pytest.mark.parametrize(
  ('like', 'message'),
  [
    (
      {'fc1': {'kernel': BOOLS}, 'fc2': {'kernel': BOOLS}},
      "there is no mask of 'fc2/kernel': did you mean 'fc1/kernel'?",
    ),
    ({'q': BOOLS}, "there is no mask of 'q': there are fc1/bias, fc1/kernel"),
    (
      {'fc1': {'kernel': BOOLS}},
      "there is a mask of 'fc1/bias', but like= has no such leaf",
    ),
    (
      {'fc1': {'kernel': BOOLS, 'bias': BOOLS}},
      "the mask of 'fc1/bias' has shape () and must have (2, 3)",
    ),
    (
      {'fc1': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(3)}},
      "the mask of 'fc1/kernel' has shape (2, 3) and must have (3, 2)",
    ),
  ],
)
def test_masks_of_another_network_are_refused_in_one_line(tmp_path, like, message):
  path = tmp_path / 'masks.npz'
  save_masks(path, {'fc1': {'kernel': BOOLS, 'bias': jnp.ones((), bool)}})
  with pytest.raises(ValueError, match=f'^{re.escape(f"{path}: {message}")}$'):
    load_masks(path, like)


def test_arrays_that_are_no_masks_are_neither_written_nor_read(tmp_path):
  path = tmp_path / 'masks.npz'
  with pytest.raises(ValueError, match=r"^the mask of 'w' has dtype float32 and must have bool$"):
    save_masks(path, {'w': jnp.ones(2)})
  assert not path.exists()
  np.savez(path, w=np.ones(2))
  with pytest.raises(ValueError, match="the mask of 'w' has dtype float64 and must have bool"):
    load_masks(path, {'w': jnp.ones(2, bool)})


def damaged(path):
  """Yields damaged versions of a file, and other files of that name."""
  whole = path.read_bytes()
  yield from (whole[: len(whole) // 2], whole[: len(whole) - 30], b'', b'text')
  begin = whole.index(b'kernel.npy') + 60
  flipped = bytes(byte ^ 255 for byte in whole[begin : begin + 8])
  yield whole[:begin] + flipped + whole[begin + 8 :]


def test_a_damaged_file_is_named_in_one_line(tmp_path):
  path = tmp_path / 'masks.npz'
  mask = {'kernel': jnp.asarray(np.random.default_rng(0).random((40, 40)) < 0.5)}
  save_masks(path, mask)
  for content in damaged(path):
    (tmp_path / 'damaged').write_bytes(content)
    with pytest.raises(ValueError, match='damaged must be a file that save_masks wrote: ') as found:
      load_masks(tmp_path / 'damaged', mask)
    assert '\n' not in str(found.value)
  with pytest.raises(FileNotFoundError):
    load_masks(tmp_path / 'none', mask)


def test_nothing_is_unpickled(tmp_path):
  path, mark = tmp_path / 'masks.npz', tmp_path / 'mark'

  class Trap:
    def __reduce__(self):
      return pathlib.Path.touch, (mark,)

  np.savez(path, w=np.array([Trap()], object))
  with pytest.raises(ValueError, match='must be a file that save_masks wrote: Object arrays'):
    load_masks(path, {'w': jnp.ones(1, bool)})
  assert not mark.exists()


def test_a_failing_disk_leaves_the_old_masks(tmp_path, monkeypatch):
  path, masks = tmp_path / 'masks.npz', masks_of_a_network()
  save_masks(path, masks)
  before = path.read_bytes()

  def fail(*_):
    raise OSError(errno.ENOSPC, 'full')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='full'):
    save_masks(path, jax.tree.map(jnp.zeros_like, masks))
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == ['masks.npz']
  assert zipfile.is_zipfile(path)
