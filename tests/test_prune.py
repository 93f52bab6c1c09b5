"""prune: masks in the state, exact zeros in the parameters, wherever the link stands.

The hand-worked cases are arrays of three numbers; everything else is a property.
"""

import functools
import itertools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax
from sparsejax import apply_masks, cubic, one_shot, prune
from sparsejax.sparsity import allocation, criteria
from sparsejax.sparsity.granularity import Granularity
from sparsejax.sparsity.updates import UpdateRule

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


class Norm(NamedTuple):
  scale: jax.Array
  bias: jax.Array | None


def network():
  """Kernels of 24 + 48 weights, biases, and a BatchNorm whose shift is all zeros."""
  rng = np.random.default_rng(0)
  conv, conv_bias, head, head_bias = (
    jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 2, 2, 3), (3,), (6, 8), (8,))
  )
  return {
    'conv': {'kernel': conv, 'bias': conv_bias},
    'norm': Norm(jnp.ones(3), jnp.zeros(3)),
    'head': {'kernel': head, 'bias': head_bias},
  }


def layer():
  """One layer, where one is enough."""
  rng = np.random.default_rng(1)
  return {
    'kernel': jnp.asarray(rng.normal(size=(4, 5)), jnp.float32),
    'bias': jnp.asarray(rng.normal(size=(5,)), jnp.float32),
  }


WEIGHTS, PARAMETERS = 24 + 48, 24 + 3 + 6 + 48 + 8


def gradient(params, step):
  """Some gradient that differs from step to step and nowhere vanishes."""
  return jax.tree.map(lambda p: jnp.cos(3 * p + step) + 2, params)


def kernels(tree):
  return [tree['conv']['kernel'], tree['head']['kernel']]


def count(masks):
  return sum(int(jnp.sum(mask)) for mask in masks)


def zeros(params):
  return sum(int(jnp.sum(leaf == 0)) for leaf in kernels(params))


def masks_of(state):
  return optax.tree.get(state, 'masks')


def train(tx, params, steps, *, pass_grad=False, jit=True):
  """The parameters and the state before the first step and after each."""

  def step(params, state, t):
    grad = gradient(params, t)
    extra = {'grad': grad} if pass_grad else {}
    updates, state = tx.update(grad, state, params, **extra)
    return optax.apply_updates(params, updates), state

  step = jax.jit(step) if jit else step
  history = [(params, tx.init(params))]
  for t in range(steps):
    history.append(step(*history[-1], jnp.float32(t)))
  return history


def sgd(momentum=0.9, weight_decay=0.0):
  decay = optax.add_decayed_weights(weight_decay)
  return optax.chain(decay, optax.trace(momentum), optax.scale_by_learning_rate(0.05))


# What happens, and when


def test_the_smallest_goes_at_the_step_and_stays_away():
  tx = prune(one_shot(step=1, target=2 / 3))
  params = {'kernel': jnp.array([[2.0, -1.0, 3.0]])}
  state = tx.init(params)
  updates = {'kernel': jnp.array([[0.25, 0.25, 0.25]])}
  seen = []
  for _ in range(3):
    moved, state = tx.update(updates, state, params)
    params = optax.apply_updates(params, moved)
    seen.append(params['kernel'].tolist())
  assert seen == [[[2.25, -0.75, 3.25]], [[2.5, 0.0, 3.5]], [[2.75, 0.0, 3.75]]]
  assert masks_of(state)['kernel'].tolist() == [[True, False, True]]


def test_at_step_t_means_after_t_updates_by_the_parameters_of_then():
  """The first weight starts as the smallest and has grown out of it when the time comes."""
  tx = prune(one_shot(step=2, target=2 / 3))
  params = {'kernel': jnp.array([[0.5, 1.0, 3.0]])}
  state = tx.init(params)
  for t in range(3):
    assert int(state.count) == t
    assert count(jax.tree.leaves(state.masks)) == 3
    moved, state = tx.update({'kernel': jnp.array([[1.0, 0.0, 0.0]])}, state, params)
    params = optax.apply_updates(params, moved)
  assert params['kernel'].tolist() == [[3.5, 0.0, 3.0]]


def test_step_0_prunes_in_the_first_update():
  tx = prune(one_shot(step=0, target=1 / 3))
  params = {'kernel': jnp.array([[1.0, -3.0, 2.0]])}
  moved, _ = tx.update({'kernel': jnp.ones((1, 3))}, tx.init(params), params)
  assert moved['kernel'].tolist() == [[-1.0, 1.0, -2.0]]


