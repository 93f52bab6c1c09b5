"""Proximal steps: the Lasso and the group lasso, solved behind and around optimizers.

The solutions are compared with scikit-learn's, and with a block coordinate descent written here.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq
from sklearn.linear_model import Lasso

import sparsejax
from sparsejax import (
  adam_metric,
  amsgrad_metric,
  granularity,
  group_soft_threshold,
  proximal_group_l1,
  proximal_l1,
  rms_metric,
  soft_threshold,
)
from sparsejax.sparsity.shrinkage import group_soft_threshold_in_metric

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


# The operators


def test_soft_threshold_moves_towards_zero_and_to_it():
  assert soft_threshold(jnp.array([3.0, -0.5, -2.0]), 1.0).tolist() == [2.0, 0.0, -1.0]
  assert soft_threshold(jnp.array([1.0, -1.0, 0.0]), 1.0).tolist() == [0.0, 0.0, 0.0]
  assert not np.signbit(soft_threshold(jnp.array([-0.5]), 1.0)).any()


def test_soft_threshold_at_the_ends_of_its_range():
  values = jnp.array([3.0, -0.5, 0.0])
  np.testing.assert_array_equal(soft_threshold(values, 0.0), values)
  np.testing.assert_array_equal(soft_threshold(values, jnp.inf), jnp.zeros(3))
  assert soft_threshold(values, jnp.array([1.0, 0.25, 1.0])).tolist() == [2.0, -0.25, 0.0]


def test_a_group_is_shortened_or_goes_as_one():
  # Lengths 5 and 0.5 with two weights each: 1 is shortened by, and sqrt(2).
  kernel = jnp.array([[3.0, 0.3], [4.0, -0.4]])
  np.testing.assert_allclose(
    group_soft_threshold(kernel, 1.0, group_weight='one'), [[2.4, 0.0], [3.2, 0.0]], rtol=1e-6
  )
  factor = 1 - 2**0.5 / 5
  np.testing.assert_allclose(
    group_soft_threshold(kernel, 1.0), [[3 * factor, 0.0], [4 * factor, 0.0]], rtol=1e-6
  )


def test_groups_are_those_of_the_granularity():
  kernel = jnp.array([[3.0, 4.0], [0.3, -0.4]])
  found = group_soft_threshold(kernel, 1.0, granularity.input_channels(), 'one')
  np.testing.assert_allclose(found, [[2.4, 3.2], [0.0, 0.0]], rtol=1e-6)
  single = group_soft_threshold(kernel, 0.5, granularity.weight())
  np.testing.assert_allclose(single, soft_threshold(kernel, 0.5), rtol=1e-6)
  # A tile of two and one, cut by the edge, of one: the root of the size is that of what is there.
  tiles = group_soft_threshold(jnp.array([[3.0, 4.0, 2.0]]), 1.0, granularity.blocks(1, 2))
  factor = 1 - 2**0.5 / 5
  np.testing.assert_allclose(tiles, [[3 * factor, 4 * factor, 1.0]], rtol=1e-6)


@pytest.mark.parametrize('weight', ['sqrt_size', 'one'])
def test_a_group_of_zeros_gives_no_nan_not_in_gradients_either(weight):
  kernel = jnp.array([[3.0, 0.0], [4.0, 0.0]])
  shrink = jax.jit(lambda v, t: group_soft_threshold(v, t, None, weight))
  slope = jax.jit(jax.grad(lambda v, t: shrink(v, t).sum()))
  in_metric = jax.jit(lambda v, t, d: group_soft_threshold_in_metric(v, t, d, None, weight))
  for threshold in (0.0, 1.0, 1e30):
    assert shrink(kernel, threshold)[:, 1].tolist() == [0.0, 0.0]
    chex.assert_tree_all_finite(slope(kernel, threshold))
    for metric in (jnp.ones((2, 2)), jnp.zeros((2, 2)), jnp.eye(2)):
      found = in_metric(kernel, threshold, metric)
      assert found[:, 1].tolist() == [0.0, 0.0]
      chex.assert_tree_all_finite(found)
  np.testing.assert_array_equal(shrink(kernel, 0.0), kernel)


in_metric = jax.jit(lambda v, t, d: group_soft_threshold_in_metric(v, t, d, None, 'one'))


def solved_in_metric(values, bound, metric):
  """One group, by a bracketing solver in float64."""
  pulls = metric * values
  if np.linalg.norm(pulls) <= bound:
    return np.zeros_like(values)
  length = brentq(
    lambda r: np.sum((pulls / (metric * r + bound)) ** 2) - 1,
    0.0,
    1.001 * np.linalg.norm(values),
    xtol=1e-300,
    rtol=1e-14,
    maxiter=1000,
  )
  return pulls * length / (metric * length + bound)


@pytest.mark.parametrize('share', [1e-6, 0.1, 0.9, 0.9999])
@pytest.mark.parametrize('decades', [0, 2, 8])
@pytest.mark.parametrize('power', [0.0, 0.7, 1.0])
def test_the_group_form_in_a_metric_is_the_solution_of_its_equation(share, decades, power):
  """Metrics as wide as Adam's, with the values large where the metric is small and otherwise."""
  rng = np.random.default_rng(0)
  metric = 10.0 ** -rng.uniform(0, decades, (3, 6, 20)).astype(np.float32)
  values = (rng.normal(size=(3, 6, 20)) / metric**power).astype(np.float32)
  pulls = np.linalg.norm((metric * values).reshape(18, 20), axis=0)
  threshold = np.float32(np.median(pulls) * share)
  found = np.asarray(in_metric(values, threshold, metric))
  for g in range(20):
    wide = [a[..., g].ravel().astype(np.float64) for a in (values, metric)]
    wanted = solved_in_metric(wide[0], float(threshold), wide[1])
    error = np.linalg.norm(np.ravel(found[..., g]) - wanted)
    assert error <= 1e-6 * np.linalg.norm(wide[0])
    assert (found[..., g] == 0).all() == (pulls[g] <= threshold)


