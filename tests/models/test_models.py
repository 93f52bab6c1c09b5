"""The networks: parameter counts, what they accept and refuse, positions, forward and backward."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sparsejax
from sparsejax import models
from sparsejax.models import butterfly, mobilenet
from sparsejax.sparsity.leaves import axes

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

COUNTS = {
  'allconv': 89_674,
  'butterfly_resnet18': 38_474,
  'butterfly_resnet18_general': 60_554,
  'lenet300': 266_610,
  'lenet5': 431_080,
  'mobilenet': 3_217_226,
  'resnet18': 11_173_962,
  'resnet20': 272_474,
  'resnet50': 23_520_842,
  'resnet56': 855_770,
  'transformer': 1_855_498,
  'vgg16': 14_728_266,
}
SMALL = {'allconv': 4, 'mobilenet': 2, 'resnet18': 2, 'resnet20': 2, 'resnet50': 2, 'vgg16': 2}
SMALL |= {
  'transformer': 6,
  'butterfly_resnet18': 4,
  'butterfly_resnet18_general': 2,
  'lenet300': 6,
  'lenet5': 2,
}


def image_shape(name):
  if name == 'transformer':
    return (128,)
  return (28, 28, 1) if name.startswith('lenet') else (32, 32, 3)


def shapes(model, shape, batch=1):
  """The shapes of the model's variables, nothing computed."""
  images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
  return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)