@pytest.mark.parametrize('pruned_at', [0, 2])
def test_weights_are_zero_from_the_step_on_and_not_one_step_earlier(pruned_at):
  tx = optax.chain(sgd(weight_decay=0.1), prune(one_shot(pruned_at, 0.25)))
  history = train(tx, network(), 5)
  for made, (params, _) in enumerate(history):
    assert zeros(params) == (WEIGHTS - 18 if made > pruned_at else 0), made


def test_absolute_threshold_removes_small_absolute_values_and_the_threshold_itself():
  tx = prune(one_shot(0, 0.02), allocation=allocation.absolute_threshold(), parameters='all')
  params = {'w': jnp.array([0.02, -0.02, 0.021, -0.5, -0.001]), 'b': jnp.array([0.01, 0.3])}
  moved, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  assert state.masks['w'].tolist() == [False, False, True, True, False]
  assert state.masks['b'].tolist() == [False, True]
  assert optax.apply_updates(params, moved)['w'].tolist() == [0.0, 0.0, *params['w'][2:4], 0.0]


def test_a_threshold_on_everything_is_the_comparison_written_out():
  tx = prune(one_shot(1, 0.7), allocation=allocation.absolute_threshold(), floor=0)
  (_, _), (before, _), (after, _) = train(tx, network(), 2)
  for old, new in zip(kernels(before), kernels(after), strict=True):
    np.testing.assert_array_equal(new == 0, jnp.abs(old) <= 0.7)


def test_ties_keep_the_first():
  tx = prune(one_shot(0, 0.5), floor=0)
  params = {'first': jnp.ones((1, 3)), 'next': -jnp.ones((1, 3))}
  _, state = tx.update(params, tx.init(params), params)
  assert state.masks['first'].tolist() == [[True, True, True]]
  assert state.masks['next'].tolist() == [[False, False, False]]


def test_a_floor_keeps_every_layer_alive():
  params = {'big': jnp.full((4, 5), 9.0), 'small': jnp.array([[0.1, 0.3, 0.2]])}
  for floor, kept in ((0, 0), (1, 1), (9, 3)):
    tx = prune(one_shot(0, 0.25), floor=floor)
    _, state = tx.update(params, tx.init(params), params)
    assert int(state.masks['small'].sum()) == kept
    assert count(jax.tree.leaves(state.masks)) == max(6, kept + min(floor, 20))
    if floor == 1:
      assert state.masks['small'].tolist() == [[False, True, False]]


# Exact totals


def pruned_once(params, fraction, **settings):
  tx = prune(one_shot(0, fraction), **settings)
  moved, state = jax.jit(tx.update)(params, tx.init(params), params)
  return optax.apply_updates(params, moved), state.masks


@pytest.mark.parametrize('parameters', ['all', 'kernels'])
def test_the_total_of_the_global_rank_is_exact(parameters):
  rng = np.random.default_rng(0)
  shapes = {'k1': (3, 3, 8, 16), 'bias': (16,), 'k2': (61, 97), 'k3': (97, 10), 'scale': (97,)}
  params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  chosen = [name for name, p in params.items() if parameters == 'all' or p.ndim > 1]
  size = sum(params[name].size for name in chosen)
  largest = [np.abs(params[name]).max() for name in chosen]
  magnitudes = np.sort(np.concatenate([np.abs(params[name]).ravel() for name in chosen]))[::-1]

  schedule = sparsejax.PruningSchedule((0, 1, 2, 3), (0.05, 0.01, 0.005, 0.001))
  tx = optax.chain(optax.scale(0.0), prune(schedule, parameters=parameters))
  update, state, after = jax.jit(tx.update), tx.init(params), params
  for fraction in schedule.targets:
    updates, state = update(params, state, after)
    after = optax.apply_updates(after, updates)
    masks = masks_of(state)
    total = max(round(fraction * size), len(chosen))
    assert sum(int(jnp.sum(after[name] != 0)) for name in chosen) == total
    assert count(masks[name] for name in chosen) == total
    # The ranking of all together, but for the best of a layer that has nothing else in it.
    kept = np.concatenate([np.abs(params[n])[np.asarray(masks[n])] for n in chosen])
    assert set(kept) <= set(magnitudes[:total]) | set(largest)
  for name in params.keys() - set(chosen):
    assert masks[name].shape == ()
    np.testing.assert_array_equal(after[name], params[name])


