"""rewind: what the parameters were comes back, alone and where prune cuts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import PruningSchedule, prune, rewind
from sparsejax.transforms.rewinding import RewindState


def train(tx, params, steps, grad=None):
  """The parameters and the state before the first step and after each."""

  @jax.jit
  def step(params, state):
    ones = jax.tree.map(jnp.ones_like, params) if grad is None else grad
    moved, state = tx.update(ones, state, params)
    return optax.apply_updates(params, moved), state

  history = [(params, tx.init(params))]
  for _ in range(steps):
    history.append(step(*history[-1]))
  return jax.device_get(history)


def test_the_parameters_of_a_step_come_back_in_every_round():
  """Down by one each step; at the steps 3 and 5 the update leads back to what was after two."""
  tx = optax.chain(optax.sgd(1.0), rewind(to=2, at=(3, 5)))
  history = train(tx, {'w': jnp.array([10.0])}, 8)
  seen = [params['w'].item() for params, _ in history]
  assert seen == [10.0, 9.0, 8.0, 7.0, 8.0, 7.0, 8.0, 7.0, 6.0]
  saved = [state[-1].saved['w'].item() for _, state in history]
  assert saved == [10.0, 10.0, 10.0, *[8.0] * 6]
  assert [int(state[-1].count) for _, state in history] == list(range(9))


def test_to_the_very_start():
  tx = optax.chain(optax.sgd(1.0), rewind(to=0, at=[2]))
  seen = [params['w'].item() for params, _ in train(tx, {'w': jnp.array([10.0])}, 4)]
  assert seen == [10.0, 9.0, 8.0, 10.0, 9.0]


def test_masks_are_made_of_the_trained_weights_and_what_they_keep_is_rewound():
  """The first weight is the smallest at the start and the largest when trained: it stays."""
  tx = optax.chain(optax.sgd(1.0), rewind(to=0, at=[2]), prune(PruningSchedule((2,), (2 / 3,))))
  params = {'w': jnp.array([[1.0, 2.0, 3.0]])}
  grad = {'w': jnp.array([[-2.0, 0.5, 0.0]])}
  history = train(tx, params, 4, grad)
  assert [params['w'].tolist()[0] for params, _ in history] == [
    [1.0, 2.0, 3.0],
    [3.0, 1.5, 3.0],
    [5.0, 1.0, 3.0],
    [1.0, 0.0, 3.0],
    [3.0, 0.0, 3.0],
  ]


def test_what_an_earlier_round_removed_stays_away_in_later_ones():
  schedule = PruningSchedule((2, 4, 6), (0.75, 0.5, 0.25))
  tx = optax.chain(optax.sgd(0.25), rewind(to=1, at=schedule.steps), prune(schedule))
  history = train(tx, {'w': jnp.array([[8.0, 2.0, 6.0, 4.0]])}, 8)
  saved = history[1][0]['w'][0]
  for t, gone in ((2, [1]), (4, [1, 3]), (6, [1, 2, 3])):
    kept = np.setdiff1d(range(4), gone)
    after = history[t + 1][0]['w'][0]
    assert after[gone].tolist() == [0.0] * len(gone)
    np.testing.assert_array_equal(after[kept], saved[kept])
  assert history[8][0]['w'].tolist() == [[7.5, 0.0, 0.0, 0.0]]


def test_inner_slots_start_again_at_zero_and_counts_go_on():
  """Adam's moments at the rewind and one step later are those of one step from zero."""
  tx = rewind(to=1, at=[3], inner=optax.adam(0.5))
  history = train(tx, {'w': jnp.array([1.0, 2.0])}, 5)
  at_rewind, later = history[4][1], history[5][1]
  for name, b in (('mu', 0.9), ('nu', 0.999)):
    assert np.all(optax.tree.get(history[3][1], name)['w'] != 0)
    assert optax.tree.get(at_rewind, name)['w'].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(optax.tree.get(later, name)['w'], [1 - b] * 2, rtol=1e-4)
  counts = [int(leaf) for leaf in jax.tree.leaves(later) if leaf.dtype == np.int32]
  assert counts == [5, 5]
  np.testing.assert_array_equal(history[4][0]['w'], history[1][0]['w'])


def test_links_ahead_of_it_keep_their_momentum():
  tx = optax.chain(optax.trace(0.5), optax.scale(-1.0), rewind(to=0, at=[1]))
  history = train(tx, {'w': jnp.array([4.0])}, 3)
  assert [params['w'].item() for params, _ in history] == [4.0, 3.0, 4.0, 4.0 - 1.75]


def test_the_state_is_of_the_parameters_shapes_and_a_copy():
  """A step that overwrites its arguments is given the parameters and the state, both."""
  params = {'w': jnp.ones((3, 2)), 'half': jnp.ones(2, jnp.bfloat16)}
  tx = rewind(to=0, at=[1])
  state = tx.init(params)
  assert isinstance(state, RewindState)
  assert jax.tree.map(jnp.shape, state.saved) == jax.tree.map(jnp.shape, params)
  for name, leaf in params.items():
    assert state.saved[name].dtype == leaf.dtype
    assert state.saved[name].unsafe_buffer_pointer() != leaf.unsafe_buffer_pointer()
  updates, after = jax.jit(tx.update)(params, state, params)
  assert jax.tree.map(jnp.result_type, (updates, after)) == jax.tree.map(
    jnp.result_type, (params, state)
  )


@pytest.mark.parametrize(
  ('to', 'at'), [(3, (3,)), (3, (5, 2)), (0, (0,)), (-1, (4,)), (0, ())], ids=str
)
def test_steps_that_are_not_after_it_are_refused_in_one_line(to, at):
  with pytest.raises(ValueError) as error:
    rewind(to, at)
  message = f'rewind: at={at} must be one or more steps after to={to}, and to 0 or more'
  assert str(error.value) == message


def test_without_parameters_the_message_is_optax_s_own():
  params = {'w': jnp.ones(3)}
  tx = rewind(to=0, at=[1])
  with pytest.raises(ValueError) as error:
    tx.update(params, tx.init(params))
  with pytest.raises(ValueError) as theirs:
    optax.add_decayed_weights(0.1).update(params, optax.EmptyState(), None)
  assert str(error.value) == str(theirs.value)
