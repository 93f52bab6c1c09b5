"""straight_through: a sparse network in front, dense weights behind it that learn."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from sparsejax import (
  PruningSchedule,
  allocation,
  apply_masks,
  criteria,
  cubic,
  granularity,
  one_shot,
  straight_through,
)

OPTIMIZERS = {
  'sgd': lambda: optax.sgd(0.05),
  'momentum': lambda: toy.sgd(weight_decay=0.1),
  'adam': lambda: optax.adam(0.05),
}


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('around', [False, True])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_the_network_is_the_masked_dense_weights_to_the_bit(name, around, jit):
  link = functools.partial(straight_through, cubic(0, 4, 0.25, every=1))
  optimizer = OPTIMIZERS[name]()
  tx = link(inner=optimizer) if around else optax.chain(optimizer, link())
  history = toy.train(tx, toy.network(), 6, jit=jit)
  for params, state in history:
    dense, masks = optax.tree.get(state, 'dense'), optax.tree.get(state, 'masks')
    chex.assert_trees_all_equal(params, apply_masks(dense, masks))
  assert toy.count(toy.kernels(masks)) == toy.WEIGHTS // 4


def by_hand(params, gradient, rate, densities):
  """The gradient of the masked weights moves the dense ones, of which the largest stay."""
  dense, seen = np.array(params), [np.array(params)]
  for density in densities:
    dense = dense - rate * gradient(seen[-1])
    keep = np.argsort(-np.abs(dense))[: round(density * dense.size)]
    mask = np.zeros(dense.size, bool)
    mask[keep] = True
    seen.append(np.where(mask, dense, 0))
  return seen, dense


def test_it_is_what_a_loop_in_numpy_does():
  """A removed weight that is pulled up comes back with what it learned."""
  wanted = np.array([0.5, -2.0, 3.0, 1.0])
  start = np.array([2.0, -0.5, 1.5, 1.0])
  seen, dense = by_hand(start, lambda p: p - wanted, 0.25, [0.5] * 8)
  tx = straight_through(one_shot(0, 0.5), inner=optax.sgd(0.25))
  params = {'kernel': jnp.asarray(start, jnp.float32)[None]}
  state = tx.init(params)
  for expected in seen[1:]:
    grad = {'kernel': params['kernel'] - jnp.asarray(wanted, jnp.float32)[None]}
    updates, state = tx.update(grad, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params['kernel'][0], expected, rtol=1e-6)
  np.testing.assert_allclose(state.dense['kernel'][0], dense, rtol=1e-6)
  alive = np.array(seen) != 0
  assert any((~alive[t] & alive[t + 1]).any() for t in range(len(seen) - 1))


def test_the_optimizer_inside_is_given_the_dense_weights():
  """Weight decay reaches what is zero in the network too."""
  decayed = optax.add_decayed_weights(-0.5)
  params = {'kernel': jnp.array([[1.0, 8.0]])}
  zero = jax.tree.map(jnp.zeros_like, params)
  dense = []
  for tx in (
    straight_through(one_shot(0, 0.5), inner=decayed),
    optax.chain(decayed, straight_through(one_shot(0, 0.5))),
  ):
    now, state = params, tx.init(params)
    for _ in range(2):
      updates, state = tx.update(zero, state, now)
      now = optax.apply_updates(now, updates)
    dense.append(optax.tree.get(state, 'dense')['kernel'].tolist())
  assert dense == [[[0.25, 2.0]], [[0.5, 2.0]]]


def kept(history):
  return [np.concatenate([np.ravel(m) for m in toy.kernels(toy.masks_of(s))]) for _, s in history]


def test_masks_are_renewed_from_the_first_step_on_every_so_many():
  schedule = PruningSchedule((1, 4), (0.5, 0.25))
  tx = straight_through(schedule, every=2, criterion=criteria.random, inner=optax.sgd(0.05))
  masks = kept(toy.train(tx, toy.network(), 8))
  changed = [bool((a != b).any()) for a, b in itertools.pairwise(masks)]
  assert changed == [False, True, False, True, True, True, False, True]
  counts = [int(mask.sum()) for mask in masks]
  assert counts == [72, 72, 36, 36, 36, 18, 18, 18, 18]


def test_groups_and_patterns_go_by_the_dense_weights():
  tx = straight_through(one_shot(0, 0.5), granularity=granularity.n_m(1, 2), inner=optax.sgd(0.05))
  params, _ = toy.train(tx, toy.network(), 3)[-1]
  for kernel in toy.kernels(params):
    pairs = kernel.reshape(-1, 2, kernel.shape[-1]) != 0
    assert bool(jnp.all(pairs.sum(1) == 1))


def test_what_is_no_kernel_is_trained_as_ever():
  optimizer = optax.sgd(0.05)
  tx = straight_through(
    one_shot(0, 0.5), exclude='head', allocation=allocation.uniform(), inner=optimizer
  )
  left, _ = toy.train(tx, toy.network(), 3)[-1]
  alone, _ = toy.train(optimizer, toy.network(), 3)[-1]
  chex.assert_trees_all_close(left['head'], alone['head'], rtol=1e-6)
  chex.assert_trees_all_close(left['norm'], alone['norm'], rtol=1e-6)


def test_sharpness_is_that_of_the_sparse_network():
  """SAM's gradient function is never asked at a point where removed weights are not zero."""
  seen = []

  def grad_fn(params, _):
    seen.append(params['kernel'].tolist())
    return {'kernel': jnp.ones((1, 2))}

  sam = optax.contrib.sam(optax.sgd(1.0), optax.sgd(0.5), opaque_mode=True, sync_period=2)
  tx = straight_through(one_shot(0, 0.5), inner=sam)
  params = {'kernel': jnp.array([[1.0, 8.0]])}
  state = tx.init(params)
  for _ in range(2):
    updates, state = tx.update({'kernel': jnp.ones((1, 2))}, state, params, grad_fn=grad_fn)
    params = optax.apply_updates(params, updates)
  assert seen[0][0][0] != 0
  assert seen[1][0][0] == 0


@pytest.mark.parametrize('every', [0, 1.5, '2', None])
def test_a_period_that_is_none_is_refused(every):
  with pytest.raises(ValueError, match=r'^every=.* must be a whole number, 1 or more$'):
    straight_through(one_shot(0, 0.5), every=every)
