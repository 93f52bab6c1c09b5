"""prune with rules that exchange weights, end to end in a chain: SET and RigL around Adam."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import PruningSchedule, periodic, prune
from sparsejax.sparsity.parts import allocation, criteria, update_rules

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

RULES = {'set': update_rules.set_(0.5), 'rigl': update_rules.rigl(100, 0.5)}
STEPS, RENEWALS = 8, (1, 4, 6)
SCHEDULE = PruningSchedule(RENEWALS, (0.5,) * 3)


def network():
  rng = np.random.default_rng(0)
  first, second = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((4, 6), (6, 5)))
  return {'first': {'kernel': first, 'bias': jnp.ones(6)}, 'second': {'kernel': second}}


def gradient(params, step):
  """Some gradient that differs from step to step and nowhere vanishes."""
  return jax.tree.map(lambda p: jnp.cos(3 * p + step) + 2, params)


def kernels(tree):
  return {name: tree[name]['kernel'] for name in ('first', 'second')}


def masks_of(state):
  return kernels(optax.tree.get(state, 'masks'))


def train(tx, *, grad=lambda grad: grad, steps=STEPS, params=None):
  """The parameters and the state before the first step and after each."""

  # Compiling is what these tests spend their time on, not running.
  @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
  def step(params, state, t):
    raw = gradient(params, t)
    moved, state = tx.update(raw, state, params, grad=grad(raw))
    return optax.apply_updates(params, moved), state

  params = network() if params is None else params
  history = [(params, tx.init(params))]
  for t in range(steps):
    history.append(step(*history[-1], jnp.float32(t)))
  return jax.device_get(history)


@functools.cache
def around_adam(name):
  """Trained with the masks around Adam, once for all tests."""
  rate = optax.piecewise_constant_schedule(0.1, {2: 0.5, 5: 0.5})
  inner = optax.adam(rate)
  link = prune(SCHEDULE, update_rule=RULES[name], allocation=allocation.uniform(), inner=inner)
  return train(link)


both = pytest.mark.parametrize('name', RULES)


@both
def test_as_many_weights_are_there_at_every_step(name):
  sizes = {'first': 24, 'second': 30}
  for made, (params, state) in enumerate(around_adam(name)):
    for layer, mask in masks_of(state).items():
      cut = made > RENEWALS[0]
      assert mask.sum() == sizes[layer] // (2 if cut else 1), made
      assert np.all(kernels(params)[layer][~mask] == 0)


@both
def test_where_masks_are_renewed_no_step_is_made(name):
  """Not of what stays, nor of what has no mask; and everywhere else everything moves."""
  for t, ((before, old), (after, new)) in enumerate(itertools.pairwise(around_adam(name))):
    old, new = masks_of(old), masks_of(new)
    stays = jax.tree.map(np.logical_and, old, new)
    moved = jax.tree.map(lambda a, b: a != b, before, after)
    for layer, leaf in kernels(moved).items():
      assert leaf[stays[layer]].any() == (t not in RENEWALS)
    assert moved['first']['bias'].all() == moved['first']['bias'].any() == (t not in RENEWALS)


@both
def test_the_counts_inside_go_on_where_no_step_is_made(name):
  for made, (_, state) in enumerate(around_adam(name)):
    counts = [leaf for leaf in jax.tree.leaves(state.inner_state) if leaf.dtype == np.int32]
    assert [int(count) for count in (state.count, *counts)] == [made] * 3  # Adam's, the rate's


@pytest.mark.parametrize('inside', [True, False])
def test_a_learning_rate_goes_on_falling_where_no_step_is_made(inside):
  """By hand, with a gradient of one: the rates 4, (2), 1, (1/2), 1/4 are those of the clock."""
  sgd = optax.sgd(lambda count: 4.0 * 0.5**count)
  link = functools.partial(prune, PruningSchedule((1, 3), (2 / 3,) * 2), update_rule=RULES['set'])
  tx = link(inner=sgd) if inside else optax.chain(sgd, link())
  params = {'w': jnp.array([[10.0, 20.0, 30.0]]), 'bias': jnp.array([9.0])}
  state, update, seen = tx.init(params), jax.jit(tx.update), []
  for _ in range(5):
    moved, state = update(jax.tree.map(jnp.ones_like, params), state, params)
    params = optax.apply_updates(params, moved)
    seen.append(params['bias'].item())
  assert seen == [5.0, 5.0, 4.0, 4.0, 3.75]


@both
def test_a_weight_that_comes_back_starts_at_zero_without_momentum(name):
  history, grown_in_all = around_adam(name), 0
  for t in RENEWALS[1:]:
    (_, old), (after, new), (later, _) = history[t : t + 3]
    for layer, mask in masks_of(new).items():
      grown = mask & ~masks_of(old)[layer]
      grown_in_all += grown.sum()
      assert np.all(kernels(after)[layer][grown] == 0)
      assert np.all(kernels(later)[layer][grown] != 0)
      for slot in ('mu', 'nu'):
        slots = kernels(optax.tree.get(new, slot))[layer]
        np.testing.assert_array_equal(slots != 0, mask & ~grown)
  assert grown_in_all > 10


@both
def test_a_weight_that_is_dropped_and_grown_at_once_keeps_its_value(name):
  """Kept by the mask, so kept to the bit; the smallest are dropped, and some of them stay."""
  history = around_adam(name)
  for t in RENEWALS[1:]:
    (before, old), (after, new) = history[t : t + 2]
    for layer, mask in masks_of(new).items():
      stays = mask & masks_of(old)[layer]
      np.testing.assert_array_equal(kernels(after)[layer][stays], kernels(before)[layer][stays])


def test_rigl_grows_where_the_gradient_is_largest():
  history = around_adam('rigl')
  for t in RENEWALS[1:]:
    (before, old), (_, new) = history[t : t + 2]
    size = kernels(jax.tree.map(np.abs, gradient(before, np.float32(t))))
    for layer, mask in masks_of(new).items():
      gone = ~masks_of(old)[layer]
      grown, left = gone & mask, gone & ~mask
      assert size[layer][grown].min() >= size[layer][left].max()
      kept = np.abs(kernels(before)[layer])
      dropped = masks_of(old)[layer] & ~mask
      count = round(float(RULES['rigl'].drop_fraction(t)) * int(mask.sum()))
      lowest = np.sort(kept[masks_of(old)[layer]])[:count]
      assert set(kept[dropped]) <= set(lowest)


def test_a_random_start_keeps_the_total_of_the_global_rank_and_not_the_largest():
  _, state = train(prune(SCHEDULE, update_rule=RULES['set']), steps=2)[-1]
  masks = masks_of(state)
  assert sum(mask.sum() for mask in masks.values()) == 27
  magnitudes = np.concatenate([np.abs(leaf).ravel() for leaf in kernels(network()).values()])
  kept = np.concatenate([mask.ravel() for mask in masks.values()])
  assert magnitudes[kept].min() < np.median(magnitudes)


# Extra arguments


def test_a_gradient_that_is_not_given_is_named_in_one_line():
  params = network()
  tx = optax.chain(optax.sgd(0.1), prune(SCHEDULE, update_rule=RULES['rigl']))
  with pytest.raises(ValueError) as error:
    tx.update(params, tx.init(params), params)
  assert 'gradient_magnitude needs the extra argument grad=' in str(error.value)
  assert '\n' not in str(error.value)
  tx = optax.chain(optax.sgd(0.1), prune(SCHEDULE, update_rule=RULES['set']))
  jax.eval_shape(tx.update, params, tx.init(params), params)  # grows at random


def test_a_function_for_an_extra_argument_is_called_where_masks_are_renewed_alone():
  calls = []

  def counted(grad):
    def make():
      jax.debug.callback(lambda: calls.append(None))
      return grad

    return make

  link = prune(SCHEDULE, update_rule=RULES['rigl'], inner=optax.trace(0.9))
  tx = optax.chain(optax.sgd(0.1), link)
  given, made = train(tx), train(tx, grad=counted)
  jax.effects_barrier()
  assert len(calls) == len(RENEWALS)
  chex.assert_trees_all_equal(masks_of(made[-1][1]), masks_of(given[-1][1]))
  chex.assert_trees_all_close(made[-1][0], given[-1][0], rtol=1e-6)


def test_inner_links_get_a_function_as_a_function_that_makes_what_is_masked():
  seen = []

  def look(updates, state, params=None, *, grad, **extra):
    seen.append(grad()['w'].tolist())
    return updates, state

  inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), look)
  params = {'w': jnp.array([[1.0, 3.0, 2.0]])}
  tx = prune(PruningSchedule((0,), (1 / 3,)), criterion=criteria.saliency, inner=inner)
  tx.update(params, tx.init(params), params, grad=lambda: params)
  assert seen == [[[0.0, 3.0, 0.0]]]


@jax.tree_util.register_pytree_node_class
class Module(dict):
  """A tree that is callable, as Equinox's modules are and so their gradients."""

  def __call__(self):
    raise AssertionError('a gradient is no function')

  def tree_flatten(self):
    return (self['w'],), None

  @classmethod
  def tree_unflatten(cls, _, children):
    return cls(w=children[0])


