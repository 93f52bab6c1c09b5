"""A width for each layer: layers that follow it, layers that must agree, and refusals."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from sparsejax import models
from sparsejax.models.widths import widths_of
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def shapes_of(model):
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
  return {path: leaf.shape for path, leaf in tree.named_leaves(variables).items()}


OWN = {
  'allconv': {'block1/conv': 5, 'block9/conv': 3},
  'lenet300': {'fc1': 9},
  'lenet5': {'conv2': 3},
  'mobilenet': {'block00/conv': 3, 'block05/pointwise': 7},
  'resnet18': {'block4_2/conv1': 5},
  'resnet20': {'block1_2/conv1': 1},
  'resnet50': {'block2_1/conv1': 3, 'block2_1/conv2': 2},
  'resnet56': {'block3_9/conv1': 1},
  'vgg16': {'block1_1/conv': 1, 'block5_3/conv': 9},
}


@pytest.mark.parametrize('name', sorted({*models.MODELS} - {'transformer'}))  # it has its own test
def test_a_layer_has_the_width_that_is_said(name):
  """All other layers keep their widths, except depthwise convolutions, which follow their input."""
  whole = widths_of(models_params(models.create(name, width=4)))
  own = OWN.get(name) or {'block0/conv': 4}  # all widths of a butterfly are fixed
  expected = whole | own
  if name == 'mobilenet':
    expected |= {'block01/depthwise': 3, 'block06/depthwise': 7}
  model = models.create(name, width=4, widths=own)
  assert model.widths == own
  assert widths_of(models_params(model)) == expected


def models_params(model):
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)[
    'params'
  ]


def test_everything_around_a_layer_has_its_width():
  found = shapes_of(models.create('resnet20', width=4, widths={'block1_1/conv1': 3}))
  assert found['params/block1_1/conv1/kernel'] == (3, 3, 4, 3)
  assert found['params/block1_1/bn1/scale'] == found['batch_stats/block1_1/bn1/mean'] == (3,)
  assert found['params/block1_1/conv2/kernel'] == (3, 3, 3, 4)


def test_a_stream_has_one_width():
  """The first block of a stage keeps its shortcut if the streams before and after are as wide."""
  stream = dict.fromkeys(['block0/conv', *(f'block1_{i}/conv2' for i in (1, 2, 3))], 8)
  found = shapes_of(models.create('resnet20', width=4, widths=stream))
  assert found['params/block2_1/shortcut/kernel'] == (1, 1, 8, 8)
  stream = {'block0/conv': 16}
  found = shapes_of(models.create('resnet50', width=4, widths=stream))
  assert found['params/block1_1/shortcut/kernel'] == (1, 1, 16, 16)


def test_variational_layers_have_widths_too():
  found = shapes_of(models.create('lenet300', layers='sparse_vd', width=6, widths={'fc1': 5}))
  assert found['params/fc1/kernel_log_variance'] == (3072, 5)


def test_paths_are_those_within_the_network():
  class Outer(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
      return models.create('lenet300', widths={'fc1': 5})(images, train=train)

  assert shapes_of(Outer())['params/LeNet300_0/fc1/kernel'] == (3072, 5)


@pytest.mark.parametrize(
  ('name', 'widths', 'message'),
  [
    ('lenet300', {'fc11': 5}, r"unknown layer of widths 'fc11': did you mean 'fc1'\?"),
    ('lenet300', {'fc1': 0}, r"widths\['fc1'\]=0 must be an integer of at least 1"),
    ('lenet300', {'fc1': True}, r"widths\['fc1'\]=True must be an integer of at least 1"),
    ('lenet300', {'fc1': 2.5}, r"widths\['fc1'\]=2.5 must be an integer of at least 1"),
    ('lenet300', [5], r'widths=\[5\] must be a mapping'),
    ('lenet300', {'fc3': 9}, r"widths\['fc3'\]=9 must be 10, the only width of this layer"),
    ('resnet20', {'classifier': 9}, r"widths\['classifier'\]=9 must be 10"),
    (
      'resnet20',
      {'block1_2/conv2': 5},
      r"widths\['block1_2/conv2'\]=5 must be 4, the width of 'block0/conv'",
    ),
    (
      'resnet20',
      {'block0/conv': 5},
      r"widths\['block0/conv'\]=5 must be 4, the width of 'block1_1/conv2'",
    ),
    (
      'resnet20',
      {'block2_1/shortcut': 7, 'block2_1/conv2': 5},
      r"widths\['block2_1/shortcut'\]=7 must be 5, the width of 'block2_1/conv2'",
    ),
    (
      'mobilenet',
      {'block01/depthwise': 5},
      r"widths\['block01/depthwise'\]=5 must be 4, the width of 'block00/conv'",
    ),
    ('butterfly_resnet18', {'block0/conv': 8}, r'=8 must be 4, the only width'),
    ('butterfly_resnet18', {'block3/mix00_conv': 3}, r'=3 must be 2, the only width'),
    ('butterfly_resnet18_general', {'block1/mix00_conv': 6}, r'=6 must be 4, the only width'),
  ],
)
def test_what_no_layer_can_have_is_refused(name, widths, message):
  width = 6 if name == 'lenet300' else 4
  with pytest.raises(ValueError, match=message) as error:
    models.create(name, width=width, widths=widths)
  assert '\n' not in str(error.value)
