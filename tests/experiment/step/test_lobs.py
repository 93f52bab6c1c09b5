"""L-OBS: by hand, against every choice, its prediction of the loss, and the event on a network."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import lenet5_lobs, lenet300_lobs
from sparsejax.experiment.config import base
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir.state import TrainState, empty_window
from sparsejax.experiment.step import events, lobs_event
from sparsejax.experiment.step.steps import Arrays, Preprocessing
from sparsejax.nn import deterministic
from sparsejax.sparsity.lobs import Moments, removal_costs, remove, second_moments, solve_kept
from sparsejax.transforms.inner.masking import apply_masks

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

# The pure part.


def layer(seed=0, rows=40, inputs=5, units=3, groups=1):
  """Correlated inputs and weights for them, the last input a 1 for the bias."""
  rng = np.random.default_rng(seed)
  y = rng.normal(size=(groups, rows, inputs)) @ rng.normal(size=(inputs, inputs))
  y[..., -1] = 1
  return y, rng.normal(size=(groups, inputs, units))


def loss(y, weights, new):
  """Half the mean squared change of the pre-activations, summed over the units."""
  return 0.5 * np.sum((y @ (new - weights)) ** 2) / y.shape[1]


def moments_of(y):
  return second_moments([(y, y)])


def damped_inverse(y, damping=1e-6):
  h = moments_of(y).inputs
  return np.linalg.inv(h + damping * np.eye(h.shape[-1]))


def test_moments_of_a_stream_are_those_of_all_rows():
  y, _ = layer()
  parts = np.split(y, [7, 20], axis=1)
  streamed = second_moments((part, 2 * part) for part in parts)
  np.testing.assert_allclose(streamed.inputs, y.mT @ y / 40, rtol=1e-12)
  np.testing.assert_allclose(streamed.goal, 2 * streamed.inputs, rtol=1e-12)
  with pytest.raises(ValueError, match='no rows'):
    second_moments([])


@pytest.mark.parametrize('block', [1, 8])
def test_the_papers_recursion_is_the_inverse_of_the_damped_moments(block):
  y, _ = layer()
  psi, n = 1e6 * np.eye(5), 40
  for start in range(0, n, block):
    rows = y[0, start : start + block]
    inner = n * np.eye(block) + rows @ psi @ rows.T
    psi = psi - psi @ rows.T @ np.linalg.solve(inner, rows @ psi)
  np.testing.assert_allclose(psi, damped_inverse(y)[0], rtol=1e-5)


def test_two_inputs_by_hand():
  # H = [[2, 1], [1, 2]], H^-1 = [[2, -1], [-1, 2]] / 3: L = w^2 / (4 / 3) = 0.75, 12. Removing the
  # first moves the second by -(w_1 / (2 / 3)) (-1 / 3) = 0.5.
  moments = Moments(*(np.array([[[2.0, 1.0], [1.0, 2.0]]]),) * 2)
  weights = np.array([[[1.0], [4.0]]])
  costs = removal_costs(weights[0, :, 0], np.array([2 / 3, 2 / 3]))
  np.testing.assert_allclose(costs, [0.75, 12.0])
  new = remove(weights, moments, 1, bias=False, damping=0.0)
  np.testing.assert_allclose(new[0, :, 0], [0.0, 4.5])


def test_the_predicted_cost_of_one_removal_is_the_measured_one():
  y, weights = layer()
  inverse = damped_inverse(y, 0.0)[0]
  predicted = removal_costs(weights[0], np.diag(inverse)[:, None])
  for q, unit in np.ndindex(4, 3):
    new = weights.copy()
    new[0, :, unit] -= weights[0, q, unit] / inverse[q, q] * inverse[:, q]
    assert new[0, q, unit] == pytest.approx(0, abs=1e-12)
    assert loss(y, weights, new) == pytest.approx(predicted[q, unit])


def test_solving_for_the_kept_is_the_joint_step_and_its_cost_is_predicted():
  y, weights = layer()
  h, w = moments_of(y).inputs[0], weights[0, :, 0]
  inverse, gone, keep = np.linalg.inv(h), [0, 2], np.array([False, True, False, True, True])
  block = np.linalg.inv(inverse[np.ix_(gone, gone)])
  joint = w - inverse[:, gone] @ block @ w[gone]
  found, diagonal = solve_kept(h, h @ w, keep)
  np.testing.assert_allclose(found, joint, atol=1e-12)
  kept_inverse = np.linalg.inv(h[np.ix_(keep, keep)])
  np.testing.assert_allclose(diagonal[keep], np.diag(kept_inverse))
  change = found - w
  predicted = 0.5 * w[gone] @ block @ w[gone]
  assert 0.5 * change @ h @ change == pytest.approx(predicted)


def test_against_every_choice_on_a_tiny_layer():
  """The rounds end at the optimum for what they chose, within a quarter of the best choice."""
  ratios = []
  for seed in range(5):
    y, weights = layer(seed, units=1)
    new = remove(weights, moments_of(y), 2)
    found = loss(y, weights, new)
    h, w = moments_of(y).inputs[0], weights[0, :, 0]
    every = []
    for kept in itertools.combinations(range(4), 2):
      keep = np.isin(np.arange(5), [*kept, 4])
      every.append(loss(y, weights, solve_kept(h, h @ w, keep)[0][None, :, None]))
      if np.array_equal(keep[:4], new[0, :4, 0] != 0):
        assert found == pytest.approx(every[-1], rel=1e-4)
    ratios.append(found / min(every))
  assert min(ratios) == pytest.approx(1, rel=1e-4)
  assert np.mean(ratios) < 1.25


def test_rounds_beat_one_ranking_and_zeroing():
  y, weights = layer(rows=200, inputs=40, units=10)
  moments, count = moments_of(y), 80

  def zeroed(scores):
    kernel = weights[0, :-1] * (scores >= np.sort(scores, axis=None)[-count])
    return np.concatenate([kernel, weights[0, -1:]])[None]

  costs = removal_costs(weights, np.diagonal(damped_inverse(y), axis1=1, axis2=2)[..., None])
  ten = loss(y, weights, remove(weights, moments, count))
  one = loss(y, weights, remove(weights, moments, count, rounds=1))
  by_cost = loss(y, weights, zeroed(costs[0, :-1]))
  by_magnitude = loss(y, weights, zeroed(np.abs(weights[0, :-1])))
  assert one < by_cost
  assert 1.5 * ten < min(one, by_magnitude)


def test_the_first_inverse_kept_for_every_removal_is_worse():
  y, weights = layer(rows=200, inputs=40, units=1)
  inverse = damped_inverse(y)[0]
  stale, w = weights[0, :, 0].copy(), weights[0, :, 0]
  gone = np.argsort(removal_costs(w, np.diag(inverse))[:-1])[:20]
  for q in gone:
    stale -= w[q] / inverse[q, q] * inverse[:, q]
  stale[gone] = 0
  new = remove(weights, moments_of(y), 19)
  assert loss(y, weights, new) < loss(y, weights, stale[None, :, None])


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('count', [0, 1, 11, 20])
def test_exactly_so_many_stay_and_no_bias_goes(count, bias):
  y, weights = layer(inputs=6 if bias else 5, units=2, groups=2)
  new = remove(weights, moments_of(y), count, bias=bias)
  kernel = new[:, :-1] if bias else new
  assert np.count_nonzero(kernel) == count
  if bias:
    assert np.all(new[:, -1])


def test_groups_are_layers_of_their_own_under_one_count():
  y, weights = layer(groups=2)
  together = remove(weights, moments_of(y), 9)
  for group in (0, 1):
    count = np.count_nonzero(together[group, :-1])
    alone = remove(weights[[group]], moments_of(y[[group]]), count, rounds=1)
    one = slice(group, group + 1)
    assert loss(y[one], weights[one], together[one]) <= 1.5 * loss(y[one], weights[one], alone)


def test_all_kept_stay_as_they_are():
  y, weights = layer()
  np.testing.assert_allclose(remove(weights, moments_of(y), 12), weights, rtol=1e-9)


def test_dead_and_doubled_inputs_are_no_trouble():
  """An input that is always zero and one that is another's double: H is singular."""
  y, weights = layer(inputs=6, units=1)
  y[..., 0], y[..., 1] = 0, y[..., 2]
  new = remove(weights, moments_of(y), 3)
  assert np.count_nonzero(new[0, :2]) == 0 or np.count_nonzero(new[0, [0, 2]]) == 0
  assert loss(y, weights, new) < 1e-9
  both = weights[0, 1, 0] + weights[0, 2, 0]
  assert new[0, 1:3].sum() == pytest.approx(both, rel=1e-4)