def test_a_gradient_that_is_a_callable_module_is_a_tree():
  params = Module(w=jnp.array([[1.0, 3.0, 2.0]]))
  tx = prune(PruningSchedule((0,), (1 / 3,)), criterion=criteria.saliency, parameters='all')
  _, state = tx.update(params, tx.init(params), params, grad=params)
  assert jax.tree.leaves(state.masks)[0].tolist() == [[False, True, False]]


# Parts that do not go together


@both
def test_growing_under_an_absolute_threshold_is_refused(name):
  with pytest.raises(ValueError) as error:
    prune(SCHEDULE, update_rule=RULES[name], allocation=allocation.absolute_threshold())
  assert 'does not go with an absolute threshold' in str(error.value)
  assert '\n' not in str(error.value)


# Randomness


def test_masks_are_those_of_the_seed():
  def masks(seed):
    tx = prune(SCHEDULE, update_rule=RULES['set'], seed=seed)
    return masks_of(train(tx, steps=2)[-1][1])

  one, again, other = masks(0), masks(0), masks(1)
  chex.assert_trees_all_equal(one, again)
  for layer in one:
    assert np.any(one[layer] != other[layer])


def test_every_renewal_and_every_layer_draws_anew():
  params = {name: jnp.ones((6, 6)) for name in ('one', 'two')}
  schedule = periodic(0, 3, 0.5, every=1)
  tx = prune(schedule, criterion=criteria.random, update_rule=update_rules.set_(1.0))
  state, update, seen = tx.init(params), jax.jit(tx.update), []
  for _ in range(3):
    _, state = update(params, state, params)
    seen += [mask.tobytes() for mask in jax.device_get(jax.tree.leaves(state.masks))]
  assert len(set(seen)) == 6


