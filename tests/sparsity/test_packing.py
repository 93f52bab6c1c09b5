"""Masks on disk: a bit for each weight, and the same masks again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax import pack_masks, unpack_masks
from sparsejax.experiment.rundir import checkpoint


@pytest.mark.parametrize('shape', [(), (1,), (8,), (9,), (3, 3, 5, 7), (0, 4)])
def test_masks_come_back_as_they_were(shape):
  masks = {'m': jnp.asarray(np.random.default_rng(0).random(shape) < 0.3), 'w': jnp.ones(3)}
  packed = pack_masks(masks)
  assert packed['m'].dtype == jnp.uint8
  assert packed['m'].shape == (-(-masks['m'].size // 8),)
  assert packed['w'] is masks['w']
  found = unpack_masks(packed, masks)
  assert found['m'].dtype == jnp.bool_
  np.testing.assert_array_equal(found['m'], masks['m'])


def test_a_checkpoint_of_a_pruned_network_holds_bits_and_comes_back(tmp_path):
  # Random weights and masks don't compress: the file tells how many bytes a mask takes.
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