def test_a_metric_that_is_one_number_divides_the_threshold():
  kernel = jnp.array([[3.0, 0.3], [4.0, -0.4]])
  found = group_soft_threshold_in_metric(kernel, 4.0, jnp.full((2, 2), 4.0))
  np.testing.assert_allclose(found, group_soft_threshold(kernel, 1.0), rtol=1e-6)


# The Lasso


@functools.cache
def regression():
  """60 examples of 12 inputs, correlated and of different sizes; five of them matter."""
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(60, 12)) @ (np.eye(12) + 0.2 * rng.normal(size=(12, 12)))
  weights = np.array([1.5, -2.0, 0.8, -0.5, 0.3] + [0.0] * 7)
  return inputs, inputs @ weights + 0.3 * rng.normal(size=60)


def minimise(make, strengths, shape=(12, 1), steps=3000):
  """The kernels after so many steps of full-batch training, with make(strength) for each strength.

  All at once, under vmap, in one compiled loop: the strength is a number that is being traced.
  """
  inputs, outputs = (jnp.asarray(a, jnp.float32) for a in regression())
  start = {'kernel': jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)}

  def loss(params):
    return jnp.mean((inputs @ params['kernel'].reshape(12) - outputs) ** 2) / 2

  def run(strength):
    tx = make(strength)

    def step(_, carried):
      params, state = carried
      updates, state = tx.update(jax.grad(loss)(params), state, params)
      return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (start, tx.init(start)))[0]['kernel']

  return np.asarray(jax.jit(jax.vmap(run))(jnp.array(strengths)), np.float64)


def lasso(strength):
  model = Lasso(alpha=strength, fit_intercept=False, tol=1e-10, max_iter=100_000)
  return model.fit(*regression()).coef_


def assert_same(found, wanted):
  np.testing.assert_array_equal(found == 0, wanted == 0)
  np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


RATE = 0.03
BEHIND = {
  'sgd': (optax.sgd(0.1), 0.1, 0.0),
  'heavy_ball': (optax.sgd(RATE, momentum=0.9), RATE, 0.9),
  'nesterov': (optax.sgd(RATE, momentum=0.9, nesterov=True), RATE, 0.9),
}
AROUND = {
  'adam': (optax.adam(0.005), 0.0, None),
  'adam_of_its_own': (
    optax.adam(0.005, b1=0.8, b2=0.99, eps=1e-3, eps_root=1e-6),
    0.0,
    adam_metric(b2=0.99, eps=1e-3, eps_root=1e-6),
  ),
  'amsgrad': (optax.amsgrad(0.005, eps=1e-3), 0.0, amsgrad_metric(eps=1e-3)),
  'rmsprop': (optax.rmsprop(0.005), 0.0, None),
  'rmsprop_momentum': (
    optax.rmsprop(0.0005, eps=0.01, eps_in_sqrt=False, momentum=0.9),
    0.9,
    rms_metric(eps=0.01, eps_in_sqrt=False),
  ),
}
RATES = {name: 0.0005 if name == 'rmsprop_momentum' else 0.005 for name in AROUND}


