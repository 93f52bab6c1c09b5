"""Layers of NNX with posteriors: what linen's do, to the bit, and what NNX asks of a module."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sparsejax import add_kl_gradients, nn, posterior
from sparsejax.nn import nnx_layers
from sparsejax.posterior import FAMILIES

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

MAKERS = {
  'dense': (lambda **more: nnx_layers.Linear(5, 3, **more), (2, 5)),
  'conv': (lambda **more: nnx_layers.Conv(2, 3, (3, 3), **more), (2, 4, 4, 2)),
  'strided': (lambda **more: nnx_layers.Conv(2, 3, (3, 3), strides=(2, 2), **more), (2, 5, 5, 2)),
}


def of_linen(family, kind):
  layers = nn.get(family)
  if kind == 'dense':
    return layers.dense(3)
  return layers.conv(3, (3, 3), strides=(2, 2) if kind == 'strided' else (1, 1))


def built(family, kind, **more):
  make, shape = MAKERS[kind]
  layer = make(family=family, rngs=nnx.Rngs(0), **more)
  return layer, jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def leaves_of(layer):
  return {name: leaf[...] for name, leaf in nnx.state(layer, nnx.Param).items()}


@pytest.mark.parametrize('kind', MAKERS)
@pytest.mark.parametrize('family', FAMILIES)
def test_leaves_and_means_are_those_of_linen(family, kind):
  layer, x = built(family, kind)
  linen = of_linen(family, kind)
  theirs = linen.init(jax.random.key(0), x)['params']
  ours = leaves_of(layer)
  assert {n: p.shape for n, p in ours.items()} == {n: p.shape for n, p in theirs.items()}
  layer.eval()
  np.testing.assert_array_equal(layer(x), linen.apply({'params': ours}, x))


@pytest.mark.parametrize('family', FAMILIES)
def test_it_samples_in_training_about_its_means(family):
  layer, x = built(family, 'dense', log_variance=-4.0)
  samples = np.stack([layer(x) for _ in range(200)])
  assert (samples[0] != samples[1]).any()
  layer.eval()
  error = np.abs(samples.mean(0) - layer(x))
  assert (error < 5 * samples.std(0) / np.sqrt(200) + 1e-3).all()
  layer.train()
  assert (np.asarray(layer(x)) != samples[-1]).any()


def _hidden(rngs):
  return nnx_layers.Linear(5, 4, family='sparse_vd', rngs=rngs)


def test_posterior_and_the_chain_take_its_parameters_as_they_are():
  class Network(nnx.Module):
    def __init__(self, rngs):
      self.fc, self.head = _hidden(rngs), nnx.Linear(4, 2, rngs=rngs)

  model = Network(nnx.Rngs(0))
  params = nnx.state(model, nnx.Param)
  assert list(posterior.kl_by_layer(params)) == ['fc']
  tx = add_kl_gradients(examples=10)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  expected = jax.grad(lambda leaves: posterior.kl_divergence({'fc': leaves}))(leaves_of(model.fc))
  for name, gradient in expected.items():
    np.testing.assert_allclose(updates['fc'][name][...], gradient / 10, rtol=1e-6)
  assert not np.any(updates['head']['kernel'][...])


def test_a_step_under_jit_moves_the_stream_of_noise_on():
  layer, x = built('sparse_vd', 'dense')
  optimizer = nnx.Optimizer(layer, optax.sgd(0.1), wrt=nnx.Param)

  @nnx.jit
  def step(layer, optimizer):
    loss, grad = nnx.value_and_grad(lambda layer: jnp.sum(layer(x) ** 2))(layer)
    optimizer.update(layer, grad)
    return loss

  before = int(layer.noise.count[...])
  assert step(layer, optimizer) > step(layer, optimizer)
  assert int(layer.noise.count[...]) == before + 2


def test_without_a_bias_and_with_groups_elsewhere():
  layer, x = built('group_horseshoe', 'dense', use_bias=False, groups='outputs')
  leaves = leaves_of(layer)
  assert 'bias' not in leaves
  assert leaves['alpha_mean'].shape == (3,)
  assert layer(x).shape == (2, 3)


ROWS = {'family': 'group_horseshoe', 'groups': 'rows'}
INPUTS = ROWS | {'groups': 'inputs'}


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda r: nnx_layers.Linear(2, 3, family='sparse_v', rngs=r), "did you mean 'sparse_vd'"),
    (lambda r: nnx_layers.Linear(2, 3, **ROWS, rngs=r), "groups='rows' must be inputs"),
    (
      lambda r: nnx_layers.Conv(4, 4, (3, 3), feature_group_count=4, **INPUTS, rngs=r),
      "groups='inputs' must be 'outputs' for a convolution in 4 parts",
    ),
  ],
)
def test_what_a_layer_can_not_be_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make(nnx.Rngs(0))