def test_weights_make_up_for_inputs_that_have_changed():
  """The layer before lost half its scale: twice the weights answer as before."""
  y, weights = layer()
  scale = np.array([0.5, 0.5, 0.5, 0.5, 1.0])
  new = remove(weights, second_moments([(y * scale, y)]), 12)
  np.testing.assert_allclose(new * scale[:, None], weights, rtol=1e-3)


def test_what_can_not_be_is_refused():
  y, weights = layer()
  with pytest.raises(ValueError, match='count=13 must be from 0 to 12'):
    remove(weights, moments_of(y), 13)
  with pytest.raises(ValueError, match='rounds=0'):
    remove(weights, moments_of(y), 3, rounds=0)
  with pytest.raises(ValueError, match='must be positive definite'):
    solve_kept(-np.eye(2), np.ones(2), np.ones(2, bool))


# The event.


class Tiny(nn.Module):
  """A grouped and strided convolution, a plain one without a bias, a dense layer."""

  @nn.compact
  def __call__(self, images, *, train):
    conv = deterministic.Conv
    x = nn.relu(conv(4, (3, 3), feature_group_count=2, strides=(2, 2), name='grouped')(images))
    x = nn.relu(conv(6, (2, 2), padding=((0, 1), (1, 0)), use_bias=False, name='plain')(x))
    return deterministic.Dense(3, name='classifier')(x.reshape(len(x), -1))


