"""One test for each fault that sparsity libraries before this one had."""

import functools
import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import (
  PruningSchedule,
  allocation,
  criteria,
  cubic,
  granularity,
  one_shot,
  pack_masks,
  prune,
  unpack_masks,
  update_rules,
)

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def kernel(*shape, seed=0):
  """No two weights equal in size, none small, and both signs."""
  rng = np.random.default_rng(seed)
  values = rng.permutation(np.linspace(0.5, 1.5, np.prod(shape))) * rng.choice(
    [-1, 1], np.prod(shape)
  )
  return jnp.asarray(values.reshape(shape), jnp.float32)


def gradient(params, step):
  return jax.tree.map(lambda p: jnp.cos(3 * p + step) + 2, params)


def train(tx, params, steps, **extra):
  """The parameters and the state before the first step and after each."""

  @jax.jit
  def step(params, state, t):
    grad = gradient(params, t)
    updates, state = tx.update(grad, state, params, grad=grad, **extra)
    return optax.apply_updates(params, updates), state

  history = [(params, tx.init(params))]
  for t in range(steps):
    history.append(step(*history[-1], jnp.float32(t)))
  return history


def masks_of(state):
  return optax.tree.get(state, 'masks')


def active(mask):
  return int(jnp.sum(mask))


def every(steps, target):
  return PruningSchedule(tuple(steps), (target,) * len(steps))


# A crash when a leaf is left out


@pytest.mark.parametrize('rule', [update_rules.nested(), update_rules.rigl(4)])
def test_leaves_may_be_left_out_by_masked_and_by_exclude(rule):
  """With momentum inside, under a rule that grows: all that has to be matched leaf by leaf."""
  params = {'first': {'w': kernel(4, 5), 'b': jnp.ones(5)}, 'second': {'w': kernel(5, 3)}}
  link = functools.partial(
    prune, every((0, 2), 0.25), update_rule=rule, inner=optax.sgd(0.05, momentum=0.9)
  )

  def kept(tree):
    return jax.tree.map_with_path(lambda path, _: 'first' in str(path[0]), tree)

  for tx in (optax.masked(link(), kept), link(exclude='second')):
    after, state = train(tx, params, 3)[-1]
    assert active(masks_of(state)['first']['w']) == 5
    assert bool(jnp.all(after['second']['w'] != 0))


# A crash with packed masks and regrowth


def test_masks_whose_sizes_no_byte_divides_regrow():
  params = {'a': {'w': kernel(3, 5)}, 'b': {'w': kernel(7, 11)}}
  rule = update_rules.rigl(100, drop_fraction=0.5)
  tx = prune(every((0, 2, 4), 0.4), allocation=allocation.uniform(), update_rule=rule)
  history = train(optax.chain(optax.sgd(0.05), tx), params, 5)
  for name, size in (('a', 15), ('b', 77)):
    masks = [masks_of(state)[name]['w'] for _, state in history[1:]]
    assert [active(mask) for mask in masks] == [round(0.4 * size)] * 5
    assert any(active(new & ~old) > 0 for old, new in itertools.pairwise(masks))
  state = history[-1][1]
  packed = pack_masks(state)
  assert masks_of(packed)['b']['w'].size == 10  # bytes for 77 bits
  chex.assert_trees_all_equal(unpack_masks(packed, like=state), state)


# States of optimizers that it does not know


class Odd(NamedTuple):
  """Slots under other names and of other shapes, a count, a number, a tree inside a list."""

  a_slot: Any
  step: jax.Array
  settings: dict[str, jax.Array]
  more: list
  rows: Any


def odd_optimizer():
  def init_fn(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    rows = jax.tree.map(lambda p: jnp.zeros(p.shape[:1]), params)
    return Odd(zeros, jnp.zeros([], jnp.int32), {'decay': jnp.float32(0.5)}, [zeros, ()], rows)

  def update_fn(updates, state, params=None):
    slot = jax.tree.map(lambda s, u: state.settings['decay'] * s + u, state.a_slot, updates)
    rows = jax.tree.map(lambda r, u: r + u.reshape(len(u), -1).sum(1), state.rows, updates)
    state = state._replace(a_slot=slot, step=state.step + 1, more=[updates, ()], rows=rows)
    return jax.tree.map(lambda s: -0.05 * s, slot), state

  return optax.GradientTransformation(init_fn, update_fn)


UNKNOWN = {
  'odd': odd_optimizer,
  'adafactor': lambda: optax.adafactor(0.05, min_dim_size_to_factor=2),
  'muon': lambda: optax.contrib.muon(0.05),
  'schedule_free': lambda: optax.contrib.schedule_free_sgd(0.05, warmup_steps=2),
  'prodigy': lambda: optax.contrib.prodigy(0.1),
  'lookahead_like': lambda: optax.chain(optax.ema(0.9), optax.inject_hyperparams(optax.adam)(0.05)),
  'partition': lambda: optax.partition(
    {True: optax.adam(0.05), False: optax.sgd(0.05)},
    lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
  ),
}


@pytest.mark.parametrize('name', UNKNOWN)
def test_it_needs_to_know_nothing_of_the_optimizer_s_state(name):
  params = {'w': kernel(4, 5), 'b': jnp.ones(5)}
  around = prune(one_shot(1, 0.25), inner=UNKNOWN[name]())
  behind = optax.chain(UNKNOWN[name](), prune(one_shot(1, 0.25)))
  for tx in (around, behind):
    history = train(tx, params, 3)
    after, state = history[-1]
    assert active(after['w'] != 0) == active(masks_of(state)['w']) == 5
    chex.assert_tree_all_finite(after)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, history[0][1])


