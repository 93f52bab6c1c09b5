"""Proximal steps on networks: which leaves they take, and among the transformations of Optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax import group_soft_threshold, proximal_group_l1, proximal_l1, soft_threshold

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def network():
  """A convolution of three filters, a dense layer of two units, biases and a BatchNorm's scale."""
  rng = np.random.default_rng(0)
  conv, head, bias = (
    jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 2, 2, 3), (4, 2), (2,))
  )
  return {
    'conv': {'kernel': conv, 'bias': jnp.ones(3)},
    'norm': {'scale': jnp.ones(3), 'bias': jnp.zeros(3)},
    'head': {'kernel': head, 'bias': bias},
  }


def gradient(params, step=0.0):
  return jax.tree.map(lambda p: 0.1 * (jnp.cos(3 * p + step) + 2), params)


def train(tx, params, steps=4, **extra):
  @jax.jit
  def step(params, state, t):
    updates, state = tx.update(gradient(params, t), state, params, **extra)
    return optax.apply_updates(params, updates), state

  history = [(params, tx.init(params))]
  for t in range(steps):
    history.append(step(*history[-1], jnp.float32(t)))
  return history


def kernels(tree):
  return [tree['conv']['kernel'], tree['head']['kernel']]


def zeros(tree):
  return sum(int(jnp.sum(leaf == 0)) for leaf in jax.tree.leaves(kernels(tree)))


def test_a_weak_filter_goes_as_a_whole_and_nothing_else_does():
  params = network()
  params['conv']['kernel'] = params['conv']['kernel'].at[..., 1].multiply(0.01)
  tx = optax.chain(optax.scale(0.0), proximal_group_l1(1.0, 0.1))
  for after, _ in train(tx, params)[1:]:
    dead = jnp.all(after['conv']['kernel'] == 0, (0, 1, 2))
    assert dead.tolist() == [False, True, False]
    assert zeros(after) == 8
    chex.assert_tree_all_finite(after)


@pytest.mark.parametrize('link', [proximal_l1, proximal_group_l1])
def test_layers_of_zeros_and_a_learning_rate_of_zero_give_no_nan(link):
  params = jax.tree.map(jnp.zeros_like, network())
  for rate in (0.0, 0.1):
    for tx in (optax.chain(optax.sgd(rate), link(0.1, rate)), link(0.1, rate, inner=optax.adam(0))):
      update, state = jax.jit(tx.update), tx.init(params)
      for grad in (params, network()):
        chex.assert_tree_all_finite(update(grad, state, params))
      chex.assert_tree_all_finite(update(params, state, network()))


@pytest.mark.parametrize('link', [proximal_l1, proximal_group_l1])
def test_at_strength_zero_it_is_the_optimizer_itself(link):
  for optimizer, tx in (
    (optax.sgd(0.1), optax.chain(optax.sgd(0.1), link(0.0, 0.1))),
    (optax.adam(0.1), link(0.0, 0.1, inner=optax.adam(0.1))),
  ):
    wanted, found = (train(t, network())[-1][0] for t in (optimizer, tx))
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_is_not_chosen_is_left_alone():
  bare = train(optax.sgd(0.1), network())[-1][0]
  tx = optax.chain(optax.sgd(0.1), proximal_l1(1e6, 0.1, exclude='^head/'))
  after = train(tx, network())[-1][0]
  assert bool(jnp.all(after['conv']['kernel'] == 0))
  chex.assert_trees_all_equal(after['head'], bare['head'])
  chex.assert_trees_all_equal(after['norm'], bare['norm'])
  everything = optax.chain(optax.sgd(0.1), proximal_l1(1e6, 0.1, parameters='all'))
  assert all(bool(jnp.all(p == 0)) for p in jax.tree.leaves(train(everything, network())[-1][0]))
  biases = proximal_l1(1e6, 0.1, parameters=lambda path, leaf: path.endswith('/bias'))
  after = train(optax.chain(optax.sgd(0.1), biases), network())[-1][0]
  assert zeros(after) == 0
  assert bool(jnp.all(after['head']['bias'] == 0))


def test_with_prune_behind_it_both_make_their_zeros():
  tx = optax.chain(
    optax.sgd(0.1), proximal_l1(6.0, 0.1), sparsejax.prune(sparsejax.one_shot(1, 0.25))
  )
  params, state = train(tx, network(), 3)[-1]
  for leaf, mask in zip(kernels(params), kernels(optax.tree.get(state, 'masks')), strict=True):
    assert bool(jnp.all(leaf[~mask] == 0))
  assert zeros(params) > 24
  inside = sparsejax.prune(
    sparsejax.one_shot(1, 0.25), inner=proximal_l1(1e-3, 0.01, inner=optax.adam(0.01))
  )
  params, state = train(inside, network(), 3)[-1]
  for leaf, mask in zip(kernels(params), kernels(optax.tree.get(state, 'masks')), strict=True):
    np.testing.assert_array_equal(leaf != 0, mask)


def test_the_first_update_reads_its_schedules_at_count_0():
  tx = proximal_l1(lambda count: 1.0 + count, lambda count: jnp.array([0.5, 0.25, 0.0])[count])
  params = {'w': jnp.array([[3.0, -2.0, 0.1]])}
  state = tx.init(params)
  seen = []
  for _ in range(3):
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    params = optax.apply_updates(params, updates)
    seen.append(params['w'].tolist())
  assert seen == [[[2.5, -1.5, 0.0]], [[2.0, -1.0, 0.0]], [[2.0, -1.0, 0.0]]]
  assert int(state.count) == 3


