"""Divergences against numerical integration, and their gradients against finite differences."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from sparsejax.posterior.families.kl import (
  gamma_kl,
  inverse_gamma_kl,
  log_alpha,
  log_uniform_kl,
  standard_normal_kl,
)

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

CONSTANT = 0.63518  # KL + CONSTANT -> 0 as alpha grows: (Euler's gamma + log 2) / 2


def exact_log_uniform(alpha):
  """0.635 - 0.5 log alpha + E log|e|, e ~ N(1, alpha): the mean by quadrature about e = 0 and 1."""
  deviation = math.sqrt(alpha)

  def integrand(e):
    return math.log(abs(e)) * stats.norm.pdf(e, 1, deviation)

  edges = sorted({0.0, *(1 + deviation * np.linspace(-9, 9, 13))})
  parts = [
    integrate.quad(integrand, a, b, limit=200, epsabs=1e-11)[0]
    for a, b in itertools.pairwise(edges)
  ]
  return CONSTANT - 0.5 * math.log(alpha) + sum(parts)


@pytest.mark.parametrize('value', np.linspace(-8, 8, 17))
def test_log_uniform_is_within_a_hundredth_of_a_nat(value):
  approximation = float(log_uniform_kl(jnp.float32(value)))
  assert approximation == pytest.approx(exact_log_uniform(math.exp(value)), abs=0.01)


def test_log_uniform_has_its_largest_error_where_it_is_known_to():
  assert abs(float(log_uniform_kl(jnp.float32(-3.5))) - exact_log_uniform(math.exp(-3.5))) > 0.008


def test_log_uniform_never_falls_below_zero_and_falls_with_noise():
  values = log_uniform_kl(jnp.linspace(-20, 20, 401))
  assert bool(jnp.all(values >= 0))
  assert bool(jnp.all(jnp.diff(values[:300]) < 0))


def by_quadrature(posterior, prior):
  """KL of two densities over the real line, both given as log-densities of numbers."""

  def integrand(x):
    log_q = posterior(x)
    return math.exp(log_q) * (log_q - prior(x)) if log_q > -700 else 0.0

  return integrand


@pytest.mark.parametrize('mean', [-1.5, 0.0, 2.0])
@pytest.mark.parametrize('variance', [1e-4, 0.3, 4.0])
def test_standard_normal(mean, variance):
  q, p = stats.norm(mean, math.sqrt(variance)), stats.norm()
  low, high = (mean + sign * 12 * math.sqrt(variance) for sign in (-1, 1))
  expected = integrate.quad(by_quadrature(q.logpdf, p.logpdf), low, high, epsabs=1e-10)[0]
  with jax.enable_x64(True):
    found = float(standard_normal_kl(jnp.float64(mean), jnp.log(jnp.float64(variance))))
  assert found == pytest.approx(expected, abs=1e-6)


def log_gamma_density(u, log_scale):
  """Of u = log x, x ~ Gamma(1/2, scale)."""
  return 0.5 * (u - log_scale) - math.exp(u - log_scale) - special.gammaln(0.5)


def log_inverse_gamma_density(u, log_scale):
  """Of u = log x, x ~ InverseGamma(1/2, 1)."""
  del log_scale
  return -0.5 * u - math.exp(-u) - special.gammaln(0.5)


@pytest.mark.parametrize('offset', [-3.0, -1.6931, 0.5])
@pytest.mark.parametrize('variance', [1e-3, 0.5, 2.0])
@pytest.mark.parametrize(
  ('function', 'density', 'log_scale'),
  [
    (gamma_kl, log_gamma_density, 0.0),
    (gamma_kl, log_gamma_density, 2 * math.log(1e-5)),
    (lambda m, v, s: inverse_gamma_kl(m, v), log_inverse_gamma_density, 0.0),
  ],
)
def test_log_normal_forms(function, density, log_scale, variance, offset):
  mean = log_scale + offset
  q = stats.norm(mean, math.sqrt(variance))
  low, high = (mean + sign * 14 * math.sqrt(variance) for sign in (-1, 1))
  integrand = by_quadrature(q.logpdf, lambda u: density(u, log_scale))
  expected = integrate.quad(integrand, low, high, epsabs=1e-10, limit=200)[0]
  with jax.enable_x64(True):
    found = float(function(jnp.float64(mean), jnp.log(jnp.float64(variance)), log_scale))
  assert found == pytest.approx(expected, abs=1e-6)


def test_log_normal_forms_have_their_least_where_it_is_known():
  at_least = [
    (lambda m, v: gamma_kl(m, v, -20.0), -20.0 - 1 - math.log(2)),
    (inverse_gamma_kl, 1 + math.log(2)),
  ]
  for function, mean in at_least:
    with jax.enable_x64(True):
      point = (jnp.float64(mean), jnp.log(jnp.float64(2.0)))
      value, gradients = jax.value_and_grad(function, argnums=(0, 1))(*point)
    assert float(value) == pytest.approx(0.153426, abs=1e-6)
    assert [float(g) for g in gradients] == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(
  'function',
  [
    lambda m, v: log_uniform_kl(log_alpha(m, v)),
    standard_normal_kl,
    lambda m, v: gamma_kl(m, v, -23.0),
    inverse_gamma_kl,
  ],
)
def test_gradients_are_finite_differences(function):
  rng = np.random.default_rng(0)
  means, log_variances = rng.normal(size=20), rng.uniform(-4, 1, size=20)
  with jax.enable_x64(True):
    point = jnp.asarray(means), jnp.asarray(log_variances)
    found = jax.grad(lambda m, v: jnp.sum(function(m, v)), argnums=(0, 1))(*point)
    step = 1e-6
    for which in (0, 1):
      moved = [
        [p + sign * step if i == which else p for i, p in enumerate(point)] for sign in (1, -1)
      ]
      slope = (function(*moved[0]) - function(*moved[1])) / (2 * step)
      np.testing.assert_allclose(found[which], slope, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('mean', [0.0, 1e-30, 1.0, -1e9])
@pytest.mark.parametrize('log_variance', [-80.0, -10.0, 0.0, 80.0])
def test_gradients_are_finite_at_the_edges(mean, log_variance):
  for function in (lambda m, v: log_uniform_kl(log_alpha(m, v)), standard_normal_kl):
    for gradient in jax.grad(function, argnums=(0, 1))(
      jnp.float32(mean), jnp.float32(log_variance)
    ):
      assert bool(jnp.isfinite(gradient))


@pytest.mark.parametrize('mean', [-80.0, -40.0, 0.0, 40.0])
@pytest.mark.parametrize('log_variance', [-80.0, -10.0, 0.0, 4.3])
def test_log_normal_gradients_are_finite_at_the_edges(mean, log_variance):
  for function in (gamma_kl, lambda m, v: inverse_gamma_kl(-m, v)):
    value, gradients = jax.value_and_grad(function, argnums=(0, 1))(
      jnp.float32(mean), jnp.float32(log_variance)
    )
    assert bool(jnp.isfinite(jnp.stack([value, *gradients])).all())
