"""Layers: how they start, dropout's rate, and the family's interface."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from sparsejax import nn

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@pytest.mark.parametrize(
  ('layer', 'image', 'kernel', 'bound'),
  [
    (nn.get('deterministic').dense(50), (1, 400), (400, 50), 0.05),
    (nn.get('deterministic').conv(64, (5, 5)), (1, 6, 6, 16), (5, 5, 16, 64), 0.05),
    (
      nn.get('deterministic').conv(64, (5, 5), feature_group_count=4),
      (1, 6, 6, 64),
      (5, 5, 16, 64),
      0.05,
    ),
  ],
)
def test_weights_and_biases_start_uniform_in_the_inverse_root_of_fan_in(
  layer, image, kernel, bound
):
  params = layer.init(jax.random.key(0), jnp.ones(image), train=False)['params']
  assert params['kernel'].shape == kernel
  assert params['bias'].shape == kernel[-1:]
  for leaf in params.values():
    assert leaf.dtype == jnp.float32
    assert float(jnp.abs(leaf).max()) <= bound
    assert float(jnp.abs(leaf).max()) > 0.9 * bound
    np.testing.assert_allclose(leaf.std(), bound / np.sqrt(3), rtol=0.2)


def test_dense_is_a_product_and_a_bias():
  params = {'kernel': jnp.array([[1.0, 2.0], [3.0, 4.0]]), 'bias': jnp.array([0.5, -0.5])}
  dense = nn.get('deterministic').dense(2)
  y = dense.apply({'params': params}, jnp.array([[1.0, 1.0], [0.0, 2.0]]), train=True)
  np.testing.assert_array_equal(y, [[4.5, 5.5], [6.5, 7.5]])


def test_bfloat16_is_for_computing_only():
  conv = nn.get('deterministic').conv(4, (3, 3), dtype=jnp.bfloat16)
  variables = conv.init(jax.random.key(0), jnp.ones((1, 4, 4, 2)), train=False)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
  assert conv.apply(variables, jnp.ones((1, 4, 4, 2)), train=False).dtype == jnp.bfloat16


def test_an_unknown_family_names_the_nearest():
  with pytest.raises(ValueError, match="did you mean 'deterministic'"):
    nn.get('determinstic')


def drop(rate, kernel, train=True):
  x = jnp.ones((100, 100))
  return nn.Dropout(rate).apply({}, x, kernel, train=train, rngs={'dropout': jax.random.key(0)})


@pytest.mark.parametrize(('zeros', 'rate'), [(0, 0.5), (75, 0.25), (84, 0.2), (100, 0.0)])
def test_dropout_falls_with_the_root_of_the_share_of_weights_left(zeros, rate):
  kernel = jnp.where(jnp.arange(100) < zeros, 0.0, 1.0).reshape(10, 10)
  y = drop(0.5, kernel)
  assert float(jnp.mean(y == 0)) == pytest.approx(rate, abs=0.015)  # 3 sd of 10,000 draws
  np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_without_a_kernel_is_ordinary_dropout():
  np.testing.assert_array_equal(drop(0.3, None), drop(0.3, jnp.ones((2, 2))))


def test_dropout_does_nothing_in_evaluation_and_computes_nothing_at_rate_zero():
  np.testing.assert_array_equal(drop(0.5, None, train=False), np.ones((100, 100)))
  x = jnp.ones((2, 3))
  traced = jax.make_jaxpr(lambda x: nn.Dropout().apply({}, x, x, train=True))(x)  # no rng
  assert not traced.eqns


def test_kernel_of_a_nested_layer():
  class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
      layer = nn.get('deterministic').dense(2, name='fc')
      y = layer(x, train=False)
      assert nn.kernel_of(self, 'fc') is nn.kernel_of(layer)
      return y, nn.kernel_of(layer)

  (_, kernel), variables = Net().init_with_output(jax.random.key(0), jnp.ones((1, 3)))
  np.testing.assert_array_equal(kernel, variables['params']['fc']['kernel'])


def test_batch_norm_constants():
  norm = nn.BatchNorm(use_running_average=False)
  x = jnp.array([[1.0], [3.0]])
  y, new = norm.init_with_output(jax.random.key(0), x)
  np.testing.assert_allclose(y, [[-1 / np.sqrt(1 + 1e-5)], [1 / np.sqrt(1 + 1e-5)]], rtol=1e-6)
  _, new = norm.apply(new, x, mutable=['batch_stats'])
  np.testing.assert_allclose(new['batch_stats']['mean'], [0.2], rtol=1e-6)  # 0.9 * 0 + 0.1 * 2
  np.testing.assert_allclose(new['batch_stats']['var'], [1.0], rtol=1e-6)  # 0.9 * 1 + 0.1 * 1
