"""The totals that prune meets: exactly, at once and step by step, under any criterion."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import PARAMETERS, WEIGHTS, count, kernels, masks_of, network, sgd, train, zeros

import sparsejax
from sparsejax import cubic, one_shot, prune
from sparsejax.sparsity.parts import allocation, criteria

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


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
  for fraction in schedule.densities:
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


def test_bfloat16_is_pruned_to_the_exact_total_despite_its_many_ties():
  params = {'w': jax.random.normal(jax.random.key(0), (50, 60)).astype(jnp.bfloat16)}
  tx = optax.chain(sgd(), prune(one_shot(0, 0.1)))
  moved, _ = tx.update(params, tx.init(params), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(moved, params)
  assert int(jnp.sum(optax.apply_updates(params, moved)['w'] != 0)) == 300


def test_random_masks_follow_the_seed():
  params = {'w': jnp.ones((5, 6))}

  def mask(seed):
    return pruned_once(params, 0.5, criterion=criteria.random, seed=seed)[1]['w'].tolist()

  assert mask(0) != mask(1)


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
  for density, (_, state) in zip(schedule.densities, history[2:], strict=True):
    assert count(jax.tree.leaves(masks_of(state))) == max(round(density * PARAMETERS), 6)
  for (_, before), (_, after) in itertools.pairwise(history):
    grown = jax.tree.map(lambda old, new: new & ~old, masks_of(before), masks_of(after))
    assert count(jax.tree.leaves(grown)) == 0
