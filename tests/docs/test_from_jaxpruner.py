"""The page for those who come from jaxpruner: each of its lines runs, and does what it says."""

import pathlib
import re

import jax
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax import allocation, criteria, granularity, update_rules

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'from_jaxpruner.md'
ROWS = dict(re.findall(r'^\| `([^`|]+)` \| `(.+)` \|$', PAGE.read_text(), re.MULTILINE))
ALGORITHMS = {
  *('no_prune', 'magnitude', 'random', 'saliency', 'global_magnitude', 'global_saliency'),
  *('magnitude_ste', 'random_ste', 'static_sparse', 'set', 'rigl'),
}


def tensors(seed):
  rng = np.random.default_rng(seed)
  return {
    'a': {'kernel': rng.normal(size=(4, 6)).astype(np.float32)},
    'b': {'kernel': 3 * rng.normal(size=(8, 3)).astype(np.float32)},
  }


PARAMS, GRAD = tensors(0), tensors(1)


def built(name):
  """What a line of the page makes, in the names that the page says it has."""
  parts = {'allocation': allocation, 'criteria': criteria, 'granularity': granularity}
  named = {'update_rules': update_rules, 'optax': optax, **parts}
  names = ('prune', 'straight_through', 'one_shot', 'cubic', 'periodic')
  named |= {name: getattr(sparsejax, name) for name in names}
  return eval(ROWS[name], named)


def masks_of(name, steps=1):
  tx, params = built(name), PARAMS
  state = tx.init(params)
  for _ in range(steps):
    changes, state = jax.jit(tx.update)(GRAD, state, params, grad=GRAD)
    params = optax.apply_updates(params, changes)
  return {path: np.asarray(m['kernel']) for path, m in optax.tree.get(state, 'masks').items()}


def best(scores, count):
  mask = np.zeros(scores.size, bool)
  mask[np.argsort(-scores, axis=None, kind='stable')[:count]] = True
  return mask.reshape(scores.shape)


def test_the_page_has_each_of_its_algorithms():
  assert set(ROWS) >= ALGORITHMS
  assert built('no_prune').init(PARAMS) == optax.EmptyState()


SCORES = {
  'magnitude': lambda p, g: np.abs(p),
  'saliency': lambda p, g: np.abs(p * g),
}


@pytest.mark.parametrize('name', SCORES)
def test_by_layer_and_over_all(name):
  scores = {k: SCORES[name](PARAMS[k]['kernel'], GRAD[k]['kernel']) for k in PARAMS}
  for path, mask in masks_of(name).items():
    np.testing.assert_array_equal(mask, best(scores[path], 6))
  flat = best(np.concatenate([scores['a'].ravel(), scores['b'].ravel()]), 12)
  found = masks_of(f'global_{name}')
  np.testing.assert_array_equal(np.concatenate([found['a'].ravel(), found['b'].ravel()]), flat)


@pytest.mark.parametrize('name', ['random', 'static_sparse'])
def test_at_random(name):
  found = masks_of(name)
  erk = np.array([(4 + 6) / 24, (8 + 3) / 24])
  by_shape = (12 * erk / erk.sum()).round().tolist()
  assert [int(m.sum()) for m in found.values()] == ([6, 6] if name == 'random' else by_shape)
  again = masks_of(name, steps=4)
  for path, mask in found.items():
    np.testing.assert_array_equal(mask, again[path])


@pytest.mark.parametrize('name', ['magnitude_ste', 'random_ste'])
def test_straight_through(name):
  """The network is pruned, and all of its weights are moved by the gradient."""
  first, later = (masks_of(name, steps) for steps in (1, 2))
  for path, mask in first.items():
    assert mask.sum() == 6
    if name == 'magnitude_ste':
      dense = PARAMS[path]['kernel'] - 0.1 * GRAD[path]['kernel']
      np.testing.assert_array_equal(mask, best(np.abs(dense), 6))
      again = dense - 0.1 * GRAD[path]['kernel']
      np.testing.assert_array_equal(later[path], best(np.abs(again), 6))
  if name == 'random_ste':  # which draws anew at every step
    assert any((first[path] != later[path]).any() for path in first)


@pytest.mark.parametrize('name', ['set', 'rigl'])
def test_exchange(name):
  """Equally many weights stay in each layer, but partly others at the next mask update."""
  first, later = masks_of(name), masks_of(name, steps=11)
  for path, mask in first.items():
    assert mask.sum() == later[path].sum()
  assert any((first[path] != later[path]).any() for path in first)


def test_sparsity_types():
  for mask in masks_of('nm_2,4').values():
    assert (mask.reshape(-1, 4, mask.shape[1]).sum(1) == 2).all()
  tiles = masks_of('block_2,3')['a'].reshape(2, 2, 2, 3).transpose(0, 2, 1, 3).reshape(4, 6)
  assert (tiles.all(1) == tiles.any(1)).all()
  columns = masks_of('channel_-1')['a']
  assert (columns.all(0) == columns.any(0)).all()
  assert columns.any(0).sum() == 3


def test_schedules():
  assert sparsejax.one_shot(10, 0.25).steps == (10,)
  schedule = sparsejax.cubic(10, 40, 0.25, every=5)
  assert schedule.steps == (15, 20, 25, 30, 35, 40)  # at step 10 nothing would go yet
  assert schedule.densities[-1] == 0.25