@settings(deadline=None, max_examples=8, derandomize=True, database=None)
@given(
  shapes=st.lists(
    st.sampled_from([(1, 1), (3, 4), (2, 2, 3, 5), (7,), (40, 3)]), min_size=1, max_size=3
  ),
  fraction=st.floats(0, 1),
  floor=st.sampled_from([0, 1, 2]),
  distinct=st.booleans(),
  rule=st.sampled_from([allocation.global_rank, allocation.uniform]),
)
def test_the_total_is_exact_for_any_shapes_and_fraction(shapes, fraction, floor, distinct, rule):
  rng = np.random.default_rng(len(shapes))
  values = rng.normal if distinct else functools.partial(rng.choice, [-1.0, 1.0])
  params = [jnp.asarray(values(size=shape), jnp.float32) for shape in shapes]
  after, masks = pruned_once(params, fraction, floor=floor, parameters='all', allocation=rule())
  sizes = [p.size for p in params]
  total = max(round(fraction * sum(sizes)), sum(min(size, floor) for size in sizes))
  assert count(masks) == total
  assert sum(int(jnp.sum(leaf != 0)) for leaf in after) == total
  assert all(int(m.sum()) >= min(m.size, floor) for m in masks)


# Gradual pruning


@pytest.mark.parametrize('every', [3, 50])
def test_cubic_ends_on_its_target_whatever_the_period_and_masks_only_shrink(every):
  schedule = cubic(1, 9, 0.1, every=every)
  history = train(optax.chain(sgd(), prune(schedule)), network(), 11)
  active = {made: count(kernels(masks_of(state))) for made, (_, state) in enumerate(history)}
  wanted, exact = WEIGHTS, dict(zip(*schedule, strict=True))
  for made in range(1, 12):
    wanted = round(exact.get(made - 1, wanted / WEIGHTS) * WEIGHTS)
    assert active[made] == wanted == WEIGHTS - zeros(history[made][0])
  assert active[11] == round(0.1 * WEIGHTS) == 7
  for (_, before), (_, after) in itertools.pairwise(history):
    for old, new in zip(*map(kernels, (masks_of(before), masks_of(after))), strict=True):
      assert not bool(jnp.any(new & ~old))


@pytest.mark.parametrize(
  ('criterion', 'rule'),
  [
    (criteria.magnitude, allocation.global_rank),
    (criteria.random, allocation.global_rank),
    (criteria.saliency, allocation.uniform),
  ],
)
def test_every_step_of_a_gradual_schedule_meets_its_total_under_any_criterion(criterion, rule):
  """A random score, or a living zero, must not lose its place to a weight that is gone."""
  schedule = cubic(0, 6, 0.05, every=1)
  tx = optax.chain(
    optax.scale(0.0), prune(schedule, criterion=criterion, allocation=rule(), parameters='all')
  )
  params = network()
  params['head']['bias'] = jnp.zeros(8)  # with the shift of BatchNorm, 11 living zeros
  history = train(tx, params, 7, pass_grad=True)
  for target, (_, state) in zip(schedule.targets, history[2:], strict=True):
    assert count(jax.tree.leaves(masks_of(state))) == max(round(target * PARAMETERS), 6)
  for (_, before), (_, after) in itertools.pairwise(history):
    grown = jax.tree.map(lambda old, new: new & ~old, masks_of(before), masks_of(after))
    assert count(jax.tree.leaves(grown)) == 0


@pytest.mark.parametrize('target', [1.0, 0.25])
@pytest.mark.parametrize('inside', [False, True])
def test_what_is_kept_changes_no_bit(inside, target):
  """All of it at a target of one; before the step at any. Without jit, since within one program
  XLA may round p + u once or twice, as the fusion goes.
  """
  optimizer = sgd(weight_decay=0.1)
  schedule = one_shot(2, target)
  tx = prune(schedule, inner=optimizer) if inside else optax.chain(optimizer, prune(schedule))
  bare, history = (train(t, layer(), 4, jit=False) for t in (optimizer, tx))
  same = 5 if target == 1 else 3
  for (wanted, _), (params, _) in zip(bare[:same], history[:same], strict=True):
    chex.assert_trees_all_equal(params, wanted)
  assert int(jnp.sum(history[-1][0]['kernel'] != 0)) == 20 * target


# Criteria that need more than the parameters


def test_a_criterion_reads_the_gradient_and_not_the_update():
  tx = prune(one_shot(0, 1 / 3), criterion=criteria.saliency)
  params = {'w': jnp.array([[1.0, -2.0, 3.0]])}
  grad = {'w': jnp.array([[0.1, 2.0, 1.0]])}  # |p g| = 0.1, 4, 3
  updates = {'w': jnp.array([[9.0, 0.0, 5.0]])}  # |p u| = 9, 0, 15
  _, state = tx.update(updates, tx.init(params), params, grad=grad)
  assert state.masks['w'].tolist() == [[False, True, False]]