def flat(tree):
  """The leaves with their paths."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in leaves]


def sizes(tree):
  return {path: math.prod(leaf.shape) for path, leaf in flat(tree)}


def test_every_network_is_counted():
  assert set(COUNTS) == set(models.MODELS)


@pytest.mark.parametrize('name', COUNTS)
def test_parameters(name):
  variables = shapes(models.create(name), image_shape(name))
  assert sum(sizes(variables['params']).values()) == COUNTS[name]
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize(('width', 'count'), [(32, 5_899_050), (16, 1_484_186), (8, 375_762)])
def test_parameters_of_a_narrow_resnet50(width, count):
  params = shapes(models.create('resnet50', width=width), (32, 32, 3))['params']
  assert sum(sizes(params).values()) == count


def test_batch_norm_of_resnet50():
  params = sizes(shapes(models.create('resnet50'), (32, 32, 3))['params'])
  norms = [size for path, size in params.items() if 'bn' in path.split('/')[-2]]
  assert sum(norms) == 53_120


@pytest.mark.parametrize(('name', 'weights'), [('lenet300', 266_200), ('lenet5', 430_500)])
def test_weights(name, weights):
  params = sizes(shapes(models.create(name), (28, 28, 1))['params'])
  assert sum(size for path, size in params.items() if path.endswith('kernel')) == weights


@pytest.mark.parametrize('name', sorted({*COUNTS} - {'transformer'}))
def test_the_order_of_the_layers_is_the_order_of_their_names(name):
  found = models.positions(models.create(name), image_shape(name))
  assert list(found) == sorted(found)
  kernels = {
    path.removesuffix('/kernel')
    for path in sizes(shapes(models.create(name), image_shape(name))['params'])
    if path.endswith('/kernel')
  }
  assert set(found) == kernels


def test_positions_of_lenet5():
  model = models.create('lenet5')
  found = models.positions(model, (28, 28, 1))
  assert found == {'conv1': 24 * 24, 'conv2': 8 * 8, 'fc1': 1, 'fc2': 1}
  params = sizes(shapes(model, (28, 28, 1))['params'])
  macs = [count * params[f'{path}/kernel'] for path, count in found.items()]
  assert macs == [288_000, 1_600_000, 400_000, 5_000]
  assert sum(macs) == 2_293_000


def test_every_stage_of_a_resnet_but_the_first_halves_the_image():
  found = models.positions(models.create('resnet20', width=2), (32, 32, 3))
  stages = {
    stage: {n for path, n in found.items() if f'block{stage}_' in path} for stage in (1, 2, 3)
  }
  assert stages == {1: {32 * 32}, 2: {16 * 16}, 3: {8 * 8}}


def test_a_layer_of_training_alone_has_no_positions():
  class Auxiliary(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
      if train:
        nn.Dense(2, name='auxiliary')(images)
      return nn.Dense(3, name='head')(images)

  assert models.positions(Auxiliary(), (4, 5, 1)) == {'head': 20}


def test_multiplications_of_vgg16():
  model = models.create('vgg16')
  params = sizes(shapes(model, (32, 32, 3))['params'])
  found = models.positions(model, (32, 32, 3))
  # 9 * (positions * inputs * outputs) of the thirteen convolutions, and 512 * 10.
  convolutions = 1024 * (3 * 64 + 64 * 64) + 256 * (64 * 128 + 128 * 128)
  convolutions += 64 * (128 * 256 + 2 * 256 * 256) + 16 * (256 * 512 + 2 * 512 * 512)
  convolutions += 4 * (3 * 512 * 512)
  macs = sum(count * params[f'{path}/kernel'] for path, count in found.items())
  assert macs == 9 * convolutions + 5120 == 313_201_664


def test_a_tree_multiplies_twice_for_each_output():
  model = models.create('butterfly_resnet18', width=4)
  params = sizes(shapes(model, (8, 8, 3))['params'])
  found = models.positions(model, (8, 8, 3))
  for step in (
    'mix00_conv',
    'mix01_conv',
  ):  # 4 channels at 64 pixels: every step puts out 256 numbers
    assert found[f'block1/{step}'] * params[f'block1/{step}/kernel'] == 2 * 64 * 4


@pytest.mark.parametrize('name', SMALL)
def test_names_tell_of_every_axis_what_the_program_does(name):
  model = models.create(name, width=SMALL[name])
  variables = shapes(model, image_shape(name))
  params, rest = variables['params'], {k: v for k, v in variables.items() if k != 'params'}

  def function(params, images):
    return model.apply({'params': params, **rest}, images, train=False)

  rest = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), rest)
  read = sparsejax.layouts_of(function, params, jnp.ones((1, *image_shape(name))))
  kernels = list(axes.kernels(params))
  assert kernels
  by_name = axes.layouts(params, kernels)
  by_program = axes.layouts(params, kernels, axes.given(read))
  assert {p: x.text for p, x in by_name.items()} == {p: x.text for p, x in by_program.items()}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', SMALL)
def test_forward_shapes_and_dtypes(name, dtype):
  model = models.create(name, 7, width=SMALL[name], dtype=dtype)
  variables = shapes(model, image_shape(name))
  images = jax.ShapeDtypeStruct((3, *image_shape(name)), jnp.float32)
  forward = partial(model.apply, train=True, mutable=['batch_stats'])
  logits, updated = jax.eval_shape(forward, variables, images)
  positions = (128,) if name == 'transformer' else ()
  assert (logits.shape, logits.dtype) == ((3, *positions, 7), jnp.float32)
  state = jax.tree.leaves((variables, updated))
  assert all(leaf.dtype == jnp.float32 for leaf in state)


@pytest.mark.parametrize('name', ['lenet300', 'resnet18', 'butterfly_resnet18_general'])
def test_every_parameter_of_a_small_network_gets_a_gradient(name):
  shape = (8, 8, 1)
  model = models.create(name, width=SMALL[name], dropout=0.1)
  images = jax.random.normal(jax.random.key(1), (4, *shape))
  random = np.random.default_rng(0)  # in place of `init`, which takes long to compile
  variables = jax.tree.map(
    lambda leaf: jnp.asarray(random.uniform(0.1, 1, leaf.shape), leaf.dtype), shapes(model, shape)
  )

  @jax.jit
  @jax.grad
  def gradient(params):
    state = {**variables, 'params': params}
    rngs = {'dropout': jax.random.key(2)}
    logits, _ = model.apply(state, images, train=True, mutable=['batch_stats'], rngs=rngs)
    return jnp.sum(logits**2)

  for leaf in jax.tree.leaves(gradient(variables['params'])):
    assert jnp.isfinite(leaf).all()
    assert jnp.any(leaf != 0)


def test_dropout_is_drawn_from_its_own_rng_and_not_in_evaluation():
  model = models.create('lenet300', width=60, dropout=0.5)
  images = jnp.ones((2, 8, 8, 1))
  variables = model.init(jax.random.key(0), images, train=False)
  apply = partial(model.apply, variables, images)
  first = apply(train=True, rngs={'dropout': jax.random.key(1)})
  again = apply(train=True, rngs={'dropout': jax.random.key(1)})
  other = apply(train=True, rngs={'dropout': jax.random.key(2)})
  np.testing.assert_array_equal(first, again)
  assert jnp.any(first != other)
  assert jnp.any(first != apply(train=False))


class Mix(nn.Module):
  """The butterfly product alone."""

  @nn.compact
  def __call__(self, x):
    return butterfly.butterfly_product(models.create('lenet5').parts(), x, train=False)


def test_every_block_of_mobilenet_ends_in_a_relu():
  model, images = models.create('mobilenet', width=2), jnp.ones((1, 32, 32, 3))
  variables = model.init(jax.random.key(0), images, train=False)
  _, found = model.apply(
    variables,
    images,
    train=False,
    mutable='intermediates',
    capture_intermediates=lambda module, _: isinstance(module, mobilenet.Separable),
  )
  outputs = jax.tree.leaves(found)
  assert len(outputs) == len(mobilenet.BLOCKS)
  assert all(jnp.min(output) == 0 for output in outputs)


def test_a_butterfly_starts_orthogonal_and_mixes_every_channel_with_every_other():
  identity = jnp.eye(8).reshape(1, 1, 8, 8)  # eight pixels, a channel each: the matrix itself
  y, variables = Mix().init_with_output(jax.random.key(0), identity)
  matrix = y.reshape(8, 8)
  np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-6)
  assert jnp.all(matrix != 0)
  assert {path: leaf.shape for path, leaf in flat(variables['params'])} == {
    f'mix{step:02}_conv/kernel': (1, 1, 2, 8) for step in range(3)
  }


@pytest.mark.parametrize('name', COUNTS)
def test_has_convolutions(name):
  has_some = name not in ('lenet300', 'transformer')
  assert models.has_convolutions(name) == has_some
  assert models.has_convolutions(models.create(name)) == has_some


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'name': 'vgg61'}, "unknown model 'vgg61': did you mean 'vgg16'"),
    ({'name': 'vgg16', 'layers': 'gauss'}, "unknown layers 'gauss'"),
    ({'name': 'vgg16', 'num_classes': 0}, 'num_classes=0 must be .* at least 1'),
    ({'name': 'vgg16', 'width': 0}, 'width=0 must be .* at least 1'),
    ({'name': 'vgg16', 'width': 1.5}, r'width=1\.5 must be .* integer'),
    ({'name': 'lenet300', 'width': 1}, 'width=1 must be .* at least 2'),
    ({'name': 'butterfly_resnet18', 'width': 12}, 'width=12 must be .* power of two'),
    ({'name': 'vgg16', 'dropout': 1.0}, r'dropout=1\.0 must be .* \[0, 1\)'),
    ({'name': 'vgg16', 'dropout': '0.5'}, r"dropout='0\.5' must be .* \[0, 1\)"),
    ({'name': 'vgg16', 'dtype': 'int8'}, "dtype='int8' must be float32 or bfloat16"),
    ({'name': 'vgg16', 'dtype': jnp.float16}, "dtype='float16' must be float32 or bfloat16"),
  ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, message):
  with pytest.raises(ValueError, match=message) as error:
    models.create(**arguments)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'images'),
  [('vgg16', (1, 8, 8, 3)), ('lenet5', (1, 8, 8, 1)), ('resnet20', (8, 8, 3))],
)
def test_images_that_do_not_fit_are_refused(name, images):
  with pytest.raises(ValueError, match=r'^\w+: images\.shape=\(.*\) must be \(examples') as error:
    models.create(name).init(jax.random.key(0), jnp.ones(images), train=False)
  assert '\n' not in str(error.value)


def test_dtypes_may_be_given_as_such():
  assert models.create('lenet5', dtype=jnp.bfloat16).dtype == jnp.bfloat16
  assert models.create('lenet5', dtype=jnp.dtype('float32')).dtype == jnp.float32
