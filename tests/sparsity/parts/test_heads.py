"""Whole heads: query, key, value and output projections are pruned together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sparsejax
from sparsejax import granularity
from sparsejax.sparsity.leaves.layout import Layout

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

STRENGTHS = jnp.array([3.0, 0.1, 2.0, 0.2])  # of the four heads


def attention():
  x = jnp.ones((1, 5, 16))
  params = nn.MultiHeadDotProductAttention(num_heads=4).init(jax.random.key(0), x, x)['params']
  for name in ('query', 'key', 'value'):
    params[name]['kernel'] *= STRENGTHS[None, :, None]
  params['out']['kernel'] *= STRENGTHS[:, None, None]
  return params


def test_the_weakest_heads_are_removed_from_all_four_projections():
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
  """Two heads of keys serve four of queries: the first two and the last two are ranked together."""
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


def masks_of(params, layouts, **options):
  chain = sparsejax.prune(
    sparsejax.one_shot(0, 0.5), granularity=granularity.heads(), layouts=layouts, **options
  )
  return chain.update(params, chain.init(params), params)[1].masks


def test_layers_of_a_plain_dict_have_heads_of_their_own():
  """The strongest heads are the last in the first layer, and the first in the second."""
  strengths = {'layer0': jnp.arange(1.0, 5.0), 'layer1': jnp.arange(4.0, 0.0, -1.0)}
  params = {
    layer: {name: jnp.ones((8, 4, 2)) * by_head[None, :, None] for name in ('wq', 'wk', 'wv')}
    | {'wo': jnp.ones((4, 2, 8)) * by_head[:, None, None]}
    for layer, by_head in strengths.items()
  }
  masks = masks_of(params, {'w[qkv]': 'in head out', 'wo': 'head in out'})
  for layer, kept in (
    ('layer0', [False, False, True, True]),
    ('layer1', [True, True, False, False]),
  ):
    for name in ('wq', 'wk', 'wv'):
      assert np.asarray(masks[layer][name]).all((0, 2)).tolist() == kept
    assert np.asarray(masks[layer]['wo']).all((1, 2)).tolist() == kept


@pytest.mark.parametrize(
  ('params', 'layouts', 'message'),
  [
    (
      {'attn': {'q': {'w': (6, 4, 3)}, 'k': {'w': (6, 12)}, 'v': {'w': (6, 4, 3)}}},
      {'attn/[qv]/': 'in head out'},
      "attention 'attn' attn/q/w, attn/v/w name heads, and attn/k/w must too",
    ),
    (
      {
        'self': {name: {'kernel': (6, 4, 3)} for name in ('query', 'key', 'value')},
        'output': {'dense': {'kernel': (4, 3, 6)}},
      },
      {'self': 'in head out', 'output': 'head in out'},
      "'output' has only the output projection output/dense/kernel, and must have the projections",
    ),
    (
      {f'layer{i}_{name}': {'w': (6, 4, 3)} for i in range(2) for name in ('query', 'key')},
      {'': 'in head out'},
      'queries layer0_query/w, layer1_query/w and must have one: give each attention',
    ),
  ],
)
def test_parts_of_attentions_are_refused(params, layouts, message):
  params = jax.tree.map(jnp.ones, params, is_leaf=lambda shape: isinstance(shape, tuple))
  with pytest.raises(ValueError, match=message):
    masks_of(params, layouts)


def test_heads_that_do_not_divide_are_refused():
  params = {'q': {'w': jnp.ones((6, 4, 3))}, 'k': {'w': jnp.ones((6, 3, 3))}}
  chain = sparsejax.prune(
    sparsejax.one_shot(0, 0.5), granularity=granularity.heads(), layouts={'': 'in head out'}
  )
  with pytest.raises(
    ValueError, match='must have the same number of heads, or multiples of the fewest'
  ):
    chain.init(params)