def test_the_gradient_reaches_the_criterion_through_a_chain():
  params = {'w': jnp.array([[1.0, 1.0, 1.0]])}
  tx = optax.chain(
    optax.trace(0.9), optax.sgd(0.1), prune(one_shot(1, 1 / 3), criterion=criteria.saliency)
  )
  state = tx.init(params)
  for grad in (jnp.array([[100.0, 0.0, 0.0]]), jnp.array([[1.0, 0.0, 2.0]])):
    _, state = tx.update({'w': grad}, state, params, grad={'w': grad})
  assert masks_of(state)['w'].tolist() == [[False, False, True]]  # the momentum says the first


@pytest.mark.parametrize('criterion', [criteria.saliency, functools.partial(criteria.saliency)])
def test_a_gradient_that_is_needed_and_not_given_is_named(criterion):
  params = network()
  tx = optax.chain(sgd(), prune(one_shot(5, 0.5), criterion=criterion))
  with pytest.raises(ValueError, match=r'saliency.* needs the extra argument grad='):
    tx.update(params, tx.init(params), params)


def test_random_masks_follow_the_seed():
  params = {'w': jnp.ones((5, 6))}

  def mask(seed):
    return pruned_once(params, 0.5, criterion=criteria.random, seed=seed)[1]['w'].tolist()

  assert mask(0) != mask(1)


# The contract of a transformation


def test_structure_shapes_and_dtypes_are_kept():
  params = network()
  tx = prune(one_shot(1, 0.5), inner=optax.adam(0.1))
  state = tx.init(params)
  assert isinstance(state, sparsejax.PruneState)
  chex.assert_type(state.count, jnp.int32)
  chex.assert_shape(state.count, ())
  for _ in range(3):
    updates, new = tx.update(gradient(params, 0.0), state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_tree_all_finite(updates)
    state = new
  assert int(state.count) == 3


def test_masks_are_never_none_and_are_bool():
  for parameters in ('kernels', 'all'):
    masks = prune(one_shot(0, 0.5), parameters=parameters).init(network()).masks
    assert len(jax.tree.leaves(masks)) == 6
    assert jax.tree.structure(masks) == jax.tree.structure(network())
    chex.assert_type(jax.tree.leaves(masks), bool)
  assert masks['norm'].bias.shape == (3,)


@pytest.mark.parametrize(
  'settings',
  [
    {'parameters': 'all', 'criterion': criteria.saliency, 'allocation': allocation.uniform()},
    {
      'criterion': criteria.random,
      'inner': optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.9)),
    },
  ],
)
def test_with_and_without_jit_it_is_the_same(settings):
  tx = optax.chain(optax.scale(-0.1), prune(cubic(0, 3, 0.2, every=2), **settings))
  runs = [train(tx, layer(), 4, pass_grad=True, jit=jit) for jit in (True, False)]
  for compiled, eager in zip(*runs, strict=True):
    chex.assert_trees_all_equal(masks_of(compiled[1]), masks_of(eager[1]))
    chex.assert_trees_all_close(compiled, eager, rtol=1e-5, atol=1e-6)


def test_replicas_under_pmap_stay_identical():
  """Four devices with four gradients, averaged: all shards of all state, against one device."""

  def criterion(param, *, grad, key):
    return criteria.saliency(param, grad=grad) * criteria.random(param, key=key)

  schedule = cubic(1, 3, 0.2, every=1)
  tx = optax.chain(sgd(), prune(schedule, criterion=criterion, inner=optax.trace(0.5)))
  offsets = jnp.arange(4.0)
  assert jax.device_count() == 4

  def step(offset, params, state, t):
    grad = jax.lax.pmean(gradient(params, t + offset), 'batch')
    updates, state = tx.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, updates), state

  @jax.jit
  def alone(params, state, t):
    grads = [gradient(params, t + offset) for offset in offsets]
    grad = jax.tree.map(lambda *g: sum(g) / 4, *grads)
    updates, state = tx.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, updates), state

  mapped = jax.pmap(step, axis_name='batch', in_axes=(0, 0, 0, None))
  one = layer(), tx.init(layer())
  four = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), one)
  for t in range(5):
    one, four = alone(*one, jnp.float32(t)), mapped(offsets, *four, jnp.float32(t))
  assert int(jnp.sum(one[0]['kernel'] != 0)) == 4
  four = jax.device_get(four)
  shards = [jax.tree.map(lambda leaf, i=i: leaf[i], four) for i in range(4)]
  for shard in shards[1:]:
    chex.assert_trees_all_equal(shard, shards[0])
  chex.assert_trees_all_equal(masks_of(shards[0][1]), masks_of(one[1]))
  chex.assert_trees_all_close(shards[0], one, rtol=1e-5, atol=1e-6)


