"""`models.shrink` returns a smaller network with the same answers, and says if it trains as before.

The constants and the reasons that keep a unit are worked out by hand.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from sparsejax import models
from sparsejax.compact import plan
from sparsejax.compact.absorbing import NO_BIAS, absorb
from sparsejax.internal.answers import apart
from sparsejax.models.widths import widths_of
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def dead_network(name, width, shape, constant=None):
  """Returns a network whose even filters are zero in every layer but the last, and its variables.

  Args:
    name: the name of the network.
    width: its width.
    shape: the shape of an image.
    constant: the output of BatchNorm for a zero filter, before its ReLU; random by default.
  """
  model, rng = models.create(name, width=width), np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
  )

  def leaf(path, like):
    if path.endswith('kernel'):
      gain = 18 if 'depthwise' in path else 4
      kernel = rng.normal(size=like.shape) * np.sqrt(gain * like.shape[-1] / np.prod(like.shape))
      if 'classifier' not in path and 'depthwise' not in path and 'fc2' not in path:
        kernel[..., ::2] = 0
      return kernel
    around = 1.0 if path.endswith(('var', 'scale')) else 0.0
    values = around + 0.3 * rng.uniform(-1, 1, like.shape)
    if constant is not None and 'bn' in path and path.endswith(('bias', 'mean')):
      values[::2] = constant if path.endswith('bias') else 0.0
    if constant == 0 and path.endswith('conv/bias'):
      values[::2] = 0.0
    return values

  named = tree.named_leaves(shapes)
  found = [np.asarray(leaf(*item), np.float32) for item in named.items()]
  return model, jax.tree.unflatten(jax.tree.structure(shapes), found)


@pytest.mark.parametrize(
  ('name', 'width', 'shape', 'at_most'),
  [
    ('lenet5', 4, (16, 16, 1), 0.4),
    ('resnet20', 4, (8, 8, 3), 0.4),
    ('mobilenet', 4, (8, 8, 3), 0.5),
  ],
)
def test_the_smaller_network_answers_as_the_whole_one(name, width, shape, at_most):
  """And `models.create` builds it from its name and widths."""
  model, variables = dead_network(name, width, shape, constant=-0.2)
  small, fewer = models.shrink(model, variables, shape)
  sizes = [sum(x.size for x in jax.tree.leaves(v)) for v in (fewer, variables)]
  assert sizes[0] < at_most * sizes[1]
  again = models.create(name, width=width, widths=small.widths)
  assert again == small
  images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
  wanted, found = (m.apply(v, images, train=False) for m, v in ((model, variables), (again, fewer)))
  assert np.std(wanted, 0).max() > 1e-3 * np.abs(wanted).max()
  assert apart(found, wanted, 1e-5) is None


def test_the_smaller_network_shrinks_further():
  shape = (2, 2, 1)
  model, variables = dead_network('lenet300', 12, shape)
  small, fewer = models.shrink(model, variables, shape)
  assert dict(small.widths) == {'fc1': 6}
  fewer['params']['fc1']['kernel'] = fewer['params']['fc1']['kernel'].at[:, 0].set(0)
  smaller, fewest = models.shrink(small, fewer, shape)
  assert dict(smaller.widths) == {'fc1': 5}
  images = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
  wanted, found = (m.apply(v, images, train=False) for m, v in ((small, fewer), (smaller, fewest)))
  assert apart(found, wanted, 1e-5) is None


def test_a_constant_at_a_padded_border_keeps_its_unit():
  """A unit is removed only if the ReLU makes its constant zero."""
  shape = (32, 32, 3)
  for constant, width in ((0.3, 4), (-0.3, 2)):
    model, variables = dead_network('vgg16', 4, shape, constant=constant)
    variables['params']['block1_1']['conv']['bias'][:] = 0
    found = models.plan(model, variables, shape)
    assert found.shapes['params/block1_1/conv/kernel'][1][-1] == width
    why = found.pinned.get('params/block1_1/conv/kernel', {}).get(3, {})
    assert why == ({NO_BIAS: 2} if constant > 0 else {})


def two_convolutions(params, x):
  """1x1 convolution, BatchNorm without scale, ReLU, and a 1x1 convolution before a mean."""
  x = jnp.einsum('bhwi,io->bhwo', x, params['a'])
  x = (x - params['mean']) * jax.lax.rsqrt(params['var'] + 0.5)
  x = jnp.einsum('bhwi,io->bhwo', jax.nn.relu(x + params['shift']), params['b'])
  return jnp.sum(x - params['next'], (1, 2)) @ params['c']


@pytest.fixture(autouse=True)
def _ranks():
  with jax.numpy_rank_promotion('allow'):
    yield


def test_an_average_takes_a_constant_and_training_is_told():
  """Channel 0 is relu((0 - 2) / sqrt(3.5 + 0.5) + 3) = 2, which b multiplies by 5 and -1."""
  params = {
    'a': np.array([[0.0, 1.0]], np.float32),
    'b': np.array([[5.0, -1.0], [1.0, 2.0]], np.float32),
    'c': np.ones((2, 2), np.float32),
    'mean': np.array([2.0, 0.0], np.float32),
    'next': np.array([0.5, 0.0], np.float32),
    'shift': np.array([3.0, 0.0], np.float32),
    'var': np.array([3.5, 0.5], np.float32),
  }
  x = np.ones((2, 3, 3, 1), np.float32)
  small, found = absorb(two_convolutions, params, x)
  np.testing.assert_allclose(small['next'], [0.5 - 10, 0 + 2], rtol=1e-6)
  np.testing.assert_allclose(two_convolutions(small, x), two_convolutions(params, x), rtol=1e-5)
  assert not found.trains_on
  assert found.reasons == (
    "'var': BatchNorm gives removed channels constants (1) that it computes from its "
    'running averages, and different ones in training mode',
  )
  assert found.reasons == plan(two_convolutions, params, x).reasons
  params['shift'][0] = 1.0  # relu(-1 + 1) = 0
  assert absorb(two_convolutions, params, x)[1].trains_on


def test_a_bias_without_averages_trains_on():
  """Its gradients are those of the whole network for the kept units."""
  model, variables = dead_network('lenet300', 6, (2, 2, 1))
  assert models.plan(model, variables, (2, 2, 1)).trains_on
  small, fewer = models.shrink(model, variables, (2, 2, 1))
  images = jax.random.normal(jax.random.key(1), (5, 2, 2, 1))

  def gradient(model, variables):
    def loss(params):
      logits = model.apply({'params': params}, images, train=True)
      return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(5)).mean()

    return jax.grad(loss)(variables['params'])

  whole, part = gradient(model, variables), gradient(small, fewer)
  np.testing.assert_allclose(whole['fc1']['kernel'][:, 1::2], part['fc1']['kernel'], atol=1e-6)
  np.testing.assert_allclose(whole['fc3']['bias'], part['fc3']['bias'], atol=1e-6)


def test_what_shares_a_bias_or_has_none_keeps_its_units():
  def network(params, x):
    y = jnp.cos(x @ params['a'])
    return jnp.tanh(y @ params['b'] + params['c']) + jnp.tanh(y @ params['d'] + params['c'])

  rng = np.random.default_rng(0)
  params = {k: rng.normal(size=(3, 3)).astype(np.float32) for k in 'abd'}
  params |= {'c': np.ones(3, np.float32)}
  params['a'][:, 0] = 0
  x = np.ones((2, 3), np.float32)
  small, found = absorb(network, params, x)
  assert small['a'].shape == (3, 3)
  assert found.pinned['b'][0] == {NO_BIAS: 1}
  assert absorb(lambda p, x: jnp.cos(x @ p['a']) @ p['b'], params, x)[1].removed == {}


def test_the_groups_of_a_butterfly_stay_as_they_are():
  model, variables = dead_network('butterfly_resnet18', 4, (8, 8, 3), constant=-0.2)
  small, fewer = models.shrink(model, variables, (8, 8, 3))
  assert widths_of(fewer['params']) == widths_of(variables['params'])
  assert small == model


@pytest.mark.parametrize(
  ('model', 'message'),
  [
    (nn.Dense(3), r"model='Dense' must be a network of models\.create"),
    (models.create('lenet300', layers='sparse_vd'), r"model\.layers=.* must be layers='determin"),
  ],
)
def test_what_it_can_not_make_smaller_is_refused(model, message):
  with pytest.raises(ValueError, match=message):
    models.shrink(model, {'params': {}}, (2, 2, 1))
