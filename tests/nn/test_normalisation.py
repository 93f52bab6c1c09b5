"""Batch normalisation with its ReLU: flax's in value and gradient; exact far from zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from sparsejax import nn
from sparsejax.cpu_conv import choice
from sparsejax.nn import normalisation

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

SCALES = [1.5, 0.0, -0.5, 0.1, 2.0]  # of five channels: dead, turned round
BIASES = [0.2, 0.3, -0.4, -3.0, 0.0]


def outcome(x, *, relu, dtype=None):
  """Values, new averages, and the gradients of x and of the parameters."""
  norm = nn.BatchNorm(relu=relu, dtype=dtype, use_running_average=False)
  params = {'scale': jnp.array(SCALES), 'bias': jnp.array(BIASES)}
  stats = norm.init(jax.random.key(0), x)['batch_stats']
  cotangent = jax.random.normal(jax.random.key(1), x.shape, x.dtype)

  def loss(x, params):
    variables = {'params': params, 'batch_stats': stats}
    y, new = norm.apply(variables, x, mutable=['batch_stats'])
    return jnp.sum((y * cotangent).astype(jnp.float32)), (y, new)

  gradients, (y, new) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, params)
  return {'y': y, **new['batch_stats'], 'x': gradients[0], **gradients[1]}


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(4, 6, 7, 5), (3, 1, 1, 5), (16, 5), (2, 3, 4, 2, 5)])
def test_it_equals_the_plain_form(shape, dtype, relu):
  x = (3 * jax.random.normal(jax.random.key(0), shape) + 1).astype(dtype)
  ours = outcome(x, relu=relu, dtype=dtype)
  with choice.plain():
    theirs = outcome(x, relu=relu, dtype=dtype)
  for name, wanted in theirs.items():
    got = ours[name]
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    error = 40 * float(jnp.finfo(got.dtype if name in ('y', 'x') else dtype).eps)
    got, wanted = np.float32(got), np.float32(wanted)
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, rtol=error, atol=error * max(1, largest), err_msg=name)


def in_float64(x, cotangent, *, relu):
  """Values, variance and the gradient of x by the formulas, from the same float32 numbers."""
  x, cotangent = (np.float64(array).reshape(-1, x.shape[-1]) for array in (x, cotangent))
  variance = x.var(0)
  factor = 1 / np.sqrt(variance + 1e-5)
  normal = (x - x.mean(0)) * factor
  y = normal * np.array(SCALES) + np.array(BIASES)
  g = np.where(y > 0, cotangent, 0) if relu else cotangent
  of_x = factor * np.array(SCALES) * (g - g.mean(0) - normal * (g * normal).mean(0))
  return np.maximum(y, 0) if relu else y, variance, of_x


@pytest.mark.parametrize('relu', [False, True])
def test_a_mean_far_from_zero_does_not_swallow_the_variance(relu):
  """At 10^4 neighbouring float32 are 10^-3 apart, and so far may the mean be off."""
  x = 1e4 + jax.random.normal(jax.random.key(0), (32, 16, 16, 5))
  cotangent = jax.random.normal(jax.random.key(1), x.shape)
  leaves = jnp.array(SCALES), jnp.array(BIASES)

  @jax.jit
  def ours(x):
    (y, _, variance), pull = jax.vjp(lambda x: normalisation.normalise(x, *leaves, 1e-5, relu), x)
    return y, variance, pull((cotangent, jnp.zeros(5), jnp.zeros(5)))[0]

  y, variance, of_x = (np.asarray(found).reshape(-1, 5) for found in ours(x))
  exact_y, exact_variance, exact_of_x = in_float64(x, cotangent, relu=relu)
  np.testing.assert_allclose(variance[0], exact_variance, rtol=1e-5)
  np.testing.assert_allclose(y, exact_y, atol=2.5e-3)
  # Where y is within that of zero, its gradient may pass or not.
  sure = (np.abs(exact_y) > 2.5e-3) | (not relu)
  np.testing.assert_allclose(of_x[sure], exact_of_x[sure], atol=5e-3)


def test_moments_and_gradient_are_of_the_whole_batch_over_a_mapped_axis():
  x = jax.random.normal(jax.random.key(0), (4, 8, 3, 3, 5))  # four parts of a batch of 32
  cotangent = jax.random.normal(jax.random.key(1), x.shape)
  leaves = jnp.array(SCALES), jnp.array(BIASES)

  def pulled(x, cotangent, axis_name=None):
    def values(x, *leaves):
      return normalisation.normalise(x, *leaves, 1e-5, True, axis_name)[0]

    y, pull = jax.vjp(values, x, *leaves)
    return y, *pull(cotangent)

  y, of_x, *of_leaves = jax.vmap(lambda *a: pulled(*a, 'parts'), axis_name='parts')(x, cotangent)
  whole = pulled(*(array.reshape(32, 3, 3, 5) for array in (x, cotangent)))
  found = y.reshape(32, 3, 3, 5), of_x.reshape(32, 3, 3, 5), *(leaf.sum(0) for leaf in of_leaves)
  for got, wanted in zip(found, whole, strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_curvature_goes_through_it():
  """Forward over reverse, as a product of the Hessian with a vector is computed."""
  x = jax.random.normal(jax.random.key(0), (6, 5))

  def product(normalised):
    def loss(x):
      return jnp.sum(normalised(x) ** 3)

    return jax.jvp(jax.grad(loss), (x,), (jnp.cos(x),))[1]

  def plain(x):
    y = (x - x.mean(0)[None]) / jnp.sqrt(x.var(0) + 1e-5)[None]
    return linen.relu(y * jnp.array(SCALES)[None] + jnp.array(BIASES)[None])

  def ours(x):
    return normalisation.normalise(x, jnp.array(SCALES), jnp.array(BIASES), 1e-5, True)[0]

  np.testing.assert_allclose(product(ours), product(plain), rtol=1e-3, atol=1e-3)


def test_the_running_averages_are_used_and_kept_in_evaluation():
  norm = nn.BatchNorm(relu=True)
  x = jnp.array([[-2.0], [3.0]])
  variables = norm.init(jax.random.key(0), x, use_running_average=True)
  assert jax.tree.map(jnp.shape, variables) == {
    'params': {'scale': (1,), 'bias': (1,)},
    'batch_stats': {'mean': (1,), 'var': (1,)},
  }
  y = norm.apply(variables, x, use_running_average=True)
  np.testing.assert_allclose(y, [[0.0], [3.0 / np.sqrt(1 + 1e-5)]], rtol=1e-6)


def test_what_else_flax_can_do_is_left_to_flax():
  norm = nn.BatchNorm(use_scale=False, use_running_average=False)
  y, variables = norm.init_with_output(jax.random.key(0), jnp.array([[1.0], [3.0]]))
  assert set(variables['params']) == {'bias'}
  again, _ = norm.apply(variables, jnp.array([[1.0], [3.0]]), mutable=['batch_stats'])
  np.testing.assert_allclose(again, y)
