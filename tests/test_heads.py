"""Whole heads: query, key, value and what puts them together, all or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sparsejax
from sparsejax import granularity
from sparsejax.sparsity.layout import Layout

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

STRENGTHS = jnp.array([3.0, 0.1, 2.0, 0.2])  # of the four heads


def attention():
  x = jnp.ones((1, 5, 16))
  params = nn.MultiHeadDotProductAttention(num_heads=4).init(jax.random.key(0), x, x)['params']
  for name in ('query', 'key', 'value'):
    params[name]['kernel'] *= STRENGTHS[None, :, None]
  params['out']['kernel'] *= STRENGTHS[:, None, None]
  return params


def test_the_weakest_heads_go_from_all_four_projections():
  params = {'attention': attention(), 'mlp': {'kernel': jnp.ones((16, 8))}}
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.5), granularity=granularity.heads())
  masks = chain.update(params, chain.init(params), params)[1].masks
  kept = np.array([True, False, True, False])
  for name in ('query', 'key', 'value'):
    mask = np.asarray(masks['attention'][name]['kernel'])
    np.testing.assert_array_equal(mask, np.broadcast_to(kept[None, :, None], (16, 4, 4)))
  mask = np.asarray(masks['attention']['out']['kernel'])
  np.testing.assert_array_equal(mask, np.broadcast_to(kept[:, None, None], (4, 4, 16)))
  assert masks['mlp']['kernel'].shape == ()


def test_a_head_of_keys_takes_its_queries_with_it():
  """Two heads of keys for four of queries: the sums of the first two and of the last two count."""
  rng = np.random.default_rng(0)
  params = {
    'q': {'w': jnp.asarray(rng.normal(size=(6, 4, 3))) * jnp.array([1, 1, 5, 0.1])[None, :, None]},
    'k': {'w': jnp.asarray(rng.normal(size=(6, 2, 3)))},
  }
  chain = sparsejax.prune(
    sparsejax.one_shot(0, 0.5), granularity=granularity.heads(), layouts={'': 'in head out'}
  )
  masks = chain.update(params, chain.init(params), params)[1].masks
  assert np.asarray(masks['q']['w'])[0, :, 0].tolist() == [False, False, True, True]
  assert np.asarray(masks['k']['w'])[0, :, 0].tolist() == [False, True]


def test_fused_heads_need_their_number():
  params = {'query': {'w': jnp.arange(1.0, 33.0).reshape(8, 4)}}
  parts = {'granularity': granularity.heads(), 'parameters': lambda path, leaf: True}
  with pytest.raises(ValueError, match='no layout of query/w names heads; say where they are'):
    sparsejax.prune(sparsejax.one_shot(0, 0.5), **parts).init(params)
  layouts = {'query': Layout('(head out) in', head=4)}
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.5), layouts=layouts, **parts)
  mask = chain.update(params, chain.init(params), params)[1].masks['query']['w']
  assert np.asarray(mask).all(1).tolist() == [False] * 4 + [True] * 4


def test_heads_that_do_not_divide_are_refused():
  params = {'q': {'w': jnp.ones((6, 4, 3))}, 'k': {'w': jnp.ones((6, 3, 3))}}
  chain = sparsejax.prune(
    sparsejax.one_shot(0, 0.5), granularity=granularity.heads(), layouts={'': 'in head out'}
  )
  with pytest.raises(ValueError, match='must have the same heads, or multiples of the fewest'):
    chain.init(params)
