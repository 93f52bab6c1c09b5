"""Criteria: scores whose largest are kept, in float32 for any dtype of parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import prune_to
from sparsejax.sparsity.parts import criteria

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

PARAM = jnp.array([-2.0, 0.5, 0.0])
GRAD = jnp.array([0.25, -4.0, 9.0])
ALL = {
  f.__name__: f
  for f in (
    *(criteria.magnitude, criteria.saliency, criteria.fisher, criteria.lamp, criteria.random),
    criteria.gradient_magnitude,
  )
}


def test_magnitude_is_the_absolute_value():
  np.testing.assert_array_equal(criteria.magnitude(PARAM), [2.0, 0.5, 0.0])


def test_saliency_is_the_absolute_value_of_weight_times_gradient():
  np.testing.assert_array_equal(criteria.saliency(PARAM, grad=GRAD), [0.5, 2.0, 0.0])


def test_saliency_estimates_the_change_of_loss_from_removing_a_weight():
  """The first-order term of the loss: exact for a loss that is linear in the weight."""

  def loss(w):
    return jnp.dot(w, jnp.array([3.0, -5.0, 2.0]))

  score = criteria.saliency(PARAM, grad=jax.grad(loss)(PARAM))
  change = [abs(loss(PARAM.at[i].set(0.0)) - loss(PARAM)) for i in range(3)]
  np.testing.assert_allclose(score, change, rtol=1e-6)


def test_gradient_magnitude_is_the_absolute_value_of_the_gradient_whatever_the_weight():
  np.testing.assert_array_equal(criteria.gradient_magnitude(PARAM, grad=GRAD), [0.25, 4.0, 9.0])
  np.testing.assert_array_equal(criteria.gradient_magnitude(0 * PARAM, grad=GRAD), [0.25, 4.0, 9.0])


def test_random_depends_on_its_key_alone():
  key = jax.random.key(0)
  scores = criteria.random(PARAM, key=key)
  np.testing.assert_array_equal(scores, criteria.random(-7 * PARAM, key=key))
  assert not np.array_equal(scores, criteria.random(PARAM, key=jax.random.key(1)))
  assert np.all((np.asarray(scores) >= 0) & (np.asarray(scores) < 1))


# Fisher


def test_fisher_by_hand():
  scores = criteria.fisher(PARAM, mean_squared_grad=jnp.array([0.5, 8.0, 9.0]))
  np.testing.assert_array_equal(scores, [1.0, 1.0, 0.0])


def test_fisher_sees_gradients_of_examples_that_cancel():
  """They cancel at the first weight: |p g| scores it 0, Fisher above the second."""
  param = jnp.array([1.0, 1.0])
  of_examples = jnp.array([[1.0, 0.5], [-1.0, 0.5]])
  by_gradient = criteria.saliency(param, grad=of_examples.mean(0))
  by_fisher = criteria.fisher(param, mean_squared_grad=jnp.square(of_examples).mean(0))
  assert by_gradient.tolist() == [0.0, 0.5]
  assert by_fisher.tolist() == [0.5, 0.125]


def test_fisher_is_the_change_of_a_log_likelihood_at_its_optimum():
  """For the mean of a Gaussian, the Fisher information is the curvature: exact on average."""
  rng = np.random.default_rng(0)
  x = rng.normal(2.0, 1.0, 10_000)
  mean = x.mean()
  score = criteria.fisher(
    jnp.float32(mean), mean_squared_grad=jnp.float32(np.mean((x - mean) ** 2))
  )
  change = np.mean(x**2 - (x - mean) ** 2) / 2
  np.testing.assert_allclose(score, change, rtol=0.05)


# LAMP


def lamp_by_definition(param):
  """The paper's double sum: over the weights at or after each in the layer's ascending order."""
  squares = np.square(np.asarray(param, np.float64)).ravel()
  order = np.argsort(squares, kind='stable')
  scores = np.zeros_like(squares)
  for i, index in enumerate(order):
    scores[index] = squares[index] / sum(squares[j] for j in order[i:])
  return scores.reshape(param.shape)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('shape', [(), (1,), (9,), (4, 5), (2, 2, 3, 4)])
def test_lamp_is_the_papers_definition(shape, ties):
  rng = np.random.default_rng(0)
  param = rng.choice([-2.0, 1.0, 2.0], shape) if ties else rng.normal(size=shape)
  param = jnp.asarray(param, jnp.float32)
  scores = criteria.lamp(param)
  np.testing.assert_allclose(scores, lamp_by_definition(param), rtol=1e-5)
  assert int(jnp.sum(scores == 1)) == 1


def test_lamp_by_hand_with_a_tie():
  np.testing.assert_allclose(
    criteria.lamp(jnp.array([1.0, -2.0, 2.0])), [1 / 9, 4 / 8, 1.0], rtol=1e-6
  )


def test_lamp_has_one_1_in_a_layer_of_one_size_and_ranks_within_it_as_magnitude():
  assert int(jnp.sum(criteria.lamp(jnp.full((10, 10), 0.3)) == 1)) == 1
  param = jnp.asarray(np.random.default_rng(0).normal(size=50), jnp.float32)
  np.testing.assert_array_equal(
    np.argsort(criteria.lamp(param)), np.argsort(criteria.magnitude(param))
  )


def test_lamp_scores_zeros_0_and_they_do_not_affect_others():
  assert criteria.lamp(jnp.zeros((2, 3))).tolist() == [[0.0] * 3] * 2
  scores = criteria.lamp(jnp.array([0.0, 1.0, 0.0, -2.0]))
  np.testing.assert_allclose(scores, [0.0, 0.2, 0.0, 1.0], rtol=1e-6)


def test_lamp_does_not_depend_on_a_layer_s_scale():
  param = jnp.asarray(np.random.default_rng(0).normal(size=20), jnp.float32)
  for scale in (1e-30, 1e-25, 1e-4, 1e4, 1e25, 1e30):
    np.testing.assert_allclose(criteria.lamp(scale * param), criteria.lamp(param), rtol=1e-4)


# All criteria


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('name', ALL)
def test_scores_have_the_shape_of_the_leaf_and_float32(name, dtype):
  param = jnp.ones((2, 3), dtype)
  criterion = ALL[name]
  score = criterion(param, key=jax.random.key(0), **dict.fromkeys(criteria.needs(criterion), param))
  assert score.shape == (2, 3)
  assert score.dtype == jnp.float32


def test_a_product_of_bfloat16_is_taken_in_float32():
  x = jnp.array([1.0 + 2**-7], jnp.bfloat16)
  assert criteria.saliency(x, grad=x).item() == (1 + 2**-7) ** 2  # bfloat16 would round it


@pytest.mark.parametrize(
  ('name', 'needed'),
  [
    ('magnitude', ()),
    ('saliency', ('grad',)),
    ('fisher', ('mean_squared_grad',)),
    ('lamp', ()),
    ('random', ()),
    ('gradient_magnitude', ('grad',)),
  ],
)
def test_a_criterion_needs_its_keywords_without_a_default(name, needed):
  assert criteria.needs(ALL[name]) == needed


def test_a_criterion_that_wraps_another_needs_the_same():
  def power(param, *, grad, mean_squared_grad, key=None, exponent=1.0):
    return criteria.saliency(param, grad=grad, key=key) ** exponent

  assert criteria.needs(functools.partial(power, exponent=2.0)) == ('grad', 'mean_squared_grad')
  assert criteria.needs(functools.partial(criteria.magnitude)) == ()
  assert criteria.needs(lambda param, **_: param) == ()
  assert criteria.needs(lambda param, *, grad=None, key: param) == ()
  assert criteria.needs(lambda param, *, path, grad: param) == ('grad',)


# The path


def test_a_criterion_may_know_the_path():
  """Of two kernels with equal weights, the one that the criterion favours keeps all."""
  seen = []

  def favouring(param, *, path, key):
    seen.append((path, key.shape))
    return jnp.abs(param) * (10 if path.startswith('first/') else 1)

  kernel = jnp.arange(1.0, 9.0).reshape(2, 4)
  params = {name: {'kernel': kernel, 'bias': jnp.ones(4)} for name in ('first', 'other')}
  pruned = prune_to(params, sparsity=0.375, criterion=favouring)
  assert bool(jnp.all(pruned['first']['kernel'] != 0))
  assert pruned['other']['kernel'].ravel().tolist() == [0, 0, 0, 0, 0, 0, 7, 8]
  assert seen == [('first/kernel', ()), ('other/kernel', ())]


def test_layers_in_a_stack_have_the_path_of_their_leaf():
  params = {'w': jnp.ones((3, 2, 4))}
  seen = []

  def score(param, *, path):
    seen.append((path, param.shape))
    return param

  prune_to(params, sparsity=0.5, criterion=score, layouts={'w': 'stack in out'})
  assert seen == [('w', (2, 4))]


def test_a_first_argument_named_path_is_the_parameter():
  with_path = functools.partial(lambda param, *, path, power: param, power=2)
  assert criteria.takes(with_path) == ('path',)
  assert criteria.takes(lambda path: path) == ()
