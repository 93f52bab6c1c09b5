"""The package's own networks, and those of other libraries, with dead channels of every kind."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from test_other_libraries import Equinox

from sparsejax import models
from sparsejax.compact import shrink
from sparsejax.internal.answers import apart
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def deadened(variables, outputs=-1):
  """Zeroes half of the filters, rescales the rest, and draws biases and averages of both signs."""
  rng = np.random.default_rng(0)

  def drawn(path, leaf):
    if leaf.ndim < 2 or max(leaf.shape) == leaf.size:  # Equinox' biases have three axes
      center = 1.0 if path.endswith(('var', 'scale')) else 0.0
      return center + 0.3 * rng.uniform(-1, 1, leaf.shape)
    kernel, axis = rng.normal(size=leaf.shape), outputs % leaf.ndim
    tree_step = 'mix' in path  # half of a butterfly's would leave no path from image to answer
    if leaf.shape[axis] != 10 and 'depthwise' not in path and not tree_step:  # classifier keeps all
      dead = rng.choice(leaf.shape[axis], leaf.shape[axis] // 2, replace=False)
      np.moveaxis(kernel, axis, 0)[dead] = 0
    # ReLU halves the variance, as do dead inputs; of one pixel, a 3x3 window uses a ninth.
    gain = 18 if 'depthwise' in path else 2 if tree_step else 4
    return kernel * np.sqrt(gain * leaf.shape[axis] / kernel.size)

  found = [drawn(*item).astype(np.float32) for item in tree.named_leaves(variables).items()]
  return jax.tree.unflatten(jax.tree.structure(variables), found)


def check_shrunk(function, params, shape, at_most):
  """Checks outputs, for another batch too, whose spread over images is above rounding errors."""
  rng = np.random.default_rng(1)
  small = shrink(function, params, rng.normal(size=(2, *shape)).astype(np.float32))
  sizes = [sum(x.size for x in jax.tree.leaves(p)) for p in (small.params, params)]
  assert sizes[0] < at_most * sizes[1]
  images = rng.normal(size=(3, *shape)).astype(np.float32)
  found = jax.jit(small.function)(small.params, images)
  wanted = jax.jit(function)(params, images)
  spread = np.std(wanted, 0).max()
  assert spread > 1e-3 * np.abs(wanted).max()
  assert apart(found, wanted, 1e-5) is None
  return small


@pytest.mark.parametrize(
  ('name', 'width', 'size', 'channels', 'at_most'),
  [
    ('lenet300', 12, 8, 1, 0.7),
    ('lenet5', 4, 16, 1, 0.7),
    ('vgg16', 4, 32, 3, 0.4),
    ('resnet20', 4, 8, 3, 0.7),
    ('mobilenet', 4, 8, 3, 0.5),
    ('allconv', 4, 8, 3, 0.4),
    ('resnet50', 2, 8, 3, 0.8),
    ('butterfly_resnet18', 4, 8, 3, 1.01),  # its tree fixes all widths
  ],
)
def test_own_networks(name, width, size, channels, at_most):
  model, shape = models.create(name, width=width), (size, size, channels)
  variables = deadened(
    jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
  )
  check_shrunk(lambda v, x: model.apply(v, x, train=False), variables, shape, at_most)


def test_haiku():
  def network(x):
    x = jax.nn.relu(hk.Conv2D(8, 3, stride=2)(x))
    x = hk.Flatten()(hk.MaxPool((2, 2, 1), (2, 2, 1), 'VALID')(x))
    return hk.Linear(10)(jax.nn.relu(hk.Linear(32)(x)))

  model = hk.without_apply_rng(hk.transform(network))
  params = deadened(model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
  check_shrunk(model.apply, params, (8, 8, 1), 0.5)


def test_equinox():
  params, static = eqx.partition(Equinox(jax.random.key(0)), eqx.is_inexact_array)
  small = check_shrunk(
    lambda p, x: jax.vmap(eqx.combine(p, static))(x), deadened(params, 0), (8, 8, 1), 0.5
  )
  assert small.params.conv.weight.shape == (4, 1, 3, 3)
  assert small.params.conv.bias.shape == (4, 1, 1)


class Nnx(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
    self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
    self.hidden = nnx.Linear(128, 32, rngs=rngs)
    self.out = nnx.Linear(32, 10, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.conv(x))).reshape(len(x), -1)
    return self.out(nnx.gelu(self.hidden(x)))


def test_flax_nnx():
  graph, state, rest = nnx.split(Nnx(nnx.Rngs(0)), (nnx.Param, nnx.BatchStat), ...)
  small = check_shrunk(lambda s, x: nnx.merge(graph, s, rest)(x), deadened(state), (8, 8, 1), 0.5)
  assert nnx.to_pure_dict(small.params)['norm']['mean'].shape == (4,)


class Blocks(linen.Module):
  """A dense block, squeeze and excite, groups, GroupNorm and a transposed convolution."""

  @linen.compact
  def __call__(self, x):
    x = linen.relu(linen.Conv(8, (3, 3))(x))
    x = jnp.concatenate([x, linen.relu(linen.Conv(8, (3, 3))(x))], -1)
    weights = linen.Dense(16)(linen.relu(linen.Dense(6)(x.mean((1, 2)))))
    x = x * linen.sigmoid(weights)[:, None, None]
    x = linen.GroupNorm(4)(linen.Conv(16, (3, 3), feature_group_count=4)(x))
    x = linen.relu(linen.ConvTranspose(8, (3, 3), strides=(2, 2))(x))
    return linen.Dense(10)(x.mean((1, 2)))


class Transformer(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.Dense(12)(x.reshape(len(x), 8, 8))
    x = x + linen.MultiHeadDotProductAttention(4)(linen.LayerNorm()(x))
    x = x + linen.Dense(12)(linen.gelu(linen.Dense(32)(linen.LayerNorm()(x))))
    return linen.Dense(10)(x.mean(1))


@pytest.mark.parametrize(('model', 'at_most'), [(Blocks(), 0.95), (Transformer(), 0.9)])
def test_flax_linen(model, at_most):
  shape = (8, 8, 1)
  variables = deadened(model.init(jax.random.key(0), jnp.zeros((1, *shape))))
  for path, leaf in tree.named_leaves(variables).items():
    if path.endswith('out/kernel'):
      leaf[:2] = 0  # two of four heads
  small = check_shrunk(model.apply, variables, shape, at_most)
  if isinstance(model, Transformer):
    attention = small.params['params']['MultiHeadDotProductAttention_0']
    assert attention['query']['kernel'].shape[:2] == (12, 2)
