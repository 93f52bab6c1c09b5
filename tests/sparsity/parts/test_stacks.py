"""A leaf that stacks layers is pruned like separate layers, by every part of a method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax
from sparsejax import allocation, criteria, granularity

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

LAYERS = 5
SCALES = jnp.array([1.0, 30.0, 3.0, 0.1, 10.0])


def stacked(axis):
  """Returns five dense layers and five convolutions in two leaves, and the same in ten."""
  rng = np.random.default_rng(0)
  shapes = {'dense': (8, 12), 'conv': (3, 3, 4, 6)}
  apart = {
    f'{name}_{i}': {'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32) * SCALES[i]}
    for name, shape in shapes.items()
    for i in range(LAYERS)
  }
  together = {
    name: {'kernel': jnp.stack([apart[f'{name}_{i}']['kernel'] for i in range(LAYERS)], axis)}
    for name in shapes
  }
  return together, apart


def layouts(axis):
  words = {'dense': 'in out', 'conv': 'position position in out'}
  return {
    name: ' '.join([*text.split()[:axis], 'stack', *text.split()[axis:]])
    for name, text in words.items()
  }


GRANULARITIES = {
  'weight': None,
  'filters': granularity.filters(),
  'input_channels': granularity.input_channels(),
  'blocks': granularity.blocks(3, 5),
  'n_of_m': granularity.n_of_m(4),
}
ALLOCATIONS = (allocation.global_rank, allocation.uniform, allocation.erk)


@pytest.mark.filterwarnings('ignore:prune_to leaves')
@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('rule', ALLOCATIONS)
@pytest.mark.parametrize('name', GRANULARITIES)
def test_masks_are_those_of_separate_layers(name, rule, axis):
  if name == 'n_of_m' and rule is allocation.global_rank:
    rule = allocation.uniform
  together, apart = stacked(axis)
  prune = functools.partial(
    sparsejax.prune_to, sparsity=0.7, granularity=GRANULARITIES[name], allocation=rule
  )
  one = prune(together, layouts=layouts(axis))
  many = prune(apart)
  for path in ('dense', 'conv'):
    for i in range(LAYERS):
      layer = jnp.take(one[path]['kernel'], i, axis)
      np.testing.assert_array_equal(layer, many[f'{path}_{i}']['kernel'])


def test_a_criterion_looks_at_one_layer_at_a_time():
  """LAMP divides by a sum over one layer."""
  together, apart = stacked(0)
  prune = functools.partial(sparsejax.prune_to, sparsity=0.8, criterion=criteria.lamp)
  one, many = prune(together, layouts=layouts(0)), prune(apart)
  for i in range(LAYERS):
    np.testing.assert_array_equal(one['dense']['kernel'][i], many[f'dense_{i}']['kernel'])


def test_random_scores_differ_from_layer_to_layer():
  params = {'w': jnp.ones((2, 30, 30))}
  mask = sparsejax.prune_to(
    params, sparsity=0.5, criterion=criteria.random, layouts={'w': 'stack in out'}
  )['w']
  assert bool((mask[0] != mask[1]).any())


def test_a_leaf_whose_layout_has_no_inputs_is_no_kernel():
  """Such as scales of stacked layers with any name; they are pruned on request."""
  params = {'w': jnp.arange(1.0, 49.0).reshape(3, 4, 4), 'alpha': jnp.full((3, 4), 0.1)}
  told = {'w': 'stack in out', 'alpha': 'stack out'}
  pruned = sparsejax.prune_to(params, sparsity=0.5, layouts=told)
  assert [int((leaf != 0).sum()) for leaf in (pruned['w'], pruned['alpha'])] == [24, 12]
  assert sparsejax.sparsity_report(params, layouts=told)['weights'] == 48
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.5), layouts=told)
  assert chain.init(params).masks['alpha'].shape == ()
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.5), layouts=told, parameters='all')
  assert chain.init(params).masks['alpha'].shape == (3, 4)


def test_a_floor_applies_to_each_layer():
  together, _ = stacked(0)
  left = sparsejax.prune_to(together, sparsity=0.95, floor=4, layouts=layouts(0))['dense']['kernel']
  assert int((left != 0).sum((1, 2)).min()) == 4


def test_the_transformation_under_jit_makes_the_same_masks():
  together, _ = stacked(0)
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.3), layouts=layouts(0))
  zeros = jax.tree.map(jnp.zeros_like, together)
  state = chain.init(together)
  for update in (chain.update, jax.jit(chain.update)):
    masks = update(zeros, state, together)[1].masks
    once = sparsejax.prune_to(together, sparsity=0.7, layouts=layouts(0))
    for path in together:
      np.testing.assert_array_equal(masks[path]['kernel'], once[path]['kernel'] != 0)