def test_it_is_compiled_once():
  tx = optax.chain(sgd(), prune(cubic(0, 4, 0.2, every=2), inner=optax.trace(0.5)))

  @jax.jit
  @chex.assert_max_traces(n=1)
  def step(params, state):
    updates, state = tx.update(gradient(params, 0.0), state, params)
    return optax.apply_updates(params, updates), state

  params = network()
  state = tx.init(params)
  for _ in range(6):
    params, state = step(params, state)
  assert zeros(params) == WEIGHTS - 14


def test_it_runs_inside_a_loop_on_the_device():
  tx = optax.chain(sgd(), prune(cubic(0, 4, 0.2, every=2)))
  params = layer()

  def body(t, carried):
    params, state = carried
    updates, state = tx.update(gradient(params, t), state, params)
    return optax.apply_updates(params, updates), state

  looped = jax.jit(lambda c: jax.lax.fori_loop(0, 6, body, c))((params, tx.init(params)))
  stepped = train(tx, params, 6)[-1]
  chex.assert_trees_all_close(looped, stepped, rtol=1e-5, atol=1e-6)
  assert int(jnp.sum(looped[0]['kernel'] != 0)) == 4


def test_extra_arguments_are_accepted_and_handed_to_the_inner_links():
  seen = []

  def look(updates, state, params=None, **extra):
    seen.append(extra)
    return updates, state

  inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), look)
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  tx = optax.chain(sgd(), prune(one_shot(0, 2 / 3), inner=inner))
  tx.update(params, tx.init(params), params, value=1.0, grad=params)
  tx.update(params, tx.init(params), params, value=2.0)
  assert [extra['value'] for extra in seen] == [1.0, 2.0]
  assert seen[0]['grad']['w'].tolist() == [[3.0, 0.0, 2.0]]
  assert 'grad' not in seen[1]


def test_without_parameters_the_message_is_optax_s_own():
  with pytest.raises(ValueError) as theirs:
    optax.add_decayed_weights(0.1).update({'w': jnp.ones((1, 3))}, optax.EmptyState(), None)
  tx = prune(one_shot(0, 0.5))
  with pytest.raises(ValueError) as ours:
    tx.update({'w': jnp.ones((1, 3))}, tx.init({'w': jnp.ones((1, 3))}))
  assert str(ours.value) == str(theirs.value)


