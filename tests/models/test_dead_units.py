"""Dead units: removing them changes no answer, and none that could be removed stays.

Networks with parts that subtract are tested by hand as well: they answer as before, or are refused.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sparsejax import models
from sparsejax.models.dead_units import architecture, remove_dead
from sparsejax.nn import BatchNorm, deterministic
from sparsejax.sparsity.leaves.tree import named_leaves

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

NETWORKS = 'lenet5', 'resnet20', 'mobilenet'


def halved(name, *, constants=False, share=0.5):
  """A network that has lost half of the units of every layer but the last, bias and all."""
  model = models.create(name, width=6)
  shape = (28, 28, 1) if 'lenet' in name else (32, 32, 3)
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
  )

  def leaf(path, like):
    names = [str(key.key) for key in path]
    values = random.uniform(0.1, 1.0, like.shape)
    if names[-1] == 'kernel':
      values = random.choice([-1, 1], like.shape) * values / np.sqrt(np.prod(like.shape[:-1]))
      is_last = names[-2] in ('classifier', 'fc2')
      values *= 1.0 if is_last else random.random(like.shape[-1]) < share
    if names[-1] in ('bias', 'mean'):
      values *= constants and 'bn' in names[-2]
    return jnp.asarray(values, jnp.float32)

  return model, jax.tree_util.tree_map_with_path(leaf, shapes), shape


def jitted(model, shape, **options):
  return jax.jit(lambda variables: remove_dead(model, variables, shape, check=False, **options))


def active(variables):
  return sum(int(jnp.sum(leaf != 0)) for leaf in jax.tree.leaves(variables['params']))


@pytest.mark.parametrize('name', NETWORKS)
def test_no_answer_changes_and_once_is_enough(name):
  model, variables, shape = halved(name)
  remove = jitted(model, shape)
  clean = remove(variables)
  images = jax.random.normal(jax.random.key(1), (3, *shape))
  answers = [model.apply(v, images, train=False) for v in (variables, clean)]
  np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)
  assert active(clean) < active(variables)
  assert active(remove(clean)) == active(clean)
  # The units that can be cut out are all zero; in a residual network that is not all that goes.
  plan = models.plan(model, variables, shape)
  for path, axes in plan.removed.items():
    if path.startswith('params'):
      for axis, indices in axes.items():
        assert not jnp.take(named_leaves(clean)[path], jnp.array(indices), axis).any()
  assert (active(plan.slice(variables)) == active(clean)) == (name != 'resnet20')


def test_batch_norm_leaves_no_constant_where_its_input_is_removed():
  """The answers are those of the network with the BatchNorm of every dead output masked as well."""
  model, variables, shape = halved('resnet20', constants=True)
  clean = jitted(model, shape, drop_constants=True)(variables)
  named = named_leaves(variables['params'])
  for path, kernel in named.items():
    norm = path.replace('conv', 'bn').replace('shortcut/', 'shortcut_bn/')
    if norm != path:
      dead = ~jnp.any(kernel != 0, tuple(range(kernel.ndim - 1)))
      for part in ('scale', 'bias'):
        there = norm.replace('kernel', part)
        named[there] = jnp.where(dead, 0, named[there])
  masked = jax.tree.unflatten(jax.tree.structure(variables['params']), list(named.values()))
  images = jax.random.normal(jax.random.key(1), (3, *shape))
  answers = [
    model.apply({**variables, 'params': params}, images, train=False)
    for params in (masked, clean['params'], variables['params'])
  ]
  np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)
  assert float(jnp.abs(answers[0] - answers[2]).max()) > 1e-3


class Normed(nn.Module):
  @nn.compact
  def __call__(self, images, *, train):
    x = deterministic.Conv(2, (1, 1), use_bias=False, name='conv')(images)
    x = BatchNorm(relu=True, name='bn')(x, use_running_average=not train)
    return deterministic.Dense(1, name='fc')(x.mean((1, 2)))


def test_a_constant_of_batch_norm_stays_unless_it_is_to_go():
  """Both outputs of the convolution are zero: of -0.5 the ReLU leaves nothing, 0.25 is read."""
  bn = {'scale': jnp.ones(2), 'bias': jnp.array([-0.5, 0.25])}
  fc = {'kernel': jnp.array([[2.0], [4.0]]), 'bias': jnp.array([3.0])}
  params = {'conv': {'kernel': jnp.zeros((1, 1, 1, 2))}, 'bn': bn, 'fc': fc}
  stats = {'bn': {'mean': jnp.zeros(2), 'var': jnp.ones(2)}}
  variables = {'params': params, 'batch_stats': stats}

  def left(**options):
    clean = remove_dead(Normed(), variables, (1, 1, 1), **options)
    answer = Normed().apply(clean, jnp.ones((1, 1, 1, 1)), train=False).item()
    return answer, clean['params']['bn']['bias'].tolist(), clean['params']['fc']['kernel'].tolist()

  assert left() == (4 * 0.25 + 3, [0.0, 0.25], [[0.0], [4.0]])
  assert left(drop_constants=True) == (3.0, [0.0, 0.0], [[0.0], [0.0]])


# With every second filter and unit at zero and constants in BatchNorm, as they were counted when
# constants always went.
LEFT = {
  'allconv': 1949,
  'lenet300': 1580,
  'lenet5': 11684,
  'mobilenet': 13463,
  'resnet18': 37764,
  'vgg16': 31215,
}


@pytest.mark.parametrize('name', LEFT)
def test_every_kind_of_network_shrinks_as_ever(name):
  model, variables, shape = halved(name, constants=True)
  assert active(jitted(model, shape, drop_constants=True)(variables)) == LEFT[name]


def test_a_chain_by_hand():
  """Two dead outputs of conv1 take their inputs of conv2; an unread unit of fc1 goes."""
  model = models.create('lenet5', width=4)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
  params = jax.tree.map(lambda p: jnp.where(p == 0, 0.1, p), variables['params'])
  params['conv1'] = {name: leaf.at[..., :2].set(0) for name, leaf in params['conv1'].items()}
  params['fc2']['kernel'] = params['fc2']['kernel'].at[7].set(0)
  clean = remove_dead(model, {'params': params}, (28, 28, 1))['params']
  assert architecture(clean) == {
    'conv1': {'inputs': 1, 'outputs': 2},
    'conv2': {'inputs': 2, 'outputs': 10},
    'fc1': {'inputs': 160, 'outputs': 99},
    'fc2': {'inputs': 99, 'outputs': 10},
  }
  assert not bool(jnp.any(clean['fc1']['bias'][7]))


def test_a_removed_unit_that_a_shortcut_carries_on_is_still_read():
  """A channel of a residual sum is dead only if it is dead in both branches."""
  model = models.create('resnet20', width=4)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  remove = jitted(model, (8, 8, 3), drop_constants=True)
  params = variables['params']
  params['block1_1']['conv2']['kernel'] = params['block1_1']['conv2']['kernel'].at[..., 0].set(0)
  clean = remove(variables)['params']
  assert bool(jnp.any(clean['block1_2']['conv1']['kernel'][:, :, 0]))
  assert not bool(jnp.any(clean['block1_1']['bn2']['scale'][0]))
  params['block0']['conv']['kernel'] = params['block0']['conv']['kernel'].at[..., 0].set(0)
  clean = remove(variables)['params']
  assert not bool(jnp.any(clean['block1_2']['conv1']['kernel'][:, :, 0]))


def test_a_bias_keeps_a_unit_without_weights():
  model = models.create('lenet300', width=3)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), train=False)
  fc1 = variables['params']['fc1']
  fc1['kernel'] = fc1['kernel'].at[:, 0].set(0)
  fc1['bias'] = fc1['bias'].at[0].set(0.5)
  clean = remove_dead(model, variables, (2, 2, 1))['params']
  assert bool(jnp.all(clean['fc2']['kernel'][0] != 0))


# Networks of others


class Net(nn.Module):
  """fc1 of six units, whatever `middle` makes of them, and fc2."""

  middle: Callable

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Dense(6, name='fc1')(images.reshape(len(images), -1))
    return nn.Dense(2, name='fc2')(self.middle(x).reshape(len(images), -1))


class Gain(nn.Module):
  """Subtracts the mean, and has a parameter of its own."""

  @nn.compact
  def __call__(self, x):
    return (x - x.mean(-1, keepdims=True)) * self.param('gain', nn.initializers.ones, ())


class OneByOne(nn.Module):
  """Subtracts the mean, from layers and a parameter of its own."""

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.initializers.ones, (6,))
    return x + nn.Dense(6, name='within')(nn.LayerNorm(name='norm')(x)) * scale[None]


MIDDLES = {
  'layer_norm': lambda x: nn.LayerNorm(use_bias=False, name='norm')(x),
  'layer_norm_without_parameters': lambda x: nn.LayerNorm(use_bias=False, use_scale=False)(x),
  'group_norm': lambda x: nn.GroupNorm(num_groups=2, use_bias=False, name='norm')(x),
  'rms_norm': lambda x: nn.RMSNorm(name='norm')(x),
  'weight_norm': lambda x: nn.WeightNorm(nn.Dense(6, name='within'))(x),
  'attention': lambda x: nn.MultiHeadDotProductAttention(2, qkv_features=4)(x[:, :, None]),
  'recurrent': lambda x: nn.RNN(nn.GRUCell(3), name='recurrent')(x[:, :, None]),
  'own': lambda x: Gain(name='gain')(x),
  'own_with_layers': lambda x: OneByOne(name='block')(x),
  'batch_norm': lambda x: nn.BatchNorm(use_running_average=True, name='norm')(x),
}


def without_a_unit(middle):
  """Variables without a zero, but that fc1 makes nothing of unit 1 and fc2 does not read unit 4."""
  model = Net(middle)
  variables = model.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), train=False)
  params = jax.tree.map(lambda p: jnp.where(p == 0, 0.1, p), variables['params'])
  params['fc1'] = {name: leaf.at[..., 1].set(0) for name, leaf in params['fc1'].items()}
  if params['fc2']['kernel'].shape[0] == 6:
    params['fc2']['kernel'] = params['fc2']['kernel'].at[4].set(0)
  return model, {**variables, 'params': params}


def answers_stay(model, variables):
  clean = remove_dead(model, variables, (2, 2, 1))
  images = jax.random.normal(jax.random.key(5), (4, 2, 2, 1))
  before, after = (model.apply(v, images, train=False) for v in (variables, clean))
  np.testing.assert_allclose(before, after, rtol=1e-6, atol=1e-6)
  return clean['params']


@pytest.mark.parametrize('name', MIDDLES)
def test_answers_stay(name):
  model, variables = without_a_unit(MIDDLES[name])
  answers_stay(model, variables)


def test_a_layer_norm_reads_everything_and_all_it_makes_is_there():
  """It makes something of unit 1, and what it makes of the others takes unit 4, which fc2 drops."""
  model, variables = without_a_unit(MIDDLES['layer_norm'])
  clean = answers_stay(model, variables)
  for path, leaf in named_leaves(variables['params']).items():
    np.testing.assert_array_equal(named_leaves(clean)[path], leaf, err_msg=path)


def test_units_go_around_what_passes_them_on():
  model, variables = without_a_unit(nn.relu)
  clean = answers_stay(model, variables)
  assert jnp.any(clean['fc1']['kernel'] != 0, 0).tolist() == [1, 0, 1, 1, 0, 1]
  assert jnp.any(clean['fc2']['kernel'] != 0, 1).tolist() == [1, 0, 1, 1, 0, 1]


def crelu(x):
  return jnp.concatenate([nn.relu(x), nn.relu(-x)], -1)


def difference(x):
  return nn.relu(nn.Dense(6, name='a')(x)) - nn.relu(nn.Dense(6, name='b')(x))


@pytest.mark.parametrize(
  ('middle', 'layers'),
  [(crelu, 'fc2'), (difference, 'fc1, a, b, fc2'), (lambda x: 1 - nn.sigmoid(99 * x), 'fc1, fc2')],
)
@pytest.mark.parametrize('drop_constants', [False, True])
def test_what_it_can_not_follow_is_refused(middle, layers, drop_constants):
  model, variables = without_a_unit(middle)
  with pytest.raises(ValueError, match='remove_dead would change the answers by up to') as error:
    remove_dead(model, variables, (2, 2, 1), drop_constants=drop_constants)
  named = str(error.value).partition('removing weights of ')[2].partition(':')[0].split(', ')
  assert set(named) <= set(layers.split(', '))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'middle', [lambda x: nn.relu(x - 20), lambda x: jnp.where(x > 20, x, 0)], ids=['relu', 'where']
)
def test_what_only_large_numbers_pass_is_there(middle):
  """Nothing of images of the size of 1 is left, much of those of the size of 100."""
  model, variables = without_a_unit(middle)
  clean = remove_dead(model, variables, (2, 2, 1))
  images = 100 * jax.random.normal(jax.random.key(5), (4, 2, 2, 1))
  before, after = (model.apply(v, images, train=False) for v in (variables, clean))
  assert float(jnp.std(before)) > 1
  np.testing.assert_allclose(before, after, rtol=1e-6)
  assert jnp.any(clean['params']['fc1']['kernel'] != 0, 0).tolist() == [1, 0, 1, 1, 0, 1]


def test_what_only_large_images_show_to_change_is_refused():
  """Numbers below -20 pass, of which presence knows none."""
  model, variables = without_a_unit(lambda x: jnp.where(x < -20, x, 0))
  with pytest.raises(ValueError, match='remove_dead would change the answers by up to'):
    remove_dead(model, variables, (2, 2, 1))


@pytest.mark.parametrize('bias', [0.0, 0.5])
def test_answers_that_never_vary_are_nothing_to_compare(bias):
  model, variables = without_a_unit(lambda x: jnp.where(x > 30_000, x, 0))
  variables['params']['fc2']['bias'] = jnp.full(2, bias)
  with pytest.raises(ValueError, match='cannot compare answers that are the same') as error:
    remove_dead(model, variables, (2, 2, 1))
  assert '\n' not in str(error.value)


def test_a_network_that_is_all_zero_answers_the_same_and_loses_the_rest():
  model, variables = without_a_unit(nn.relu)
  params = variables['params']
  params['fc1'] = jax.tree.map(jnp.zeros_like, params['fc1'])
  clean = answers_stay(model, variables)
  assert not jnp.any(clean['fc2']['kernel'])
  assert jnp.all(clean['fc2']['bias'] != 0)


class Twice(nn.Module):
  @nn.compact
  def __call__(self, images, *, train):
    fc = nn.Dense(2, use_bias=False, name='fc')
    return nn.Dense(1, use_bias=False, name='out')(fc(fc(images.reshape(len(images), -1))))


def test_a_layer_called_twice_keeps_what_either_call_needs():
  """Its first input is there in the first call alone: (1, 1) becomes (0, 3), that (0, 6)."""
  params = {
    'fc': {'kernel': jnp.array([[0.0, 1.0], [0.0, 2.0]])},
    'out': {'kernel': jnp.ones((2, 1))},
  }
  clean = remove_dead(Twice(), {'params': params}, (1, 2, 1))
  assert clean['params']['fc']['kernel'].tolist() == [[0.0, 1.0], [0.0, 2.0]]
  assert clean['params']['out']['kernel'].tolist() == [[0.0], [1.0]]
  assert Twice().apply(clean, jnp.ones((1, 1, 2, 1)), train=False).tolist() == [[6.0]]


class Transposed(nn.Module):
  turned: bool

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Conv(3, (1, 1), use_bias=False, name='conv')(images)
    up = nn.ConvTranspose(4, (2, 2), (2, 2), transpose_kernel=self.turned, name='up')
    return nn.Dense(2, name='fc')(nn.relu(up(x)).mean((1, 2)))


@pytest.mark.parametrize('turned', [False, True])
def test_a_transposed_convolution_reads_its_inputs_where_its_kernel_has_them(turned):
  model = Transposed(turned)
  variables = model.init(jax.random.key(0), jnp.ones((1, 2, 2, 1)), train=False)
  params = variables['params']
  params['conv']['kernel'] = params['conv']['kernel'].at[..., 1].set(0)
  params['fc']['kernel'] = params['fc']['kernel'].at[3].set(0)
  kernel = answers_stay(model, variables)['up']['kernel']
  by_input = jnp.moveaxis(kernel, -1 if turned else -2, 0).reshape(3, -1)
  assert jnp.any(by_input != 0, 1).tolist() == [True, False, True]
  by_output = jnp.moveaxis(kernel, -2 if turned else -1, 0).reshape(4, -1)
  assert jnp.any(by_output != 0, 1).tolist() == [True, True, True, False]


def test_traced_variables_have_no_answers_to_compare():
  model, variables = without_a_unit(nn.relu)
  with pytest.raises(ValueError, match=r'outside jax\.jit, or pass check=False'):
    jax.jit(lambda v: remove_dead(model, v, (2, 2, 1)))(variables)


def scanned(x):
  axes = {'variable_axes': {'params': 0}, 'split_rngs': {'params': True}}
  layers = nn.scan(lambda layer, x, _: (layer(x), None), **axes, length=2)
  return layers(nn.Dense(6, name='within'), x, None)[0]


LIFTED = {
  'remat': lambda x: nn.remat(nn.Dense)(6, name='within')(x),
  'jit': lambda x: nn.jit(nn.Dense)(6, name='within')(x),
  'scan': scanned,
}


@pytest.mark.parametrize('middle', LIFTED)
def test_layers_within_lifted_transformations_are_refused(middle):
  model, variables = without_a_unit(LIFTED[middle])
  with pytest.raises(ValueError, match=r'does not see layers within nn\.scan'):
    remove_dead(model, variables, (2, 2, 1))