class Foreign(nn.Module):
  @nn.compact
  def __call__(self, images, *, train):
    return nn.Dense(3, name='flax')(images.reshape(len(images), -1))


def context_of(model, examples=64):
  images = np.random.default_rng(0).integers(0, 256, (examples, 6, 6, 2), np.uint8)
  data = parallel.replicate(Arrays(jnp.asarray(images), jnp.zeros(examples, jnp.int32)))
  return events.Context(model, Preprocessing((0.5,) * 2, (0.3,) * 2), data, 16, seed=3)


def state_of(model):
  params = jax.jit(model.init, static_argnames='train')(
    jax.random.key(1), jnp.zeros((1, 6, 6, 2)), train=False
  )['params']
  counts = {'step': jnp.int32(5), 'events': jnp.int32(0), 'window': empty_window()}
  state = TrainState(params=params, batch_stats={}, opt_state=(), key=jax.random.key(0), **counts)
  return parallel.replicate(state)


SETTINGS = base.EVENT_DEFAULTS['lobs'] | {'batches': 4, 'density': 0.4}


def happen(state, context, **settings):
  return events.apply_event('lobs', state, SETTINGS | settings, context)


def outputs(context, params):
  images = jnp.concatenate(list(context.batches(4)))
  return jax.jit(partial(context.model.apply, train=False))({'params': params}, images)


@pytest.fixture(scope='module')
def tiny():
  model = Tiny()
  state, context = state_of(model), context_of(model)
  return state, context, happen(state, context)


def test_inputs_times_the_kernel_are_the_layers_outputs(tiny):
  state, context, _ = tiny
  images = next(context.batches(1))
  outcome = {}

  def note(call, args, kwargs, info):
    outcome['/'.join(info.module.path)] = call(*args, **kwargs)
    return outcome['/'.join(info.module.path)]

  with nn.intercept_methods(note):
    context.model.apply({'params': state.params}, images, train=False)
  for name, groups in (('grouped', 2), ('plain', 1), ('classifier', 1)):
    rows = jax.jit(partial(lobs_event.layer_inputs, context.model, name))(
      {'params': state.params}, images
    )
    weights = lobs_event.kernel_matrices(np.asarray(state.params[name]['kernel']), groups)
    if 'bias' in state.params[name]:
      bias = np.asarray(state.params[name]['bias']).reshape(groups, 1, -1)
      weights = np.concatenate([weights, bias], axis=1)
    product = np.moveaxis(np.asarray(rows) @ weights, 0, 1).reshape(outcome[name].shape)
    np.testing.assert_allclose(product, outcome[name], atol=1e-5)


class Twice(nn.Module):
  """One dense layer that is called for two halves of the inputs."""

  @nn.compact
  def __call__(self, images, *, train):
    dense = deterministic.Dense(3, name='dense')
    return sum(dense(half) for half in jnp.split(images, 2, axis=1))


