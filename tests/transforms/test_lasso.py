"""Proximal steps solve the Lasso and the group lasso, after and around optimizers.

The solutions are compared with scikit-learn's, and with a block coordinate descent written here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq
from sklearn.linear_model import Lasso

from sparsejax import adam_metric, amsgrad_metric, proximal_group_l1, proximal_l1, rms_metric

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@functools.cache
def regression():
  """60 examples of 12 inputs, correlated and of different sizes; five of them matter."""
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(60, 12)) @ (np.eye(12) + 0.2 * rng.normal(size=(12, 12)))
  weights = np.array([1.5, -2.0, 0.8, -0.5, 0.3] + [0.0] * 7)
  return inputs, inputs @ weights + 0.3 * rng.normal(size=60)


def minimise(make, strengths, shape=(12, 1), steps=3000):
  """The kernels after some steps of full-batch training, with make(strength) for each strength.

  All at once, under vmap, in one compiled loop: the strength is a number that is being traced.
  """
  inputs, outputs = (jnp.asarray(a, jnp.float32) for a in regression())
  start = {'kernel': jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)}

  def loss(params):
    return jnp.mean((inputs @ params['kernel'].reshape(12) - outputs) ** 2) / 2

  def run(strength):
    tx = make(strength)

    def step(_, carried):
      params, state = carried
      updates, state = tx.update(jax.grad(loss)(params), state, params)
      return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, steps, step, (start, tx.init(start)))[0]['kernel']

  return np.asarray(jax.jit(jax.vmap(run))(jnp.array(strengths)), np.float64)


def lasso(strength):
  model = Lasso(alpha=strength, fit_intercept=False, tol=1e-10, max_iter=100_000)
  return model.fit(*regression()).coef_


def assert_same(found, wanted):
  np.testing.assert_array_equal(found == 0, wanted == 0)
  np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


RATE = 0.03
BEHIND = {
  'sgd': (optax.sgd(0.1), 0.1, 0.0),
  'heavy_ball': (optax.sgd(RATE, momentum=0.9), RATE, 0.9),
  'nesterov': (optax.sgd(RATE, momentum=0.9, nesterov=True), RATE, 0.9),
}
AROUND = {
  'adam': (optax.adam(0.005), 0.0, None),
  'adam_of_its_own': (
    optax.adam(0.005, b1=0.8, b2=0.99, eps=1e-3, eps_root=1e-6),
    0.0,
    adam_metric(b2=0.99, eps=1e-3, eps_root=1e-6),
  ),
  'amsgrad': (optax.amsgrad(0.005, eps=1e-3), 0.0, amsgrad_metric(eps=1e-3)),
  'rmsprop': (optax.rmsprop(0.005), 0.0, None),
  'rmsprop_momentum': (
    optax.rmsprop(0.0005, eps=0.01, eps_in_sqrt=False, momentum=0.9),
    0.9,
    rms_metric(eps=0.01, eps_in_sqrt=False),
  ),
}
RATES = {name: 0.0005 if name == 'rmsprop_momentum' else 0.005 for name in AROUND}


@pytest.mark.parametrize('name', BEHIND)
def test_behind_gradient_descent_it_solves_the_lasso(name):
  optimizer, rate, momentum = BEHIND[name]
  strengths = (0.01, 0.1, 0.5)
  kernels = minimise(lambda s: optax.chain(optimizer, proximal_l1(s, rate, momentum)), strengths)
  for kernel, strength in zip(kernels, strengths, strict=True):
    assert_same(kernel.ravel(), lasso(strength))


@pytest.mark.parametrize('name', AROUND)
def test_around_an_adaptive_optimizer_it_solves_the_lasso(name):
  optimizer, momentum, metric = AROUND[name]
  make = functools.partial(
    proximal_l1, learning_rate=RATES[name], momentum=momentum, inner=optimizer, metric=metric
  )
  strengths = (0.05, 0.5, 1.0)
  for kernel, strength in zip(minimise(make, strengths, steps=8000), strengths, strict=True):
    assert_same(kernel.ravel(), lasso(strength))


def test_a_threshold_that_forgets_the_momentum_solves_it_at_a_tenth_of_the_strength():
  optimizer = optax.sgd(RATE, momentum=0.9)
  [found] = minimise(lambda s: optax.chain(optimizer, proximal_l1(s, RATE)), [0.5])
  assert_same(found.ravel(), lasso(0.05))
  assert (lasso(0.5) == 0).sum() > (found == 0).sum()


def test_behind_adam_it_solves_no_lasso():
  """Why an adaptive optimizer goes inside: no one threshold is right for all its parameters."""
  optimizer = optax.adam(0.005)
  make = lambda s: optax.chain(optimizer, proximal_l1(s, 0.005))  # noqa: E731
  [found] = minimise(make, [0.1], steps=8000)
  assert np.abs(found.ravel() - lasso(0.1)).max() > 0.01


def test_both_rates_may_be_schedules():
  """A strength that falls to 0.1 and a learning rate that rises and falls."""
  rate = optax.warmup_cosine_decay_schedule(0.0, 0.05, 100, 4000, 0.01)

  def make(end):
    strength = optax.linear_schedule(1.0, end, 1000)
    return optax.chain(optax.sgd(rate, momentum=0.9), proximal_l1(strength, rate, 0.9))

  [found] = minimise(make, [0.1], steps=4000)
  assert_same(found.ravel(), lasso(0.1))


@functools.cache
def group_lasso(strength, weight, size=2):
  """The columns of a (size, 12 / size) kernel, by block coordinate descent in float64.

  A block alone: (A + k / r I) x = b with |x| = r, or zero where |b| <= k.
  """
  inputs, outputs = regression()
  kernel = np.zeros((size, 12 // size))
  columns = inputs.reshape(60, size, 12 // size)
  bound = strength * (size**0.5 if weight == 'sqrt_size' else 1.0)
  for _ in range(150):
    for g in range(12 // size):
      block = columns[:, :, g]
      rest = outputs - inputs @ kernel.ravel() + block @ kernel[:, g]
      values, vectors = np.linalg.eigh(block.T @ block / 60)
      pull = vectors.T @ (block.T @ rest / 60)
      kernel[:, g] = 0.0
      if np.linalg.norm(pull) > bound:
        equation = functools.partial(
          lambda r, pull, values: np.sum((pull / (values * r + bound)) ** 2) - 1,
          pull=pull,
          values=values,
        )
        length = brentq(equation, 0.0, 100.0, xtol=1e-14)
        kernel[:, g] = vectors @ (pull * length / (values * length + bound))
  return kernel


STRENGTHS = (0.05, 0.2, 1.0)


@pytest.mark.parametrize('weight', ['sqrt_size', 'one'])
@pytest.mark.parametrize('name', BEHIND)
def test_behind_gradient_descent_the_group_form_solves_the_group_lasso(name, weight):
  optimizer, rate, momentum = BEHIND[name]

  def make(strength):
    return optax.chain(optimizer, proximal_group_l1(strength, rate, momentum, group_weight=weight))

  for kernel, strength in zip(minimise(make, STRENGTHS, (2, 6)), STRENGTHS, strict=True):
    assert_same(kernel, group_lasso(strength, weight))


@pytest.mark.parametrize('weight', ['sqrt_size', 'one'])
@pytest.mark.parametrize('name', ['adam', 'rmsprop_momentum'])
def test_around_an_adaptive_optimizer_it_solves_the_group_lasso(name, weight):
  optimizer, momentum, metric = AROUND[name]
  make = functools.partial(
    proximal_group_l1,
    learning_rate=RATES[name],
    momentum=momentum,
    inner=optimizer,
    metric=metric,
    group_weight=weight,
  )
  for kernel, strength in zip(minimise(make, STRENGTHS, (2, 6), 8000), STRENGTHS, strict=True):
    assert_same(kernel, group_lasso(strength, weight))


def test_the_strengths_of_these_tests_make_some_zeros_and_not_all():
  counts = [int((lasso(strength) == 0).sum()) for strength in (0.01, 0.1, 0.5)]
  assert counts == sorted(counts)
  assert 0 < counts[1] < counts[2] < 12
  counts = [int((group_lasso(strength, 'sqrt_size') == 0).sum()) for strength in STRENGTHS]
  assert 0 < counts[0] < counts[1] < counts[2] < 12