# Among other transformations, and of what leaves

LINKS = {
  'l1': optax.chain(optax.sgd(0.1, momentum=0.5), proximal_l1(0.5, 0.1, 0.5)),
  'group': optax.chain(optax.sgd(0.1), proximal_group_l1(3.0, 0.1)),
  'l1_adam': proximal_l1(0.3, 0.1, inner=optax.adam(0.1)),
  'group_adam': proximal_group_l1(0.8, 0.1, inner=optax.adam(0.1)),
}


def test_in_a_named_chain_and_under_multi_steps():
  tx = optax.named_chain(('sgd', optax.sgd(0.1)), ('l1', proximal_l1(0.5, 0.1)))
  bare = optax.chain(optax.sgd(0.1), proximal_l1(0.5, 0.1))
  named, plain = (train(t, network()) for t in (tx, bare))
  chex.assert_trees_all_equal(named[-1][0], plain[-1][0])
  slow = train(optax.MultiSteps(bare, 2).gradient_transformation(), network())
  chex.assert_trees_all_equal(slow[1][0], slow[0][0])
  assert int(optax.tree.get(slow[-1][1], 'gradient_step')) == 2
  assert zeros(slow[2][0]) > 0


@pytest.mark.parametrize('link', LINKS)
def test_under_masked_a_leaf_is_left_out(link):
  mask = {'conv': True, 'norm': True, 'head': False}
  tx = optax.masked(LINKS[link], mask)
  params, _ = train(tx, network(), grad=network())[-1]
  assert bool(jnp.any(params['conv']['kernel'] == 0))
  assert bool(jnp.all(params['head']['kernel'] != 0))


def test_under_partition_every_part_has_its_own_strength():
  labels = {'conv': 'strong', 'norm': 'adam', 'head': 'adam'}
  links = {
    'strong': optax.chain(optax.sgd(0.1), proximal_group_l1(1e6, 0.1)),
    'adam': proximal_l1(0.0, 0.1, inner=optax.adam(0.1)),
  }
  params, _ = train(optax.partition(links, labels), network())[-1]
  assert zeros(params) == 24


def test_numbers_may_be_injected():
  injected = optax.inject_hyperparams(proximal_l1)(0.5, 0.1, 0.5)
  chains = [
    optax.chain(optax.sgd(0.1, momentum=0.5), t) for t in (injected, proximal_l1(0.5, 0.1, 0.5))
  ]
  found, wanted = (train(t, network())[-1][0] for t in chains)
  chex.assert_trees_all_close(found, wanted, rtol=1e-6)
  around = optax.inject_hyperparams(proximal_group_l1)(
    optax.constant_schedule(0.8), 0.1, inner=optax.inject_hyperparams(optax.adam)(0.1)
  )
  wanted = train(LINKS['group_adam'], network())[-1][0]
  chex.assert_trees_all_close(train(around, network())[-1][0], wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('params_dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('updates_dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('make', [proximal_l1, proximal_group_l1])
def test_zeros_are_exact_in_any_mixture_of_dtypes(make, params_dtype, updates_dtype):
  params = jax.tree.map(lambda p: p.astype(params_dtype), network())
  updates = jax.tree.map(lambda p: jnp.full_like(p, -0.1, updates_dtype), params)
  tx = make(1.0, 0.7)
  moved, _ = jax.jit(tx.update)(updates, tx.init(params), params)
  after = optax.apply_updates(params, moved)
  chex.assert_trees_all_equal_dtypes(after, params)
  for leaf, move, old in zip(*map(kernels, (after, moved, params)), strict=True):
    assert move.dtype == jnp.promote_types(params_dtype, updates_dtype)
    values = old.astype(jnp.float32) + jnp.float32(updates_dtype(-0.1))
    operator = soft_threshold if make is proximal_l1 else group_soft_threshold
    np.testing.assert_array_equal(leaf == 0, operator(values, 0.7) == 0)
  assert moved['head']['bias'].dtype == updates_dtype
  around = make(1.0, 0.1, inner=optax.adam(0.1))
  moved, _ = jax.jit(around.update)(updates, around.init(params), params)
  after = optax.apply_updates(params, moved)
  chex.assert_trees_all_equal_dtypes(after, params)


def test_leaves_that_are_none_or_whole_numbers_stay_as_they_are():
  params = {'w': jnp.array([[3.0, 1.0, 2.0]]), 'none': None, 'table': jnp.arange(3)}
  updates = {'w': jnp.zeros((1, 3)), 'none': None, 'table': jnp.zeros(3, jnp.int32)}
  tx = proximal_l1(1.0, 1.5, parameters='all')
  moved, _ = tx.update(updates, tx.init(params), params)
  after = optax.apply_updates(params, moved)
  assert after['w'].tolist() == [[1.5, 0.0, 0.5]]
  assert after['table'].tolist() == [0, 1, 2]


def test_small_steps_around_leave_the_strength_as_it_is():
  chain = optax.chain(optax.sgd(0.1), proximal_l1(1.0, 0.1))
  params = {'kernel': jnp.full((1, 2), 5.0)}
  tx = optax.MultiSteps(chain, 2)
  state = tx.init(params)
  for _ in range(4):
    updates, state = tx.update({'kernel': jnp.zeros((1, 2))}, state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(params['kernel'], 4.8, rtol=1e-6)
