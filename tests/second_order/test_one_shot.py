"""Whole networks pruned with data, against the same done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import sparsejax
from sparsejax import granularity
from sparsejax.second_order import (
  lobs,
  moments_of,
  prune_with_data,
  sparsegpt,
  wanda,
)
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

RULES = {'sparsegpt': sparsegpt, 'wanda': wanda, 'lobs': lobs}


def normal(*shape, seed=0):
  return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def network(params, x):
  for name in ('fc1', 'fc2'):
    x = jax.nn.relu(x @ params[name]['kernel'] + params[name]['bias'][None])
  return x @ params['fc3']['kernel']


def weights():
  sizes = {'fc1': (12, 16), 'fc2': (16, 10), 'fc3': (10, 4)}
  return {
    name: {'kernel': normal(*shape), 'bias': normal(shape[1], seed=1)}
    for name, shape in sizes.items()
  }


def by_hand(params, x, rule, keeps):
  """Prunes the layers of `network` one after the other, with plain matrix products between."""
  params = {name: dict(leaves) for name, leaves in params.items()}
  for name, keep in keeps.items():
    kernel, _ = rule(jnp.asarray(params[name]['kernel']).T[None], moments_of(x[None]), keep)
    params[name]['kernel'] = kernel[0].T
    x = jax.nn.relu(x @ params[name]['kernel'] + params[name]['bias'][None])
  return params


def same(found, wanted, atol=2e-3):
  for path, leaf in tree.named_leaves(found).items():
    other = np.asarray(tree.named_leaves(wanted)[path])
    np.testing.assert_array_equal(np.asarray(leaf) == 0, other == 0, err_msg=path)
    np.testing.assert_allclose(leaf, other, atol=atol, err_msg=path)


@pytest.mark.parametrize('rule', ['sparsegpt', 'wanda', 'lobs'])
def test_layers_are_pruned_on_what_the_pruned_ones_before_give(rule):
  params, x = weights(), jnp.asarray(normal(100, 12))
  found, masks = prune_with_data(
    network, params, [x[:40], x[40:80], x[80:]], density=0.4, rule=rule
  )
  wanted_masks = sparsejax.prune_to(params, sparsity=0.6, return_masks=True)[1]
  keeps = {name: int(wanted_masks[name]['kernel'].sum()) for name in params}
  same(found, by_hand(params, x, RULES[rule], keeps))
  for name, keep in keeps.items():
    mask = masks[name]['kernel']
    assert mask.sum() == keep
    np.testing.assert_array_equal(found[name]['kernel'][~mask], 0)
    assert masks[name]['bias'].shape == ()
    np.testing.assert_array_equal(found[name]['bias'], params[name]['bias'])


@pytest.mark.parametrize('rule', ['sparsegpt', 'wanda'])
@pytest.mark.parametrize(
  ('groups', 'density'), [(granularity.n_m(2, 4), None), (granularity.n_of_m(4), 0.5)]
)
def test_two_of_each_four_inputs_stay(rule, groups, density):
  params, x = weights(), jnp.asarray(normal(100, 12))
  found, masks = prune_with_data(
    network, params, [x], density=density, rule=rule, granularity=groups, exclude='fc3'
  )
  same(found, by_hand(params, x, RULES[rule], {'fc1': (2, 4), 'fc2': (2, 4)}))
  for name in ('fc1', 'fc2'):
    mask = np.asarray(masks[name]['kernel'])
    assert (mask.reshape(-1, 4, mask.shape[1]).sum(1) == 2).all()
  assert masks['fc3']['kernel'].shape == ()


def test_allocations_and_densities_by_layer_are_those_of_prune():
  params, x = weights(), normal(50, 12)
  _, masks = prune_with_data(
    network, params, [x], density=0.5, allocation=sparsejax.allocation.uniform()
  )
  assert [int(masks[name]['kernel'].sum()) for name in params] == [96, 80, 20]
  _, masks = prune_with_data(network, params, [x], density={'fc1': 0.25, 'fc2': 0.5})
  assert [int(masks[name]['kernel'].sum()) for name in params] == [48, 80, 40]


def test_on_correlated_inputs_sparsegpt_loses_less_than_wanda_and_magnitude():
  params, x = weights(), normal(400, 4) @ normal(4, 12) + normal(400, 12) / 10
  wanted = network(params, x)

  def error(found):
    return float(jnp.mean((network(found, x) - wanted) ** 2))

  others = ('fc2', 'fc3')
  gpt, wan = (
    error(prune_with_data(network, params, [x], density=0.5, rule=rule, exclude=others)[0])
    for rule in ('sparsegpt', 'wanda')
  )
  magnitude = error(sparsejax.prune_to(params, sparsity={'fc1': 0.5}, exclude=others))
  assert gpt < 0.75 * wan
  assert wan < magnitude


class Linen(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.relu(linen.Conv(8, (3, 3), strides=2, name='conv1')(x))
    x = linen.relu(linen.Conv(8, (3, 3), feature_group_count=2, name='conv2')(x))
    return linen.Dense(5, name='head')(x.reshape(len(x), -1))


class Nnx(nnx.Module):
  def __init__(self, rngs):
    self.conv1 = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
    self.conv2 = nnx.Conv(8, 8, (3, 3), feature_group_count=2, rngs=rngs)
    self.head = nnx.Linear(128, 5, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
    return self.head(x.reshape(len(x), -1))


def plain(params, x):
  for name, strides, groups in (('conv1', 2, 1), ('conv2', 1, 2)):
    x = jax.lax.conv_general_dilated(
      x,
      params[name]['kernel'],
      (strides, strides),
      'SAME',
      feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = jax.nn.relu(x + params[name]['bias'][None, None, None])
  return x.reshape(len(x), -1) @ params['head']['kernel'] + params['head']['bias'][None]


@pytest.mark.parametrize('rule', ['sparsegpt', 'wanda'])
def test_linen_nnx_and_a_plain_function_give_the_same(rule):
  x = normal(12, 8, 8, 3)
  module = Linen()
  params = module.init(jax.random.key(0), x)['params']
  graph, state, rest = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)
  values = tree.named_leaves(params)
  state = jax.tree.unflatten(jax.tree.structure(state), [values[p] for p in tree.paths(state)])
  batches, settings = [x[:8], x[8:]], {'density': 0.4, 'rule': rule}
  ours, _ = prune_with_data(
    lambda p, x: module.apply({'params': p}, x), params, batches, **settings
  )
  theirs, masks = prune_with_data(
    lambda p, x: nnx.merge(graph, p, rest)(x), state, batches, **settings
  )
  same(prune_with_data(plain, params, batches, **settings)[0], ours)
  for path, leaf in tree.named_leaves(theirs).items():
    other = tree.named_leaves(ours)[path]
    np.testing.assert_array_equal(np.asarray(leaf) == 0, np.asarray(other) == 0)
    np.testing.assert_allclose(leaf, other, atol=2e-3)
  twin = nnx.merge(graph, theirs, rest)
  np.testing.assert_allclose(twin(x), module.apply({'params': ours}, x), atol=1e-2)
  assert jax.tree.structure(masks) == jax.tree.structure(state)


class Normalised(linen.Module):
  @linen.compact
  def __call__(self, x, train):
    x = linen.Conv(6, (3, 3), use_bias=False, name='conv')(x)
    x = linen.relu(linen.BatchNorm(not train, momentum=0.9, name='bn')(x))
    return linen.Dense(3, name='head')(x.mean((1, 2)))


def test_batch_norms_averages_are_estimated_again_over_the_same_batches():
  module, x = Normalised(), normal(16, 6, 6, 3) + 1
  variables = module.init(jax.random.key(0), x, train=False)
  found, _ = prune_with_data(
    lambda v, x: module.apply(v, x, train=False),
    variables,
    [x[:8], x[8:]],
    density=0.3,
    update_averages=lambda v, x: module.apply(v, x, train=True, mutable='batch_stats')[1][
      'batch_stats'
    ],
  )
  kernel = found['params']['conv']['kernel']
  assert 0 < np.count_nonzero(kernel) < kernel.size
  means = jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  ).mean((0, 1, 2))
  np.testing.assert_allclose(found['batch_stats']['bn']['mean'], means, atol=1e-4)


def test_progress_has_what_an_interrupt_would_lose():
  params, x = weights(), normal(50, 12)
  seen = []
  prune_with_data(network, params, [x], density=0.5, progress=seen.append)
  assert [(one.path, one.number, one.layers) for one in seen] == [
    *(('fc1/kernel', 1, 3), ('fc2/kernel', 2, 3), ('fc3/kernel', 3, 3)),
  ]
  [first, *_] = seen
  np.testing.assert_array_equal(first.params['fc1']['kernel'], seen[2].params['fc1']['kernel'])
  np.testing.assert_array_equal(first.params['fc2']['kernel'], params['fc2']['kernel'])
  assert first.masks['fc2']['kernel'].all()
  assert first.kept == int(first.masks['fc1']['kernel'].sum())


@pytest.mark.parametrize(
  ('x', 'why'),
  [
    (np.zeros((0, 12), np.float32), 'no example'),
    (np.full((3, 12), np.nan, np.float32), 'must be finite'),
    (np.full((3, 12), 1e30, np.float32), 'must be finite'),
  ],
)
@pytest.mark.parametrize('rule', RULES)
def test_inputs_that_say_nothing_are_refused(rule, x, why):
  with pytest.raises(ValueError, match=f'fc1/kernel.*{why}|{why}.*fc1/kernel'):
    prune_with_data(network, weights(), [x], density=0.5, rule=rule)


@pytest.mark.parametrize('keep', [9, (1, 2)])
@pytest.mark.parametrize('rule', RULES)
def test_a_rule_gives_the_same_where_float64_is_enabled(rule, keep):
  kernel, rows = normal(1, 3, 6), normal(1, 40, 6)
  new, mask = RULES[rule](kernel, moments_of(jnp.asarray(rows)), keep)
  with jax.enable_x64(True):
    other, other_mask = RULES[rule](jnp.asarray(kernel), moments_of(jnp.asarray(rows)), keep)
  np.testing.assert_array_equal(mask, other_mask)
  np.testing.assert_allclose(new, other, rtol=1e-5)


def test_a_rule_of_ones_own():
  def largest(kernel, moments, keep):
    assert moments.total.shape == (1, kernel.shape[-1], kernel.shape[-1])
    size = jnp.abs(kernel)
    mask = size >= jnp.sort(size.ravel())[-keep]
    return jnp.where(mask, kernel, 0), mask

  params, x = weights(), normal(50, 12)
  found, _ = prune_with_data(network, params, [x], density=0.5, rule=largest)
  same(found, sparsejax.prune_to(params, sparsity=0.5))


def test_stacked_matrices_keep_what_prune_gives_each():
  params = {'w': normal(3, 8, 6) * np.array([1, 2, 4], np.float32)[:, None, None]}
  x = normal(40, 3, 8)

  def function(p, x):
    return jnp.einsum('nsi,sio->nso', x, p['w'])

  _, masks = prune_with_data(function, params, [x], density=0.5)
  layouts = {'w': 'stack in out'}
  wanted = sparsejax.prune_to(params, sparsity=0.5, layouts=layouts, return_masks=True)[1]
  found = masks['w'].sum((1, 2)).tolist()
  assert found == wanted['w'].sum((1, 2)).tolist()
  assert found[0] < found[2]


@pytest.mark.parametrize(
  ('settings', 'match'),
  [
    ({}, 'density is missing'),
    ({'density': 1.5}, r'density=1\.5'),
    ({'density': 0.5, 'rule': 'wnada'}, "did you mean 'wanda'"),
    ({'density': 0.5, 'granularity': granularity.filters()}, 'granularity must be one of'),
    ({'density': 0.4, 'granularity': granularity.n_of_m(4)}, r'density=0\.4 must be n / 4'),
    ({'density': 0.5, 'exclude': 'fc9'}, 'fc9'),
    ({'density': 0.5, 'update_averages': lambda v, x: v}, 'update_averages needs params'),
  ],
)
def test_what_cannot_be_is_refused(settings, match):
  with pytest.raises(ValueError, match=match):
    prune_with_data(network, weights(), [normal(5, 12)], **settings)


def test_no_batch_is_refused():
  with pytest.raises(ValueError, match='batches is empty'):
    prune_with_data(network, weights(), [], density=0.5)


def test_it_is_in_the_index():
  assert sparsejax.prune_with_data is prune_with_data
  assert sparsejax.second_order.sparsegpt is sparsegpt