def test_slots_under_any_name_are_zeroed_and_counts_are_not():
  tx = prune(one_shot(2, 0.25), inner=odd_optimizer())
  *_, (_, before), (_, after) = train(tx, {'w': kernel(4, 5)}, 3)
  assert bool(jnp.all(before.inner_state.a_slot['w'] != 0))
  np.testing.assert_array_equal(after.inner_state.a_slot['w'] != 0, after.masks['w'])
  assert int(after.inner_state.step) == 3
  assert float(after.inner_state.settings['decay']) == 0.5


# Extra arguments swallowed


@pytest.mark.parametrize('inside', [True, False])
def test_a_link_that_needs_the_loss_gets_it(inside):
  """Inside, before and after: the plateau link raises a TypeError without `value`."""
  plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, cooldown=0)
  sgd = optax.sgd(0.05)
  link = functools.partial(prune, one_shot(0, 0.25))
  tx = link(inner=optax.chain(sgd, plateau)) if inside else optax.chain(plateau, sgd, link())
  _, state = train(tx, {'w': kernel(4, 5)}, 5, value=jnp.float32(1.0))[-1]
  assert float(optax.tree.get(state, 'scale')) < 1


# Silently dense


def test_there_is_no_hook_to_forget():
  """init, update and apply_updates are all that is called; what they lack is named, not skipped."""
  params = {'w': kernel(4, 5)}
  tx = optax.chain(optax.sgd(0.05), prune(one_shot(0, 0.25)))
  moved, _ = tx.update(params, tx.init(params), params)
  assert active(optax.apply_updates(params, moved)['w'] != 0) == 5
  with pytest.raises(ValueError, match='params'):
    tx.update(params, tx.init(params))
  needy = prune(one_shot(0, 0.25), criterion=criteria.saliency)
  with pytest.raises(ValueError, match='grad='):
    needy.update(params, needy.init(params), params)


def test_a_choice_that_chooses_nothing_is_refused():
  with pytest.raises(
    ValueError, match=r"no leaf of b \(5,\) float32 is a kernel.*parameters='all' prunes every leaf"
  ):
    prune(one_shot(0, 0.25)).init({'b': jnp.ones(5)})


# Momentum that grows after a mask


def test_inside_there_is_no_momentum_behind_a_mask():
  """Not at the cut, and not from the dense gradient that goes on coming in afterwards."""
  tx = prune(one_shot(2, 0.25), inner=optax.sgd(0.05, momentum=0.9))
  for _, state in train(tx, {'w': kernel(4, 5)}, 8)[3:]:
    trace = optax.tree.get(state, 'trace')['w']
    np.testing.assert_array_equal(trace != 0, masks_of(state)['w'])


def test_as_the_last_link_what_momentum_there_is_never_moves_a_removed_weight():
  """The link before keeps a slot of its own, which fills; the weights stay at exactly zero."""
  tx = optax.chain(optax.sgd(0.05, momentum=0.9), prune(one_shot(2, 0.25)))
  history = train(tx, {'w': kernel(4, 5)}, 8)
  assert bool(jnp.all(optax.tree.get(history[-1][1], 'trace')['w'] != 0))
  for params, state in history[3:]:
    np.testing.assert_array_equal(params['w'] != 0, masks_of(state)['w'])


# N:M that ignores its density and its schedule, or raises on ten classes


def test_n_of_m_follows_its_schedule_to_its_target():
  params = {'w': kernel(8, 10)}
  schedule = PruningSchedule((0, 1, 2), (0.75, 0.5, 0.25))
  history = train(prune(schedule, granularity=granularity.n_of_m(4)), params, 3)
  for n, (after, _) in zip((3, 2, 1), history[1:], strict=True):
    in_each_group = (after['w'] != 0).reshape(2, 4, 10).sum(1)
    assert bool(jnp.all(in_each_group == n))