def optimizers():
  return {
    'momentum': sgd(weight_decay=0.1),
    'adam': optax.adam(0.05),
    'rmsprop': optax.rmsprop(0.01, momentum=0.9),
    'lion': optax.lion(0.01),
    'adafactor': optax.adafactor(0.05, min_dim_size_to_factor=2),
    'muon': optax.contrib.muon(0.05),
    'multi_steps': optax.MultiSteps(optax.sgd(0.05, momentum=0.9), 2).gradient_transformation(),
    'inject_hyperparams': optax.inject_hyperparams(optax.sgd)(
      learning_rate=optax.linear_schedule(0.1, 0.01, 5), momentum=0.9
    ),
    'masked_decay': optax.chain(
      optax.add_decayed_weights(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
      optax.sgd(0.05),
    ),
  }


@pytest.mark.parametrize('name', optimizers())
def test_behind_every_optimizer_the_zeros_are_exact(name):
  tx = optax.chain(optimizers()[name], prune(one_shot(2, 0.25)))
  history = train(tx, network(), 5)
  assert [zeros(params) for params, _ in history] == [0, 0, 0, 54, 54, 54]
  params, state = history[-1]
  for leaf, mask in zip(kernels(params), kernels(masks_of(state)), strict=True):
    np.testing.assert_array_equal(leaf != 0, mask)
  for leaf in (params['conv']['bias'], params['head']['bias'], *params['norm']):
    assert bool(jnp.all(leaf != 0))
  chex.assert_tree_all_finite(params)


@pytest.mark.parametrize('name', ['adafactor', 'muon', 'multi_steps', 'masked_decay'])
def test_around_optimizers_with_slots_of_every_kind_the_zeros_are_exact(name):
  tx = prune(cubic(1, 3, 0.25, every=1), inner=optimizers()[name])
  history = train(tx, network(), 5)
  assert [zeros(params) for params, _ in history] == [0, 0, 0, 47, 54, 54]
  for (_, before), (_, after) in itertools.pairwise(history):
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
  chex.assert_tree_all_finite(history[-1][0])


def test_around_the_whole_chain_multi_steps_counts_real_updates():
  tx = optax.MultiSteps(optax.chain(sgd(), prune(one_shot(1, 0.25))), every_k_schedule=2)
  history = train(tx, network(), 6)
  assert [zeros(params) for params, _ in history] == [0, 0, 0, 0, 54, 54, 54]


def test_in_a_named_chain():
  tx = optax.named_chain(('sgd', sgd()), ('prune', prune(one_shot(1, 0.25))))
  params, state = train(tx, network(), 3)[-1]
  assert zeros(params) == 54
  chex.assert_trees_all_equal(state['prune'].masks, masks_of(state))


@pytest.mark.parametrize(
  ('criterion', 'inner'),
  [(criteria.magnitude, None), (criteria.saliency, optax.trace(0.5))],
)
def test_under_masked_a_leaf_is_left_out(criterion, inner):
  """The step passes grad= to every link, and optax.masked hands it on whole."""

  def not_head(params):
    return {name: name != 'head' for name in params}

  link = prune(one_shot(1, 0.25), criterion=criterion, inner=inner)
  tx = optax.chain(sgd(), optax.masked(link, not_head))
  params, state = train(tx, network(), 3, pass_grad=True)[-1]
  masks = masks_of(state)
  assert isinstance(masks['head'], optax.MaskedNode)
  assert int(masks['conv']['kernel'].sum()) == int(jnp.sum(params['conv']['kernel'] != 0)) == 6
  assert bool(jnp.all(params['head']['kernel'] != 0))
  cut = apply_masks(jax.tree.map(jnp.ones_like, params), masks)
  assert int(cut['conv']['kernel'].sum()) == 6
  assert int(cut['head']['kernel'].sum()) == 48


def test_under_partition_every_part_has_its_own_rule():
  labels = {'conv': 'sparse', 'norm': 'none', 'head': 'sparser'}
  links = {
    'sparse': prune(one_shot(0, 0.5)),
    'sparser': prune(one_shot(1, 0.25)),
    'none': optax.identity(),
  }
  tx = optax.chain(sgd(), optax.partition(links, labels))
  history = train(tx, network(), 2, pass_grad=True)
  active = [tuple(int(jnp.sum(leaf != 0)) for leaf in kernels(params)) for params, _ in history]
  assert active == [(24, 48), (12, 48), (12, 12)]


def test_with_nothing_left_to_prune_it_leaves_everything_alone():
  params = network()
  tx = optax.masked(prune(one_shot(0, 0.5)), jax.tree.map(lambda _: False, params))
  updates, _ = tx.update(gradient(params, 0.0), tx.init(params), params)
  chex.assert_trees_all_equal(updates, gradient(params, 0.0))


def test_state_comes_back_from_orbax(tmp_path):
  tx = optax.chain(sgd(), prune(cubic(0, 4, 0.2, every=2), inner=optax.adam(0.1)))
  history = train(tx, layer(), 6)
  saved = {'params': history[3][0], 'opt_state': history[3][1]}
  blank = jax.tree.map(jnp.zeros_like, saved)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'state', saved)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(tmp_path / 'state', blank)
  assert jax.tree.structure(restored) == jax.tree.structure(saved)
  chex.assert_trees_all_equal(restored, saved)
  chex.assert_trees_all_equal_shapes_and_dtypes(restored, saved)

  params, state = restored['params'], restored['opt_state']
  update = jax.jit(tx.update)
  for t in range(3, 6):
    updates, state = update(gradient(params, float(t)), state, params)
    params = optax.apply_updates(params, updates)
  chex.assert_trees_all_equal(masks_of(state), masks_of(history[-1][1]))
  chex.assert_trees_all_close(params, history[-1][0], rtol=1e-5, atol=1e-6)


# Dtypes


@pytest.mark.parametrize('params_dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('updates_dtype', [jnp.float32, jnp.bfloat16])
def test_zeros_are_exact_in_any_mixture_of_dtypes(params_dtype, updates_dtype):
  """In float32 parameters, -p rounded to a bfloat16 update would leave p's last bits behind."""
  params = jax.tree.map(lambda p: p.astype(params_dtype), network())
  updates = jax.tree.map(lambda p: jnp.ones_like(p, updates_dtype), params)
  tx = prune(one_shot(0, 0.25))
  moved, state = tx.update(updates, tx.init(params), params)
  after = optax.apply_updates(params, moved)
  chex.assert_trees_all_equal_dtypes(after, params)
  assert zeros(after) == 54
  for leaf, old, mask in zip(*map(kernels, (after, params, state.masks)), strict=True):
    np.testing.assert_array_equal(leaf, jnp.where(mask, old + 1, 0))
  wider = jnp.promote_types(params_dtype, updates_dtype)
  assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(wider)}