@pytest.mark.parametrize('name', BEHIND)
def test_behind_gradient_descent_it_solves_the_lasso(name):
  optimizer, rate, momentum = BEHIND[name]
  strengths = (0.01, 0.1, 0.5)
  kernels = minimise(lambda s: optax.chain(optimizer, proximal_l1(s, rate, momentum)), strengths)
  for kernel, strength in zip(kernels, strengths, strict=True):
    assert_same(kernel.ravel(), lasso(strength))


@pytest.mark.parametrize('name', AROUND)
def test_around_an_adaptive_optimizer_it_solves_the_lasso(name):
  optimizer, momentum, metric = AROUND[name]
  make = functools.partial(
    proximal_l1, learning_rate=RATES[name], momentum=momentum, inner=optimizer, metric=metric
  )
  strengths = (0.05, 0.5, 1.0)
  for kernel, strength in zip(minimise(make, strengths, steps=8000), strengths, strict=True):
    assert_same(kernel.ravel(), lasso(strength))


def test_a_threshold_that_forgets_the_momentum_solves_it_at_a_tenth_of_the_strength():
  optimizer = optax.sgd(RATE, momentum=0.9)
  [found] = minimise(lambda s: optax.chain(optimizer, proximal_l1(s, RATE)), [0.5])
  assert_same(found.ravel(), lasso(0.05))
  assert (lasso(0.5) == 0).sum() > (found == 0).sum()


def test_behind_adam_it_solves_no_lasso():
  """Why an adaptive optimizer goes inside: no one threshold is right for all its parameters."""
  optimizer = optax.adam(0.005)
  make = lambda s: optax.chain(optimizer, proximal_l1(s, 0.005))  # noqa: E731
  [found] = minimise(make, [0.1], steps=8000)
  assert np.abs(found.ravel() - lasso(0.1)).max() > 0.01


def test_both_rates_may_be_schedules():
  """A strength that falls to 0.1 and a learning rate that rises and falls."""
  rate = optax.warmup_cosine_decay_schedule(0.0, 0.05, 100, 4000, 0.01)

  def make(end):
    strength = optax.linear_schedule(1.0, end, 1000)
    return optax.chain(optax.sgd(rate, momentum=0.9), proximal_l1(strength, rate, 0.9))

  [found] = minimise(make, [0.1], steps=4000)
  assert_same(found.ravel(), lasso(0.1))


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


# The group lasso