def test_n_of_m_takes_a_convolution_and_a_layer_of_ten_inputs_and_ten_classes():
  params = {'conv': {'w': kernel(3, 3, 8, 6)}, 'classes': {'w': kernel(10, 10)}}
  tx = prune(one_shot(0, 0.5), granularity=granularity.n_m(2, 4), allocation=allocation.uniform())
  after, _ = train(tx, params, 1)[-1]
  channels = (after['conv']['w'] != 0).reshape(3, 3, 2, 4, 6)
  assert bool(jnp.all(channels.sum(3) == 2))
  classes = after['classes']['w'] != 0
  assert active(classes) == 50
  assert bool(jnp.all(classes[:8].reshape(2, 4, 10).sum(1) <= 2))
  assert bool(jnp.all(classes[8:].sum(0) <= 2))


# Blocks that mask nothing in a 3x3 convolution


def test_blocks_of_a_3x3_convolution_go_whole_and_as_many_as_asked():
  tx = prune(one_shot(0, 0.5), granularity=granularity.blocks(4, 4))
  after, _ = train(tx, {'w': kernel(3, 3, 8, 8)}, 1)[-1]
  tiles = (after['w'] != 0).reshape(9, 2, 4, 2, 4).swapaxes(2, 3)
  whole, any_left = tiles.all((-2, -1)), tiles.any((-2, -1))
  np.testing.assert_array_equal(whole, any_left)
  assert active(whole) == 18


# A global rank that empties a layer


def test_a_global_rank_leaves_every_layer_something():
  params = {f'w{scale}': scale * kernel(10, 20) for scale in (1e-3, 1.0, 1e3)}
  after, _ = train(prune(one_shot(0, 0.01)), params, 1)[-1]
  left = [active(leaf != 0) for leaf in jax.tree.leaves(after)]
  assert sum(left) == 6
  assert min(left) >= 1


# A cubic schedule that ends at 0.967 instead of 0.99


@pytest.mark.parametrize('period', [1, 3, 7, 100])
def test_the_cubic_schedule_ends_on_its_target_whatever_the_period(period):
  tx = prune(cubic(0, 10, 0.01, every=period))
  after, _ = train(optax.chain(optax.scale(-0.01), tx), {'w': kernel(20, 50)}, 11)[-1]
  assert 1 - active(after['w'] != 0) / 1000 == 0.99


# A learning-rate schedule that pruning steps freeze


@pytest.mark.parametrize(
  'rule', [update_rules.nested(), update_rules.set_(), update_rules.rigl(100)]
)
@pytest.mark.parametrize('inside', [True, False])
def test_a_learning_rate_s_schedule_goes_on_at_pruning_steps(rule, inside):
  """Halved after two and after four steps; the updates say which rate they were made with.

  Rules that grow make no gradient step at steps 1 and 3, where the masks are renewed.
  """
  rate = optax.piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.5})
  link = functools.partial(prune, every((1, 3), 0.5), update_rule=rule)
  sgd = optax.sgd(rate)
  tx = link(inner=sgd) if inside else optax.chain(sgd, link())
  params = {'w': kernel(4, 5)}
  update, state, rates = jax.jit(tx.update), tx.init(params), []
  for _ in range(6):
    ones = jax.tree.map(jnp.ones_like, params)
    moved, state = update(ones, state, params, grad=gradient(params, 0))
    kept = masks_of(state)['w']
    rates.append(-float(jnp.sum(jnp.where(kept, moved['w'], 0)) / jnp.sum(kept)))
    params = optax.apply_updates(params, moved)
  at_renewal = (1.0, 0.5) if rule.grow is None else (0.0, 0.0)
  assert rates == [1.0, at_renewal[0], 0.5, at_renewal[1], 0.25, 0.25]
  assert int(optax.tree.get(state, 'count', filtering=_of_the_rate)) == 6


def _of_the_rate(path, value):
  del value
  return 'ScaleByScheduleState' in str(path)


def test_two_of_four_is_two_of_four_in_layers_of_any_scale():
  rng = np.random.default_rng(0)
  params = {
    name: {'kernel': jnp.asarray(scale * rng.normal(size=(8, 6)), jnp.float32)}
    for name, scale in (('small', 0.01), ('large', 1.0))
  }
  tx = prune(one_shot(0, 0.5), granularity=granularity.n_m(2, 4))
  _, state = tx.update(params, tx.init(params), params)
  for layer in state.masks.values():
    assert bool(jnp.all(layer['kernel'].reshape(2, 4, 6).sum(1) == 2))


def test_a_threshold_that_falls_is_refused():
  with pytest.raises(
    ValueError, match=r'thresholds .* must not decrease, .* cubic\(..., initial=0.0\)'
  ):
    prune(cubic(0, 100, 0.02, every=50), allocation=allocation.absolute_threshold())