def test_bfloat16_is_pruned_to_the_exact_total_despite_its_many_ties():
  params = {'w': jax.random.normal(jax.random.key(0), (50, 60)).astype(jnp.bfloat16)}
  tx = optax.chain(sgd(), prune(one_shot(0, 0.1)))
  moved, _ = tx.update(params, tx.init(params), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(moved, params)
  assert int(jnp.sum(optax.apply_updates(params, moved)['w'] != 0)) == 300


# Choosing


def test_what_is_not_chosen_is_left_alone():
  tx = optax.chain(sgd(), prune(one_shot(0, 0.25), exclude='head'))
  bare = train(sgd(), network(), 2)[-1][0]
  params, state = train(tx, network(), 2)[-1]
  assert int(jnp.sum(params['conv']['kernel'] != 0)) == 6
  masks = masks_of(state)
  assert [leaf.shape for leaf in jax.tree.leaves(masks)] == [(), (2, 2, 2, 3), (), (), (), ()]
  chex.assert_trees_all_equal(params['head'], bare['head'])


def test_leaves_that_are_none_or_whole_numbers_stay_as_they_are():
  params = {'w': jnp.array([[3.0, 1.0, 2.0]]), 'none': None, 'table': jnp.arange(3)}
  updates = {'w': jnp.zeros((1, 3)), 'none': None, 'table': jnp.zeros(3, jnp.int32)}
  tx = prune(one_shot(0, 1 / 3), parameters='all')
  moved, state = tx.update(updates, tx.init(params), params)
  assert state.masks['none'] is None  # the tree has no leaf there, so the masks have none
  after = optax.apply_updates(params, moved)
  assert after['w'].tolist() == [[3.0, 0.0, 0.0]]
  assert after['table'].tolist() == [0, 1, 2]


def test_a_scalar_can_be_pruned():
  params = {'a': jnp.float32(2.0), 'b': jnp.float32(-3.0)}
  tx = prune(one_shot(0, 0.5), parameters='all', floor=0)
  moved, state = tx.update(params, tx.init(params), params)
  assert optax.apply_updates(params, moved) == {'a': 0.0, 'b': -6.0}
  assert not state.masks['a']


def test_groups_are_pruned_whole_and_targets_count_them():
  """Columns by their sum of absolute values: a half of four columns is two of them."""
  columns = Granularity(
    pool=lambda scores: scores.sum(axis=0),
    spread=lambda mask, shape: jnp.broadcast_to(mask[None, :], shape),
  )
  params = {'w': jnp.array([[1.0, -3.0, 0.5, 2.0], [1.0, 3.0, 4.0, 0.0]])}
  tx = prune(sparsejax.PruningSchedule((0, 1), (0.5, 0.25)), granularity=columns)
  _, (half, _), (quarter, _) = train(optax.chain(optax.scale(0.0), tx), params, 2)
  assert half['w'].tolist() == [[0.0, -3.0, 0.5, 0.0], [0.0, 3.0, 4.0, 0.0]]
  assert quarter['w'].tolist() == [[0.0, -3.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]]


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: prune(sparsejax.PruningSchedule((3, 1), (0.5, 0.1))), 'rising'),
    (lambda p: prune(one_shot(0, 0.5), floor=-1), 'floor=-1'),
    (lambda p: prune(one_shot(9, 5.0)).init(p), 'target=5.0: allowed is an active fraction'),
    (lambda p: prune(one_shot(0, 0.5), parameters='kernel').init(p), "did you mean 'kernels'"),
    (lambda p: prune(one_shot(0, 0.5), exclude=('fc9',)).init(p), "'fc9' matches no parameter"),
  ],
)
def test_bad_input_is_refused_before_the_first_update(make, message):
  with pytest.raises(ValueError, match=message):
    make(network())


# Around inner links


def test_momentum_starts_at_zero_where_the_mask_is():
  """After two updates by 1 the slot is 1.9; the third makes 1 + 0.9 * 1.9 = 2.71, or nothing."""
  tx = prune(one_shot(2, 2 / 3), inner=optax.trace(0.9))
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  state = tx.init(params)
  for _ in range(3):
    before = optax.tree.get(state, 'trace')['w'].tolist()
    moved, state = tx.update({'w': jnp.ones((1, 3))}, state, params)
  np.testing.assert_allclose(before, [[1.9, 1.9, 1.9]], rtol=1e-6)
  np.testing.assert_allclose(optax.tree.get(state, 'trace')['w'], [[2.71, 0.0, 2.71]], rtol=1e-6)
  np.testing.assert_allclose(moved['w'], [[2.71, -1.0, 2.71]], rtol=1e-6)


def test_as_the_last_link_the_momentum_ahead_is_not_touched():
  tx = optax.chain(optax.trace(0.9), prune(one_shot(1, 2 / 3)))
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  state = tx.init(params)
  for _ in range(2):
    moved, state = tx.update({'w': jnp.ones((1, 3))}, state, params)
  np.testing.assert_allclose(optax.tree.get(state, 'trace')['w'], [[1.9, 1.9, 1.9]], rtol=1e-6)
  np.testing.assert_allclose(moved['w'], [[1.9, -1.0, 1.9]], rtol=1e-6)


