"""Criteria: scores of which the largest stay, in float32 whatever the parameters are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.sparsity import criteria

PARAM = jnp.array([-2.0, 0.5, 0.0])
GRAD = jnp.array([0.25, -4.0, 9.0])


def test_magnitude_is_the_absolute_value():
  np.testing.assert_array_equal(criteria.magnitude(PARAM), [2.0, 0.5, 0.0])


def test_saliency_is_the_absolute_value_of_weight_times_gradient():
  np.testing.assert_array_equal(criteria.saliency(PARAM, grad=GRAD), [0.5, 2.0, 0.0])


def test_saliency_estimates_what_removing_a_weight_changes():
  """The first-order term of the loss: exact for a loss that is linear in the weight."""

  def loss(w):
    return jnp.dot(w, jnp.array([3.0, -5.0, 2.0]))

  score = criteria.saliency(PARAM, grad=jax.grad(loss)(PARAM))
  change = [abs(loss(PARAM.at[i].set(0.0)) - loss(PARAM)) for i in range(3)]
  np.testing.assert_allclose(score, change, rtol=1e-6)


def test_random_depends_on_its_key_alone():
  key = jax.random.key(0)
  scores = criteria.random(PARAM, key=key)
  np.testing.assert_array_equal(scores, criteria.random(-7 * PARAM, grad=GRAD, key=key))
  assert not np.array_equal(scores, criteria.random(PARAM, key=jax.random.key(1)))
  assert np.all((np.asarray(scores) >= 0) & (np.asarray(scores) < 1))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('criterion', [criteria.magnitude, criteria.saliency, criteria.random])
def test_scores_have_the_shape_of_the_leaf_and_float32(criterion, dtype):
  param = jnp.ones((2, 3), dtype)
  score = criterion(param, grad=param, key=jax.random.key(0))
  assert score.shape == (2, 3)
  assert score.dtype == jnp.float32


def test_a_product_of_bfloat16_is_taken_in_float32():
  x = jnp.array([1.0 + 2**-7], jnp.bfloat16)
  assert criteria.saliency(x, grad=x).item() == (1 + 2**-7) ** 2  # bfloat16 would round it


def test_which_criteria_need_the_gradient():
  assert criteria.needs_grad(criteria.saliency)
  assert not criteria.needs_grad(criteria.magnitude)
  assert not criteria.needs_grad(criteria.random)


def test_a_criterion_made_of_another_needs_what_it_needs():
  def power(param, *, grad, key=None, exponent=1.0):
    return criteria.saliency(param, grad=grad, key=key) ** exponent

  assert criteria.needs_grad(functools.partial(power, exponent=2.0))
  assert not criteria.needs_grad(functools.partial(criteria.magnitude))
  assert not criteria.needs_grad(lambda param, **_: param)
