"""Training centroids: sums worked by hand, and the same steps as on bare centroids."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import share_weights
from sparsejax.shipping import share

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

PARAMS = {'kernel': jnp.array([[2.0, 5.0, 0.0], [2.0, -1.0, 2.0]]), 'bias': jnp.array([2.0, 2.0])}
GRAD = {'kernel': jnp.array([[1.0, 2.0, 8.0], [0.5, 3.0, 0.25]]), 'bias': jnp.array([1.0, 0.5])}


def stepped(tx, params, grad, **extra):
  updates, state = tx.update(grad, tx.init(params), params, **extra)
  return optax.apply_updates(params, updates), state


@pytest.mark.parametrize(
  'tx',
  [optax.chain(optax.sgd(1.0), share_weights()), share_weights(2, inner=optax.sgd(1.0))],
  ids=['last', 'around'],
)
def test_the_gradient_of_a_cluster_is_the_sum_of_its_weights(tx):
  params, _ = stepped(tx, PARAMS, GRAD)
  # 2 - (1 + 1/2 + 1/4), 5 - 2, -1 - 3; the bias is not a kernel.
  assert params['kernel'].tolist() == [[0.25, 3.0, 0.0], [0.25, -4.0, 0.25]]
  assert params['bias'].tolist() == [1.0, 1.5]


def test_the_state_holds_the_clusters():
  state = share_weights(2).init(PARAMS)
  assert state.ids['kernel'].tolist() == [[2, 3, 0], [2, 1, 2]]
  assert state.ids['bias'].shape == ()
  assert [int(PARAMS['kernel'].ravel()[i]) for i in state.firsts['kernel'][:3]] == [-1, 2, 5]
  assert state.firsts['kernel'].tolist()[3:] == [
    6
  ]  # out of range: the fourth cluster has no weight


def network(weights, x):
  return jnp.sum(jnp.tanh(x @ weights) ** 2)


@pytest.mark.parametrize(
  'optimizer',
  [
    lambda: optax.adam(0.1),
    lambda: optax.lamb(0.1),
    lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5, momentum=0.9)),
  ],
)
def test_inner_trains_the_centroids_as_if_they_were_the_parameters(optimizer):
  """The steps equal those on the centroids alone, with each centroid counted once."""
  rng = np.random.default_rng(0)
  start = {'kernel': jnp.asarray(rng.normal(size=(6, 4)) * (rng.random((6, 4)) < 0.6), jnp.float32)}
  shared = share(start, 2)
  params, ids, book = (
    jax.tree.map(jnp.asarray, shared.params),
    shared.ids['kernel'],
    jnp.asarray(shared.codebooks['kernel']),
  )
  x = jnp.asarray(rng.normal(size=(5, 6)), jnp.float32)

  def loss_of_centroids(book):
    return network(jnp.where(ids >= 0, book[ids], 0.0), x)

  tx, plain = share_weights(2, inner=optimizer()), optimizer()
  state, plain_state = tx.init(params), plain.init(book)
  for _ in range(5):
    grad = jax.grad(lambda params: network(params['kernel'], x))(params)
    updates, state = tx.update(grad, state, params)
    params = optax.apply_updates(params, updates)
    updates, plain_state = plain.update(jax.grad(loss_of_centroids)(book), plain_state, book)
    book = optax.apply_updates(book, updates)
  expected = np.where(ids >= 0, np.asarray(book)[ids], 0.0)
  np.testing.assert_allclose(params['kernel'], expected, rtol=1e-5, atol=1e-6)


def test_a_line_search_runs_on_the_centroids():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
  params = {'kernel': jnp.array([[1.0, 2.0], [2.0, 0.0], [1.0, 1.0]])}

  def loss(params):
    return network(params['kernel'], x)

  tx = share_weights(1, inner=optax.lbfgs())
  state, losses = tx.init(params), [float(loss(params))]
  for _ in range(3):
    value, grad = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)
    params = optax.apply_updates(params, updates)
    losses.append(float(loss(params)))
  assert losses == sorted(losses, reverse=True)
  assert losses[-1] < losses[0]
  kernel = params['kernel']
  assert kernel[0, 0] == kernel[2, 0] == kernel[2, 1]
  assert kernel[0, 1] == kernel[1, 0] != kernel[0, 0]
  assert kernel[1, 1] == 0


def test_an_optimizer_has_one_slot_for_each_centroid():
  state = share_weights(3, inner=optax.adam(0.1)).init({'kernel': jnp.ones((100, 100))})
  assert {leaf.size for leaf in jax.tree.leaves(state.inner_state)} == {1, 8}


def test_both_implementations_of_the_sum_agree():
  from sparsejax.shipping.share_weights import _summed

  rng = np.random.default_rng(0)
  ids = jnp.asarray(rng.integers(0, 9, 1000), jnp.uint16)
  values = jnp.asarray(rng.normal(size=1000), jnp.float32)
  expected = [values[ids == k].sum() for k in range(1, 9)]
  np.testing.assert_allclose(_summed(ids, values, 8), expected, rtol=1e-4, atol=1e-5)
  elsewhere = jax.export.export(jax.jit(_summed, static_argnums=2), platforms=['cuda'])
  assert 'scatter' not in elsewhere(ids, values, 8).mlir_module()


def test_more_values_than_clusters_are_refused_and_give_nan_under_jit():
  params = {'fc': {'kernel': jnp.arange(1.0, 7.0).reshape(2, 3)}}
  message = "'fc/kernel' has 6 nonzero values and must have at most 4: share its weights "
  with pytest.raises(ValueError, match=re.escape(message)):
    share_weights(2).init(params)
  tx = share_weights(2)
  updates, _ = tx.update(params, jax.jit(tx.init)(params), params)
  assert bool(jnp.all(jnp.isnan(updates['fc']['kernel'])))
  with pytest.raises(ValueError, match=r'^bits=12 must be a whole number from 1 to 8$'):
    share_weights(12)


def test_weights_that_another_transformation_moved_apart_are_rejoined():
  tx = share_weights(2)
  state = tx.init(PARAMS)
  apart = PARAMS | {'kernel': PARAMS['kernel'].at[1, 0].add(0.5).at[0, 2].set(3.0)}
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, GRAD), state, apart)
  assert optax.apply_updates(apart, updates)['kernel'].tolist() == PARAMS['kernel'].tolist()
