"""prune as a transformation: its state's shape, jit, devices, loops, and what it is called with."""

import chex
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest
from toy import WEIGHTS, layer, masks_of, network, sgd, train, zeros
from trials import gradient

import sparsejax
from sparsejax import PruningSchedule, cubic, one_shot, prune
from sparsejax.sparsity.parts import allocation, criteria

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


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


@pytest.mark.parametrize('jit', [False, True])
def test_renewals_that_a_restored_count_skipped_are_made_at_once(jit):
  """A state of 10 updates under a chain that has cuts at 2 and 4 and, still to come, at 12."""
  schedule = PruningSchedule(steps=(2, 4, 12), densities=(0.9, 0.5, 0.25))
  tx = prune(schedule)
  params = {'w': jnp.arange(1.0, 21.0).reshape(4, 5)}
  state = tx.init(params)._replace(count=jnp.int32(10))
  update = jax.jit(tx.update) if jit else tx.update
  kept, renewals = [], []
  for _ in range(4):
    updates, state = update({'w': jnp.zeros((4, 5))}, state, params)
    params = optax.apply_updates(params, updates)
    kept.append(int(jnp.count_nonzero(params['w'])))
    renewals.append(int(state.renewals))
  assert kept == [10, 10, 5, 5]
  assert renewals == [2, 2, 3, 3]
  chex.assert_type(state.renewals, jnp.int32)


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