def test_replicas_stay_identical():
  """Four devices with four gradients, averaged; the random growth is the same on all."""
  tx = prune(SCHEDULE, update_rule=RULES['set'], inner=optax.trace(0.9))
  assert jax.device_count() == 4

  @functools.partial(jax.pmap, axis_name='batch', in_axes=(0, 0, 0, None))
  def step(offset, params, state, t):
    grad = jax.lax.pmean(gradient(params, t + offset), 'batch')
    moved, state = tx.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, moved), state

  params = network()
  four = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), (params, tx.init(params)))
  for t in range(STEPS):
    four = step(jnp.arange(4.0), *four, jnp.float32(t))
  four = jax.device_get(four)
  for leaf in jax.tree.leaves(four):
    assert all(shard.tobytes() == leaf[0].tobytes() for shard in leaf)
  assert sum(mask[0].sum() for mask in masks_of(four[1]).values()) == 27


# GraNet


def test_granet_by_hand():
  """Six of eight stay at step 0, half of them given for others; at step 2 four, a quarter given.

  At step 0 the three largest stay, and of the others the three with the largest gradients, which
  were there until now and keep their values. At step 2 three stay, and the one that has the largest
  gradient comes back from zero.
  """
  schedule, rule = PruningSchedule((0, 2), (0.75, 0.5)), update_rules.granet(end=4)
  tx = prune(schedule, update_rule=rule, inner=optax.scale(0.0))
  params = {'kernel': jnp.arange(8.0, 0.0, -1.0)[None]}
  grads = [[0, 0, 0, 0, 1, 3, 4, 2]] * 2 + [[0, 0, 0, 1, -9, 3, 4, 2]] * 2
  state, seen = tx.init(params), []
  for grad in grads:
    grad = {'kernel': jnp.array([grad], jnp.float32)}
    updates, state = tx.update(grad, state, params, grad=grad)
    params = optax.apply_updates(params, updates)
    seen.append((params['kernel'][0].tolist(), np.flatnonzero(state.masks['kernel']).tolist()))
  first, last = [8, 7, 6, 0, 0, 3, 2, 1], [8, 7, 6, 0, 0, 0, 0, 0]
  assert seen == [(first, [0, 1, 2, 5, 6, 7])] * 2 + [(last, [0, 1, 2, 4])] * 2
