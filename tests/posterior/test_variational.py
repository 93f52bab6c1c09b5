"""Variational layers: outputs have the moments of sampled weights, and gradients are finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from sparsejax import models, nn, posterior
from sparsejax.nn import variational
from sparsejax.posterior import FAMILIES, Moments
from sparsejax.posterior.families import horseshoe, sparse_vd
from sparsejax.posterior.families.family import VARIANCE, broadcast_groups

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

NAMES = tuple(FAMILIES)
SAMPLES = 2000

# (maker of the layer, images): dense, strided, padded, depthwise.
MAPS = {
  'dense': ('dense', (3,), {}, (2, 5)),
  'padded': ('conv', (3, (3, 3)), {}, (2, 4, 4, 2)),
  'strided': ('conv', (3, (3, 3)), {'strides': (2, 2), 'padding': ((0, 1), (0, 1))}, (2, 5, 5, 2)),
  'depthwise': ('conv', (4, (3, 3)), {'feature_group_count': 4}, (2, 4, 4, 4)),
}


def built(family, kind, **changes):
  which, arguments, keywords, shape = MAPS[kind]
  layer = getattr(family, which)(*arguments, **keywords, **changes)
  x = jax.random.normal(jax.random.key(5), shape)
  params = layer.init(jax.random.key(1), x, train=False)['params']
  rng = np.random.default_rng(0)
  # Noise as large as the means, or it would not be seen.
  noisy = {
    name: jnp.asarray(rng.uniform(-2, 0, leaf.shape), jnp.float32)
    if name.endswith(VARIANCE)
    else leaf
    for name, leaf in params.items()
  }
  if 'alpha_mean' in noisy:  # a scale whose fourth moment SAMPLES can tell
    noisy |= {n: leaf - 2 for n, leaf in noisy.items() if n.endswith(VARIANCE)}
  return layer, noisy, x


def explicit(layer, family, params, x, key):
  """One draw of the outputs: weights and scales drawn for this example alone, and applied."""
  keys = iter(jax.random.split(key, 8))

  def normal(mean, variance):
    return mean + jnp.sqrt(variance) * jax.random.normal(next(keys), mean.shape)

  leaves = dict(params)
  if family == 'sparse_vd':
    drawn = {'kernel': normal(leaves['kernel'], sparse_vd.variance(leaves))}
    if 'bias' in leaves:
      drawn['bias'] = leaves['bias']
  else:
    drawn = {
      name: normal(leaves[name], jnp.exp(leaves[name + VARIANCE]))
      for name in ('kernel', 'bias')
      if name in leaves
    }
    if family == 'group_normal_jeffreys':
      scale = normal(leaves['scale_mean'], jnp.exp(leaves['scale_log_variance']))
    else:
      log_scale = Moments(*horseshoe.log_scale(leaves))
      scale = jnp.exp(normal(*log_scale))
    drawn['kernel'] = drawn['kernel'] * broadcast_groups(scale, drawn['kernel'])
    if scale.ndim == 1 and 'bias' in drawn:
      drawn['bias'] = drawn['bias'] * scale
  return deterministic_like(layer).apply({'params': drawn}, x, train=False)


def deterministic_like(layer):
  given = {'features': layer.features, 'use_bias': layer.use_bias}
  family = nn.get('deterministic')
  if isinstance(layer, variational.Dense):
    return family.dense(**given)
  names = ('kernel_size', 'strides', 'padding', 'feature_group_count')
  return family.conv(**given, **{name: getattr(layer, name) for name in names})


UNMASKED = nn.of(FAMILIES['sparse_vd'], training_mask=False)
DENSE_OUTPUTS = [nn.of(FAMILIES[name], dense_groups='outputs') for name in NAMES[1:]]


@pytest.mark.parametrize(
  ('name', 'family', 'kind'),
  [
    *((NAMES[0], UNMASKED, kind) for kind in MAPS),
    *((name, nn.get(name), kind) for name in NAMES[1:] for kind in MAPS),
    *((name, family, 'dense') for name, family in zip(NAMES[1:], DENSE_OUTPUTS, strict=True)),
  ],
)
def test_outputs_have_the_moments_of_explicit_sampling(name, family, kind):
  layer, params, x = built(family, kind)

  @jax.jit
  @functools.partial(jax.vmap)
  def local(key):
    return layer.apply({'params': params}, x, train=True, rngs={'noise': key})

  @jax.jit
  @jax.vmap
  def direct(key):
    # A draw for each example, as training has them.
    one = functools.partial(explicit, layer, name, params)
    parts = [one(x[i : i + 1], jax.random.fold_in(key, i)) for i in range(len(x))]
    return jnp.concatenate(parts)

  keys = jax.random.split(jax.random.key(2), SAMPLES)
  ours, theirs = np.asarray(local(keys)), np.asarray(direct(keys))
  expected = theirs.mean(0)
  deviation = theirs.std(0)
  # Of means by their standard errors, of standard deviations by theirs: about 1 / sqrt(2 n), more
  # with the heavy tails that a scale makes.
  assert np.all(np.abs(ours.mean(0) - expected) < 5 * np.sqrt(2 / SAMPLES) * deviation)
  np.testing.assert_allclose(ours.std(0), deviation, rtol=0.15)


@pytest.mark.parametrize('name', NAMES)
def test_evaluation_is_the_network_of_the_posterior_means(name):
  for kind in MAPS:
    layer, params, x = built(nn.get(name), kind)
    deployed = posterior.deploy({'layer': params}, 1e9)['layer']
    expected = deterministic_like(layer).apply({'params': deployed}, x, train=False)
    found = layer.apply({'params': params}, x, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_will_go_is_noise_alone_in_training():
  layer = nn.get('sparse_vd').dense(1, use_bias=False)
  params = {'kernel': jnp.ones((2, 1)), 'kernel_log_variance': jnp.array([[4.0], [-30.0]])}
  x = jnp.ones((20000, 2))
  y = layer.apply({'params': params}, x, train=True, rngs={'noise': jax.random.key(0)})
  assert float(y.mean()) == pytest.approx(1.0, abs=0.2)  # and not 2: the first has log alpha 4
  assert float(y.std()) == pytest.approx(np.exp(2), rel=0.05)


def family_of(name):
  """Without a mask in training, which has no gradient."""
  return UNMASKED if name == 'sparse_vd' else nn.get(name)


@pytest.mark.parametrize('kind', MAPS)
@pytest.mark.parametrize('name', NAMES)
def test_gradients_under_fixed_noise_are_finite_differences(name, kind):
  layer, params, x = built(family_of(name), kind)
  # Far enough from 0 for no step to cross the bound of log alpha, where the slope jumps.
  params['kernel'] += jnp.where(params['kernel'] < 0, -0.3, 0.3)
  rngs = {'noise': jax.random.key(3)}

  def loss(params):
    return jnp.mean(jnp.square(layer.apply({'params': params}, x, train=True, rngs=rngs)))

  check_grads(jax.jit(loss), (params,), order=1, modes=['rev'], atol=1e-2, rtol=1e-2, eps=1e-2)


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_draws_what_float32_does(name):
  """To the digits that it has, from the same noise."""
  outputs = []
  for dtype in (jnp.float32, jnp.bfloat16):
    layer, params, x = built(family_of(name), 'padded', dtype=dtype)
    rngs = {'noise': jax.random.key(3)}
    outputs.append(layer.apply({'params': params}, x, train=True, rngs=rngs))
  assert outputs[1].dtype == jnp.bfloat16
  np.testing.assert_allclose(outputs[0], outputs[1].astype(jnp.float32), rtol=0.05, atol=0.1)


@pytest.mark.parametrize('variance', [-1e4, -30.0, 0.0, 8.0])
@pytest.mark.parametrize('mean', [0.0, 1.0])
@pytest.mark.parametrize('name', NAMES)
def test_gradients_are_finite_at_every_bound(name, variance, mean):
  for kind in ('dense', 'padded'):
    layer, params, x = built(nn.get(name), kind)
    edge = {
      leaf: jnp.full_like(value, variance if leaf.endswith(VARIANCE) else mean)
      for leaf, value in params.items()
    }
    if name == 'group_horseshoe':
      edge |= {leaf: params[leaf] for leaf in ('s_a_mean', 's_b_mean')}
      edge |= {
        leaf: jnp.clip(value, -30, 1)
        for leaf, value in edge.items()
        if leaf not in ('kernel', 'bias')
      }
      edge |= {leaf: params[leaf] for leaf in ('s_a_mean', 's_b_mean')}

    def loss(params, layer=layer, x=x):
      rngs = {'noise': jax.random.key(0)}
      outputs = [
        layer.apply({'params': params}, inputs, train=True, rngs=rngs)
        for inputs in (x, jnp.zeros_like(x))
      ]
      return sum(map(jnp.sum, outputs))

    for leaf, gradient in jax.grad(loss)(edge).items():
      assert bool(jnp.all(jnp.isfinite(gradient))), leaf
    if variance > -100:
      for leaf, gradient in jax.grad(posterior.kl_divergence)({'layer': edge})['layer'].items():
        assert bool(jnp.all(jnp.isfinite(gradient))), leaf


def test_no_weight_is_stuck_below_the_lower_bound_of_log_alpha():
  # At log alpha -20 the slope is that of -0.5 log alpha. Above the upper bound there is none.
  layer = {'kernel': jnp.ones(2), 'kernel_log_variance': jnp.array([-20.0, 9.0])}
  slope = jax.grad(posterior.kl_divergence)({'layer': layer})['layer']['kernel_log_variance']
  np.testing.assert_allclose(slope, [-0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('model', ['lenet5', 'resnet20', 'mobilenet'])
def test_every_network_can_be_built_of_every_family(name, model):
  network = models.create(model, width=8, layers=name)
  shape = (28, 28, 1) if model == 'lenet5' else (32, 32, 3)
  images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
  init = functools.partial(network.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), images)
  plain = jax.eval_shape(
    functools.partial(models.create(model, width=8).init, train=False), jax.random.key(0), images
  )
  deployed = jax.eval_shape(lambda p: posterior.deploy(p, 3.0), variables['params'])
  shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (deployed, plain['params'])]
  assert shapes[0] == shapes[1]


def test_the_horseshoes_scale_starts_at_one():
  layer = nn.get('group_horseshoe').dense(4)
  params = layer.init(jax.random.key(0), jnp.ones((1, 3)), train=False)['params']
  log_scale = horseshoe.log_scale(params)
  np.testing.assert_allclose(log_scale.mean, 0, atol=1e-5)
  assert float(log_scale.variance.max()) < 1e-3


HORSESHOE = FAMILIES['group_horseshoe']


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: nn.get('horseshoe'), "did you mean 'group_horseshoe'"),
    (lambda: nn.of(HORSESHOE, conv_groups='all'), "groups='all' must be"),
    (
      lambda: built(nn.of(HORSESHOE, conv_groups='inputs'), 'depthwise'),
      "groups='inputs' must be 'outputs' for a convolution in 4 parts",
    ),
  ],
)
def test_what_can_not_be_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
