"""Posteriors: KL by layer, which network they stand for, and names that belong to no family."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax import models, posterior
from sparsejax.posterior import FAMILIES
from sparsejax.posterior.families import kl
from sparsejax.sparsity.leaves import kinds

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

ONE = {'kernel': jnp.ones((2, 3)), 'kernel_log_variance': jnp.zeros((2, 3)), 'bias': jnp.ones(3)}


def lenet(name):
  model = models.create('lenet300', width=6, layers=name)
  init = jax.jit(functools.partial(model.init, train=False))
  return init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))['params']


def test_the_kl_is_by_layer_and_by_hand():
  found = posterior.kl_by_layer({'a': {'fc': ONE}, 'plain': {'kernel': jnp.ones((2, 2))}})
  assert set(found) == {'a/fc'}
  assert float(found['a/fc']) == pytest.approx(6 * float(kl.log_uniform_kl(0.0)), rel=1e-5)


@pytest.mark.parametrize('name', FAMILIES)
def test_the_kl_falls_along_its_gradient_and_lies_above_zero(name):
  params = lenet(name)
  before = posterior.kl_divergence(params)
  gradient = jax.grad(posterior.kl_divergence)(params)
  after = posterior.kl_divergence(jax.tree.map(lambda p, g: p - 1e-4 * g, params, gradient))
  assert 0 < float(after) < float(before)


@pytest.mark.parametrize(
  'leaves',
  [
    {'kernel': jnp.ones((2, 2)), 'scale_log_variance': jnp.ones(2)},
    {'kernel': jnp.ones((2, 2)), 'kernel_log_variance': jnp.ones((2, 2)), 'gain': jnp.ones(2)},
    {'kernel_log_variance': jnp.ones((2, 2))},
  ],
)
def test_a_variance_that_no_family_claims_is_an_error(leaves):
  with pytest.raises(ValueError, match=r"'fc' has the leaves .* no family of posteriors"):
    posterior.kl_by_layer({'fc': leaves})


def test_the_log_variances_are_no_kernels():
  report = sparsejax.sparsity_report({'fc': ONE})
  assert report['weights'] == 6
  assert kinds.is_kernel('fc/kernel_log_variance', jnp.ones((2, 2))) is False


@pytest.mark.parametrize(
  ('scale', 'kernel', 'bias'),
  [
    (jnp.array([[2.0], [1e-9]]), [[2.0, 2.0], [0.0, 0.0]], [1.0, 1.0]),  # inputs
    (jnp.array([2.0, 1e-9]), [[2.0, 0.0], [2.0, 0.0]], [2.0, 0.0]),  # outputs, and their biases
  ],
)
def test_a_noisy_group_goes_along_its_axis(scale, kernel, bias):
  layer = {
    'kernel': jnp.ones((2, 2)),
    'kernel_log_variance': jnp.full((2, 2), -9.0),
    'bias': jnp.ones(2),
    'bias_log_variance': jnp.full(2, -9.0),
    'scale_mean': scale,
    'scale_log_variance': jnp.full_like(scale, -9.0),
  }
  deployed = posterior.deploy({'fc': layer}, 0.0)['fc']
  np.testing.assert_allclose(deployed['kernel'], kernel)
  np.testing.assert_allclose(deployed['bias'], bias)
  by_path = posterior.deploy({'fc': layer}, {'fc': 100.0})['fc']
  assert bool(jnp.all(by_path['kernel'] != 0))


def test_moments_are_those_of_the_products():
  """mean mu mu_z; variance mu_z^2 s^2 + s_z^2 mu^2 + s_z^2 s^2."""
  rng = np.random.default_rng(0)
  layer = {
    'kernel': jnp.array([[0.5, -1.0]]),
    'kernel_log_variance': jnp.log(jnp.array([[0.04, 0.09]])),
    'scale_mean': jnp.array([[2.0]]),
    'scale_log_variance': jnp.log(jnp.array([[0.25]])),
  }
  found = posterior.moments({'fc': layer})['fc']['kernel']
  z = rng.normal(2.0, 0.5, (200000, 1))
  products = z * rng.normal([0.5, -1.0], [0.2, 0.3], (200000, 2))
  np.testing.assert_allclose(found.mean[0], products.mean(0), atol=0.01)
  np.testing.assert_allclose(found.variance[0], products.var(0), rtol=0.02)


def test_thresholds_are_for_the_layers_that_there_are():
  with pytest.raises(ValueError, match=r"thresholds for \['fc2'\]: give one for each of"):
    posterior.deploy({'fc': ONE}, {'fc2': 3.0})


class Pair(NamedTuple):
  first: dict
  second: dict


@pytest.mark.parametrize('container', [list, tuple, lambda pair: Pair(*pair)])
def test_layers_in_any_container_are_found_and_deployed(container):
  params = container([{'fc': ONE}, {'kernel': jnp.ones(2)}])
  [found] = posterior.kl_by_layer(params).values()
  assert float(found) == float(posterior.kl_divergence({'fc': ONE}))
  deployed = posterior.deploy(params, 3.0)
  assert type(deployed) is type(params)
  assert set(deployed[0]['fc']) == {'kernel', 'bias'}
  assert deployed[1]['kernel'] is params[1]['kernel']


def test_a_variance_outside_a_layers_dict_is_an_error():
  class Layer(NamedTuple):
    kernel: Any
    kernel_log_variance: Any

  with pytest.raises(ValueError, match=r"'fc/kernel_log_variance' must be in a dict"):
    posterior.kl_divergence({'fc': Layer(jnp.ones((2, 2)), jnp.ones((2, 2)))})


def test_a_layer_is_masked_whole_or_not_at_all():
  params = {'fc': ONE, 'other': ONE}
  tx = optax.masked(sparsejax.add_kl_gradients(10), {'fc': True, 'other': False})
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  moved = {
    name: float(jnp.abs(layer['kernel_log_variance']).sum()) for name, layer in updates.items()
  }
  assert moved['fc'] > 0
  assert moved['other'] == 0
  with pytest.raises(ValueError, match=r"'fc' is masked except for \['kernel_log_variance'\]"):
    posterior.kl_divergence({'fc': ONE | dict.fromkeys(('kernel', 'bias'), optax.MaskedNode())})
