"""prune: what goes at a step is exactly zero from then on, by hand on arrays of three numbers."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import WEIGHTS, count, kernels, layer, masks_of, network, sgd, train, zeros

import sparsejax
from sparsejax import apply_masks, one_shot, prune
from sparsejax.sparsity.parts import allocation, criteria, granularity, update_rules
from sparsejax.sparsity.parts.granularity import Granularity
from sparsejax.sparsity.parts.schedules import PruningSchedule

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def test_the_smallest_goes_at_the_step_and_stays_away():
  tx = prune(one_shot(step=1, density=2 / 3))
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
  tx = prune(one_shot(step=2, density=2 / 3))
  params = {'kernel': jnp.array([[0.5, 1.0, 3.0]])}
  state = tx.init(params)
  for t in range(3):
    assert int(state.count) == t
    assert count(jax.tree.leaves(state.masks)) == 3
    moved, state = tx.update({'kernel': jnp.array([[1.0, 0.0, 0.0]])}, state, params)
    params = optax.apply_updates(params, moved)
  assert params['kernel'].tolist() == [[3.5, 0.0, 3.0]]


def test_step_0_prunes_in_the_first_update():
  tx = prune(one_shot(step=0, density=1 / 3))
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


def test_a_score_that_is_no_number_is_the_first_to_go():
  def criterion(weights):
    return jnp.where(weights > 4, jnp.nan, weights)

  params = {'big': jnp.full((4, 5), 3.0), 'small': jnp.array([[5.0, 1.0, 2.0]])}
  tx = prune(one_shot(0, 0.25), criterion=criterion, floor=2)
  _, state = tx.update(params, tx.init(params), params)
  assert state.masks['small'].tolist() == [[False, True, True]]
  everything = prune(one_shot(0, 1.0), criterion=criterion)
  _, state = everything.update(params, everything.init(params), params)
  assert state.masks['small'].all()  # it is there still, and not what has gone already


def test_a_score_of_minus_infinity_is_more_than_what_has_gone():
  """At first 5 and 4 stay, and then, with the signs turned, one of the two and nothing else."""
  criterion = lambda param, **_: jnp.where(param < 0, -jnp.inf, param)  # noqa: E731
  tx = prune(PruningSchedule((0, 1), (0.5, 0.25)), criterion=criterion)
  params = {'w': jnp.array([[1.0, 2.0, 5.0, 4.0]])}
  zeros = {'w': jnp.zeros((1, 4))}
  _, state = tx.update(zeros, tx.init(params), params)
  assert state.masks['w'].tolist() == [[False, False, True, True]]
  _, state = tx.update(zeros, state, {'w': -params['w']})
  assert state.masks['w'].tolist() == [[False, False, True, False]]


@pytest.mark.parametrize('rule', ['set', 'rigl'])
def test_infinite_gradients_grow_before_others_and_after_what_is_kept(rule):
  """Of four weights 4 and 3 stay; RigL drops 3 for the infinite gradient of what has gone."""
  rules = {
    'set': update_rules.UpdateRule(criteria.gradient_magnitude, lambda step: jnp.float32(0.5)),
    'rigl': update_rules.rigl(end=100, drop_fraction=0.5, start='criterion'),
  }
  tx = prune(PruningSchedule((0, 1), (0.5, 0.5)), update_rule=rules[rule])
  params = {'w': jnp.array([[1.0, 2.0, 3.0, 4.0]])}
  zeros = {'w': jnp.zeros((1, 4))}
  _, state = tx.update(zeros, tx.init(params), params, grad=params)
  state = state._replace(masks={'w': jnp.array([[False, False, True, True]])})
  grad = {'w': jnp.array([[jnp.inf, jnp.inf, jnp.inf, 1.0]])}
  _, state = tx.update(zeros, state, params, grad=grad)
  assert state.masks['w'].tolist() == [[True, False, False, True]]


@pytest.mark.parametrize(
  ('parts', 'message'),
  [
    (
      {'granularity': granularity.filters},
      r'granularity=filters must be what a function of sparsejax\.granularity returns, as filters',
    ),
    ({'allocation': 3}, r'allocation=3 must be what a function of sparsejax\.allocation returns$'),
    (
      {'update_rule': update_rules.rigl},
      r'update_rule=rigl must be what a function of sparsejax\.update_rules returns, '
      r'as rigl\(\) does$',
    ),
    ({'seed': None}, 'seed=None must be an integer$'),
    ({'seed': '1'}, "seed='1' must be an integer$"),
    ({'seed': 0.5}, r'seed=0\.5 must be an integer$'),
    ({'floor': 1.5}, r'floor=1\.5 must be an integer; optax\.inject_hyperparams'),
    ({'floor': True}, 'floor=True must be an integer; '),
    ({'criterion': 3}, 'criterion=3 must be a function; '),
    (
      {'criterion': 'magnitude'},
      "criterion='magnitude' must be a function, such as criteria",
    ),
    ({'schedule': 0.1}, 'schedule=0.1 must be a PruningSchedule, made by one_shot, '),
    ({'schedule': {0: 0.1}}, r'schedule=\{0: 0.1\} must be a PruningSchedule'),
  ],
)
def test_what_is_no_part_is_refused_with_its_value(parts, message):
  with pytest.raises(ValueError, match=f'^{message}') as error:
    prune(**({'schedule': one_shot(0, 0.5)} | parts))
  assert '\n' not in str(error.value)


def test_a_floor_that_keeps_everything_is_refused():
  params = {'big': jnp.ones((4, 5)), 'small': jnp.ones((1, 3))}
  for floor in (20, 1_000_000):
    with pytest.raises(ValueError, match=rf'^floor={floor} must be less than 20, .*\(big\)'):
      prune(one_shot(0, 0.25), floor=floor).init(params)
  prune(one_shot(0, 0.25), floor=19).init(params)
  prune(one_shot(0, 0.25)).init({'one': jnp.ones((1, 1))})  # the default floor suits any tree


@pytest.mark.parametrize('density', [1.0, 0.25])
@pytest.mark.parametrize('inside', [False, True])
def test_what_is_kept_changes_no_bit(inside, density):
  """All of it at a density of one; before the step at any. Without jit, since within one program
  XLA may round p + u once or twice, as the fusion goes.
  """
  optimizer = sgd(weight_decay=0.1)
  schedule = one_shot(2, density)
  tx = prune(schedule, inner=optimizer) if inside else optax.chain(optimizer, prune(schedule))
  bare, history = (train(t, layer(), 4, jit=False) for t in (optimizer, tx))
  same = 5 if density == 1 else 3
  for (wanted, _), (params, _) in zip(bare[:same], history[:same], strict=True):
    chex.assert_trees_all_equal(params, wanted)
  assert int(jnp.sum(history[-1][0]['kernel'] != 0)) == 20 * density


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


# What a criterion is given


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