def test_clipping_inside_sees_the_masked_gradient_only():
  """(3, 4, 12) has the norm 13, without what the mask removes 5: clipped to 1 it is (.6, .8)."""
  params = {'w': jnp.array([[3.0, 2.0, 1.0]])}
  grad = {'w': jnp.array([[3.0, 4.0, 12.0]])}
  inside = prune(one_shot(0, 2 / 3), inner=optax.clip_by_global_norm(1.0))
  ahead = optax.chain(optax.clip_by_global_norm(1.0), prune(one_shot(0, 2 / 3)))
  moved, _ = inside.update(grad, inside.init(params), params)
  np.testing.assert_allclose(moved['w'], [[0.6, 0.8, -1.0]], rtol=1e-6)
  moved, _ = ahead.update(grad, ahead.init(params), params)
  np.testing.assert_allclose(moved['w'], [[3 / 13, 4 / 13, -1.0]], rtol=1e-6)


def test_inner_links_see_masked_parameters():
  """Weight decay inside gives a removed weight no momentum, not even at the step of the cut."""
  inner = optax.chain(optax.add_decayed_weights(0.5), optax.trace(0.9))
  tx = prune(one_shot(0, 2 / 3), inner=inner)
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  _, state = tx.update({'w': jnp.zeros((1, 3))}, tx.init(params), params)
  assert optax.tree.get(state, 'trace')['w'].tolist() == [[1.5, 0.0, 1.0]]


def test_lamb_inside_scales_by_the_norm_of_what_is_left():
  """Updates of one size in every weight: the trust ratio makes their norm that of (3, 4)."""
  tx = prune(one_shot(0, 2 / 3), inner=optax.scale_by_trust_ratio())
  params = {'w': jnp.array([[3.0, 1.0, -4.0]])}
  moved, _ = tx.update({'w': jnp.ones((1, 3))}, tx.init(params), params)
  np.testing.assert_allclose(moved['w'], [[5 / 2**0.5, -1.0, 5 / 2**0.5]], rtol=1e-6)


def test_the_slots_of_adam_are_zeroed_and_its_count_is_not():
  tx = prune(one_shot(2, 0.25), inner=optax.adam(0.1))
  *_, (_, before), (_, after) = train(tx, network(), 3)
  for name in ('mu', 'nu'):
    slots, masks = kernels(optax.tree.get(after, name)), kernels(masks_of(after))
    assert all(bool(jnp.all(slot != 0)) for slot in kernels(optax.tree.get(before, name)))
    for slot, mask in zip(slots, masks, strict=True):
      np.testing.assert_array_equal(slot != 0, mask)
    assert bool(jnp.all(optax.tree.get(after, name)['head']['bias'] != 0))
  counts = [leaf for leaf in jax.tree.leaves(after.inner_state) if leaf.dtype == jnp.int32]
  assert [int(c) for c in counts] == [3]


def test_a_weight_that_comes_back_starts_at_zero_without_momentum_and_the_step_is_skipped():
  """A rule that exchanges everything for the first weight that is zero."""
  rule = UpdateRule(grow=lambda param, *, key: param == 0, share=lambda step: jnp.float32(1))
  tx = prune(
    sparsejax.PruningSchedule((0, 2), (1 / 3, 1 / 3)), inner=optax.trace(0.9), update_rule=rule
  )
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  state, seen = tx.init(params), []
  for _ in range(4):
    moved, state = tx.update({'w': jnp.ones((1, 3))}, state, params)
    params = optax.apply_updates(params, moved)
    seen.append((params['w'].tolist()[0], optax.tree.get(state, 'trace')['w'].tolist()[0]))
  assert seen[0] == ([3.0, 0.0, 0.0], [1.0, 0.0, 0.0])
  assert seen[1] == (pytest.approx([4.9, 0.0, 0.0]), pytest.approx([1.9, 0.0, 0.0]))
  assert seen[2] == ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
  assert seen[3] == ([0.0, 1.0, 0.0], [0.0, 1.0, 0.0])


# apply_masks


def test_apply_masks_cuts_and_keeps_the_rest():
  params = network()
  masks = prune(one_shot(0, 0.5)).init(params).masks
  masks['head']['kernel'] = jnp.zeros((6, 8), bool)
  cut = apply_masks(params, masks)
  chex.assert_trees_all_equal_shapes_and_dtypes(cut, params)
  assert not bool(jnp.any(cut['head']['kernel']))
  chex.assert_trees_all_equal(cut['conv'], params['conv'])
  chex.assert_trees_all_equal(cut['norm'], params['norm'])