def test_the_inputs_of_a_layer_that_is_called_twice_are_those_of_both_calls():
  images = jnp.arange(8.0).reshape(2, 4)
  variables = Twice().init(jax.random.key(0), images, train=False)
  rows = lobs_event.layer_inputs(Twice(), 'dense', variables, images)
  assert rows.tolist() == [[[0, 1, 1], [4, 5, 1], [2, 3, 1], [6, 7, 1]]]


def test_the_event_keeps_exactly_the_share_and_loses_less_than_zeroing(tiny):
  state, context, pruned = tiny
  kernels = [block['kernel'] for block in pruned.params.values()]
  size = sum(kernel.size for kernel in kernels)
  assert sum(int((kernel != 0).sum()) for kernel in kernels) == round(0.4 * size)
  cut = happen(state, context, method='magnitude')
  for name, block in cut.params.items():
    assert int((block['kernel'] != 0).sum()) == int((pruned.params[name]['kernel'] != 0).sum())
    kept = apply_masks(state.params[name]['kernel'], block['kernel'] != 0)
    np.testing.assert_array_equal(block['kernel'], kept)
  dense = outputs(context, state.params)
  moved, zeroed = (jnp.mean((outputs(context, s.params) - dense) ** 2) for s in (pruned, cut))
  assert moved < 0.5 * zeroed


def test_the_event_changes_parameters_alone_and_is_the_same_again(tiny):
  state, context, pruned = tiny
  assert (int(state.events), int(pruned.events)) == (0, 1)
  assert pruned._replace(params=state.params, events=state.events) == state
  again = happen(state, context)
  jax.tree.map(np.testing.assert_array_equal, pruned.params, again.params)
  shapes = jax.tree.map(lambda p: (p.shape, p.dtype), state.params)
  assert jax.tree.map(lambda p: (p.shape, p.dtype), pruned.params) == shapes


def test_excluded_layers_stay_and_one_keeps_everything(tiny):
  state, context, _ = tiny
  pruned = happen(state, context, exclude=('^grouped/', '^classifier/'), allocation='uniform')
  for name in ('grouped', 'classifier'):
    jax.tree.map(np.testing.assert_array_equal, pruned.params[name], state.params[name])
  assert int((pruned.params['plain']['kernel'] != 0).sum()) == round(0.4 * 4 * 4 * 6)
  whole = happen(state, context, density=1.0)
  jax.tree.map(np.testing.assert_array_equal, whole.params, state.params)


def test_a_layer_of_another_kind_is_refused():
  model = Foreign()
  with pytest.raises(ValueError, match="'flax' is a Dense of flax"):
    happen(state_of(model), context_of(model))


# The settings.


def config_with(**changes):
  config = base.complete(lenet300_lobs.get_config()).to_dict()
  for field, value in changes.items():
    block, name = field.split('__')
    config[block][name] = value
  return config


@pytest.mark.parametrize('module', [lenet300_lobs, lenet5_lobs])
def test_the_configs_hold_the_zeros_from_the_surgery_on(module):
  config = base.complete(module.get_config(0.02)).to_dict()
  events.check(config)
  assert config['lobs']['density'] == 0.02
  prune = config['prune']
  assert (prune['allocation'], prune['threshold']) == ('absolute_threshold', 0.0)
  assert prune['begin_epochs'] == config['lobs']['at_epochs'] < config['epochs']


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'lobs__density': 0.0}, r'lobs\.density=0\.0 must be an active fraction'),
    ({'lobs__density': 1.5}, r'lobs\.density=1\.5'),
    ({'lobs__batches': 0}, r'lobs\.batches=0'),
    ({'lobs__allocation': 'global_rnak'}, "did you mean 'global_rank'"),
    ({'lobs__method': 'obs'}, "did you mean 'lobs'"),
    ({'prune__begin_epochs': 50.0}, 'nothing holds its zeros'),
    ({'prune__schedule': 'cubic'}, 'nothing holds its zeros'),
  ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    events.check(config_with(**changes))


def test_without_prune_nothing_would_hold_the_zeros():
  config = config_with() | {'chain': base.SGD}
  with pytest.raises(ValueError, match='nothing holds its zeros'):
    events.check(config)
