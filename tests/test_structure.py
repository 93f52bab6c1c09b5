"""Dead units: what goes changes no answer, and nothing that could go stays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import models
from sparsejax.models.structure import architecture, remove_dead
from sparsejax.sparsity.tree import named_leaves

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

SHAPES = {'lenet5': (28, 28, 1), 'resnet20': (32, 32, 3), 'mobilenet': (32, 32, 3)}


def halved(name, *, constants=False, share=0.5):
  """A network that has lost half of the units of every layer but the last, bias and all."""
  model = models.create(name, width=6)
  shape = SHAPES[name]
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


def active(variables):
  return sum(int(jnp.sum(leaf != 0)) for leaf in jax.tree.leaves(variables['params']))


@pytest.mark.parametrize('name', SHAPES)
def test_no_answer_changes_and_once_is_enough(name):
  model, variables, shape = halved(name)
  remove = jax.jit(lambda v: remove_dead(model, v, shape))
  clean = remove(variables)
  images = jax.random.normal(jax.random.key(1), (3, *shape))
  answers = [model.apply(v, images, train=False) for v in (variables, clean)]
  np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)
  assert active(clean) < active(variables)
  assert active(remove(clean)) == active(clean)


def test_batch_norm_leaves_no_constant_where_its_input_is_removed():
  """The answers are those of the network with the BatchNorm of every dead output masked as well."""
  model, variables, shape = halved('resnet20', constants=True)
  clean = jax.jit(lambda v: remove_dead(model, v, shape))(variables)
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
  """Of a residual sum a channel is dead only if it is in both branches."""
  model = models.create('resnet20', width=4)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  remove = jax.jit(lambda v: remove_dead(model, v, (8, 8, 3)))
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
