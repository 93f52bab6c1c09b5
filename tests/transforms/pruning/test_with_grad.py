"""with_grad: the incoming updates are the gradient that criteria inside ask for."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax.training.train_state import TrainState

from sparsejax import criteria, one_shot, prune, update_rules, with_grad

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def by_saliency(step=0, density=0.5, **options):
  return prune(one_shot(step, density), criterion=criteria.saliency, **options)


def test_multi_steps_hands_the_mean_gradient_on():
  """The mean is [4.5, 4.5], [.5, .5]; the last small step's alone would leave the second row."""
  tx = optax.MultiSteps(with_grad(optax.chain(optax.sgd(0.0), by_saliency())), 2)
  params = {'kernel': jnp.ones((2, 2))}
  state = tx.init(params)
  for grad in (jnp.array([[9.0, 9.0], [0.0, 0.0]]), jnp.array([[0.0, 0.0], [1.0, 1.0]])):
    moved, state = tx.update({'kernel': grad}, state, params, grad={'kernel': grad})
    params = optax.apply_updates(params, moved)
  assert params['kernel'].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_the_gradient_from_outside_gives_way_and_other_arguments_pass():
  seen = {}

  def look(updates, state, params=None, **extra_args):
    seen.update(extra_args)
    return updates, state

  spy = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), look)
  with_grad(spy).update({'w': 1.0}, optax.EmptyState(), grad={'w': 2.0}, value=3.0)
  assert seen == {'grad': {'w': 1.0}, 'value': 3.0}


def test_a_link_ahead_of_it_changes_the_gradient_and_one_inside_does_not():
  """Clipped to 1 each, 9 and 2 are one gradient, and the larger parameter stays."""
  params, grad = {'kernel': jnp.array([[1.0, 2.0]])}, {'kernel': jnp.array([[9.0, 2.0]])}
  inside = with_grad(optax.chain(optax.clip(1.0), by_saliency()))
  ahead = optax.chain(optax.clip(1.0), with_grad(by_saliency()))
  for tx, left in ((inside, [1.0, 0.0]), (ahead, [0.0, 1.0])):
    moved, _ = tx.update(grad, tx.init(params), params)
    kept = jax.tree.map(lambda p, u: p + u != 0, params, moved)
    assert kept['kernel'].astype(float).tolist() == [left]


def test_the_train_state_of_flax_which_passes_no_extra_arguments():
  tx = with_grad(prune(one_shot(1, 0.5), update_rule=update_rules.rigl(9), inner=optax.sgd(0.1)))
  state = TrainState.create(apply_fn=None, params={'kernel': jnp.array([[1.0, 2.0]])}, tx=tx)
  step = jax.jit(lambda state: state.apply_gradients(grads={'kernel': jnp.ones((1, 2))}))
  for _ in range(3):
    state = step(state)
  assert int(jnp.sum(state.params['kernel'] != 0)) == 1