@functools.cache
def group_lasso(strength, weight, size=2):
  """The columns of a (size, 12 / size) kernel, by block coordinate descent in float64.

  A block alone: (A + k / r I) x = b with |x| = r, or zero where |b| <= k.
  """
  inputs, outputs = regression()
  kernel = np.zeros((size, 12 // size))
  columns = inputs.reshape(60, size, 12 // size)
  bound = strength * (size**0.5 if weight == 'sqrt_size' else 1.0)
  for _ in range(150):
    for g in range(12 // size):
      block = columns[:, :, g]
      rest = outputs - inputs @ kernel.ravel() + block @ kernel[:, g]
      values, vectors = np.linalg.eigh(block.T @ block / 60)
      pull = vectors.T @ (block.T @ rest / 60)
      kernel[:, g] = 0.0
      if np.linalg.norm(pull) > bound:
        equation = functools.partial(
          lambda r, pull, values: np.sum((pull / (values * r + bound)) ** 2) - 1,
          pull=pull,
          values=values,
        )
        length = brentq(equation, 0.0, 100.0, xtol=1e-14)
        kernel[:, g] = vectors @ (pull * length / (values * length + bound))
  return kernel


STRENGTHS = (0.05, 0.2, 1.0)


@pytest.mark.parametrize('weight', ['sqrt_size', 'one'])
@pytest.mark.parametrize('name', BEHIND)
def test_behind_gradient_descent_the_group_form_solves_the_group_lasso(name, weight):
  optimizer, rate, momentum = BEHIND[name]

  def make(strength):
    return optax.chain(optimizer, proximal_group_l1(strength, rate, momentum, group_weight=weight))

  for kernel, strength in zip(minimise(make, STRENGTHS, (2, 6)), STRENGTHS, strict=True):
    assert_same(kernel, group_lasso(strength, weight))


@pytest.mark.parametrize('weight', ['sqrt_size', 'one'])
@pytest.mark.parametrize('name', ['adam', 'rmsprop_momentum'])
def test_around_an_adaptive_optimizer_it_solves_the_group_lasso(name, weight):
  optimizer, momentum, metric = AROUND[name]
  make = functools.partial(
    proximal_group_l1,
    learning_rate=RATES[name],
    momentum=momentum,
    inner=optimizer,
    metric=metric,
    group_weight=weight,
  )
  for kernel, strength in zip(minimise(make, STRENGTHS, (2, 6), 8000), STRENGTHS, strict=True):
    assert_same(kernel, group_lasso(strength, weight))


def test_the_strengths_of_these_tests_make_some_zeros_and_not_all():
  counts = [int((lasso(strength) == 0).sum()) for strength in (0.01, 0.1, 0.5)]
  assert counts == sorted(counts)
  assert 0 < counts[1] < counts[2] < 12
  counts = [int((group_lasso(strength, 'sqrt_size') == 0).sum()) for strength in STRENGTHS]
  assert 0 < counts[0] < counts[1] < counts[2] < 12


# On networks


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


def train(tx, params, steps=4, *, jit=True, **extra):
  def step(params, state, t):
    updates, state = tx.update(gradient(params, t), state, params, **extra)
    return optax.apply_updates(params, updates), state

  step = jax.jit(step) if jit else step
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


# The contract of a transformation, beyond tests/test_contract.py

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


# Bad input


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: proximal_l1(-1.0, 0.1), 'strength=-1.0: allowed is a number of 0 or more'),
    (lambda p: proximal_l1(float('nan'), 0.1), 'strength=nan: allowed'),
    (lambda p: proximal_l1('strong', 0.1), 'strength=strong: allowed'),
    (lambda p: proximal_l1(None, 0.1), 'strength=None: allowed'),
    (lambda p: proximal_group_l1(1.0, -0.1), 'learning_rate=-0.1: allowed'),
    (lambda p: proximal_group_l1(1.0, float('inf')), 'learning_rate=inf: allowed'),
    (lambda p: proximal_l1(1.0, 0.1, 1.0), r'momentum=1.0: allowed is a number in \[0, 1\)'),
    (lambda p: proximal_l1(1.0, 0.1, lambda count: 0.9), 'momentum=<function'),
    (lambda p: proximal_group_l1(1.0, 0.1, group_weight='root'), "unknown group_weight 'root'"),
    (lambda p: proximal_l1(1.0, 0.1, metric=adam_metric()), 'metric= is given without inner='),
    (
      lambda p: proximal_l1(1.0, 0.1, inner=optax.sgd(0.1, momentum=0.9)).init(p),
      'inner holds 0 of ScaleByAdamState or .*: put the proximal link behind',
    ),
    (
      lambda p: proximal_l1(1.0, 0.1, inner=optax.rmsprop(0.1), metric=adam_metric()).init(p),
      'inner holds 0 of ScaleByAdamState; allowed is one',
    ),
    (
      lambda p: proximal_l1(
        1.0, 0.1, inner=optax.chain(optax.scale_by_adam(), optax.rmsprop(0.1))
      ).init(p),
      'inner holds 2 of .* each need a proximal link of their own',
    ),
    (
      lambda p: proximal_l1(
        1.0, 0.1, inner=optax.masked(optax.adam(0.1), {'conv': True, 'norm': True, 'head': False})
      ).init(p),
      "inner keeps no second moments of 'head'; allowed is to exclude it",
    ),
    (lambda p: proximal_l1(1.0, 0.1, parameters='kernel').init(p), "did you mean 'kernels'"),
    (lambda p: proximal_l1(1.0, 0.1, exclude=('fc9',)).init(p), "'fc9' matches no parameter"),
  ],
)
def test_bad_input_is_refused_before_the_first_update(make, message):
  with pytest.raises(ValueError, match=message) as error:
    make(network())
  assert '\n' not in str(error.value)


def test_second_moments_of_a_part_are_enough_for_that_part():
  inner = optax.masked(optax.adam(0.1), {'conv': True, 'norm': True, 'head': False})
  tx = proximal_l1(1.0, 0.1, inner=inner, exclude='^head')
  chex.assert_tree_all_finite(train(tx, network())[-1])


def test_small_steps_inside_are_refused():
  """MultiSteps inside would take the threshold off in steps that Adam does not make."""
  adam = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
  with pytest.raises(ValueError, match='allowed is to have it around the whole chain'):
    proximal_l1(1.0, 0.1, inner=adam).init({'kernel': jnp.ones((1, 2))})


def test_small_steps_around_leave_the_strength_as_it_is():
  chain = optax.chain(optax.sgd(0.1), proximal_l1(1.0, 0.1))
  params = {'kernel': jnp.full((1, 2), 5.0)}
  tx = optax.MultiSteps(chain, 2)
  state = tx.init(params)
  for _ in range(4):
    updates, state = tx.update({'kernel': jnp.zeros((1, 2))}, state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(params['kernel'], 4.8, rtol=1e-6)


def test_n_of_m_has_no_groups_to_shrink():
  with pytest.raises(ValueError, match='its groups are single weights; allowed is proximal_l1'):
    proximal_group_l1(1.0, 0.1, granularity=granularity.n_of_m(4))
