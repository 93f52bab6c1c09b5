"""The loop of the README, in plain Optax, over the parameters of every library there is for JAX.

A small network (a convolution and two dense layers) on the digits that come with scikit-learn,
pruned to a tenth along the cubic schedule: in each library the kernels are found, and nothing else.
"""

import pathlib

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from sklearn import datasets

import sparsejax
from sparsejax.sparsity.leaves import tree

STEPS, BATCH = 300, 64
WEIGHTS = 9 * 8 + 8 * 16 * 32 + 32 * 10
README = pathlib.Path(__file__).parent.parent / 'README.md'


def train(params, loss, batches):
  optimizer = optax.chain(
    optax.adam(3e-3),
    sparsejax.prune(sparsejax.cubic(begin=50, end=200, density=0.1, every=25)),
  )
  state = optimizer.init(params)

  @jax.jit
  def step(params, state, batch):
    grad = jax.grad(loss)(params, batch)
    updates, state = optimizer.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, updates), state

  for batch in batches:
    params, state = step(params, state, batch)
  return params, state


# The data


@pytest.fixture(scope='module')
def digits():
  images, labels = datasets.load_digits(return_X_y=True)
  images = (images / 16).reshape(-1, 8, 8, 1).astype(np.float32)
  order = np.random.default_rng(0).permutation(len(images))
  images, labels = images[order], labels[order]
  return (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


@pytest.fixture
def batches(digits):
  images, labels = digits[0]
  order = np.random.default_rng(0).integers(len(images), size=(STEPS, BATCH))
  return [(images[chosen], labels[chosen]) for chosen in order]


def cross_entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# The network, in each library


class Linen(linen.Module):
  @linen.compact
  def __call__(self, x):
    x = linen.relu(linen.Conv(8, (3, 3), strides=2)(x)).reshape(len(x), -1)
    return linen.Dense(10)(linen.relu(linen.Dense(32)(x)))


class Nnx(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
    self.hidden = nnx.Linear(128, 32, rngs=rngs)
    self.out = nnx.Linear(32, 10, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.conv(x)).reshape(len(x), -1)
    return self.out(nnx.relu(self.hidden(x)))


def haiku_network(x):
  x = jax.nn.relu(hk.Conv2D(8, 3, stride=2)(x)).reshape(len(x), -1)
  return hk.Linear(10)(jax.nn.relu(hk.Linear(32)(x)))


class Equinox(eqx.Module):
  conv: eqx.nn.Conv2d
  hidden: eqx.nn.Linear
  out: eqx.nn.Linear

  def __init__(self, key):
    keys = jax.random.split(key, 3)
    self.conv = eqx.nn.Conv2d(1, 8, 3, stride=2, padding=1, key=keys[0])
    self.hidden = eqx.nn.Linear(128, 32, key=keys[1])
    self.out = eqx.nn.Linear(32, 10, key=keys[2])

  def __call__(self, x):  # one image; channels first
    x = jax.nn.relu(self.conv(x.transpose(2, 0, 1))).reshape(-1)
    return self.out(jax.nn.relu(self.hidden(x)))


def dict_network(params, x):
  dimensions = ('NHWC', 'HWIO', 'NHWC')
  x = jax.lax.conv_general_dilated(x, params['conv']['w'], (2, 2), 'SAME', None, None, dimensions)
  x = jax.nn.relu(x + params['conv']['b'][None, None, None]).reshape(len(x), -1)
  x = jax.nn.relu(x @ params['hidden']['w'] + params['hidden']['b'][None])
  return x @ params['out']['w'] + params['out']['b'][None]


# What is asserted of every one


def check(params, masks, kernels, logits, digits):
  """The names of what was pruned, exact zeros, the exact total, and that it still reads digits."""
  named = {path: np.asarray(leaf) for path, leaf in tree.named_leaves(params).items()}
  masked = {path: np.asarray(mask) for path, mask in tree.named_leaves(masks).items()}
  assert masked.keys() == named.keys()
  assert {path for path, mask in masked.items() if mask.shape} == set(kernels)
  assert sum(named[path].size for path in kernels) == WEIGHTS
  for path in kernels:
    np.testing.assert_array_equal(named[path] != 0, masked[path])
  assert sum(np.count_nonzero(named[path]) for path in kernels) == round(0.1 * WEIGHTS)
  assert all(np.any(leaf != 0) for leaf in named.values())
  images, labels = digits[1]
  assert np.mean(np.argmax(logits(images), -1) == labels) > 0.85


def masks_of(state):
  return optax.tree.get(state, 'masks')


# Each library


def test_a_plain_dict(digits, batches):
  rng = np.random.default_rng(0)
  shapes = {'conv': (3, 3, 1, 8), 'hidden': (128, 32), 'out': (32, 10)}
  params = {
    name: {
      'w': jnp.asarray(rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape), jnp.float32),
      'b': jnp.zeros(shape[-1:]),
    }
    for name, shape in shapes.items()
  }

  def loss(params, batch):
    images, labels = batch
    return cross_entropy(dict_network(params, images), labels)

  params, state = train(params, loss, batches)
  kernels = ['conv/w', 'hidden/w', 'out/w']
  check(params, masks_of(state), kernels, lambda x: dict_network(params, x), digits)


def test_flax_linen(digits, batches):
  model = Linen()
  params = model.init(jax.random.key(0), digits[0][0][:1])['params']

  def loss(params, batch):
    images, labels = batch
    return cross_entropy(model.apply({'params': params}, images), labels)

  params, state = train(params, loss, batches)
  kernels = [f'{name}/kernel' for name in ('Conv_0', 'Dense_0', 'Dense_1')]
  check(params, masks_of(state), kernels, lambda x: model.apply({'params': params}, x), digits)


NNX_KERNELS = [f'{name}/kernel' for name in ('conv', 'hidden', 'out')]


def test_flax_nnx(digits, batches):
  model = Nnx(nnx.Rngs(0))
  graph, params = nnx.split(model, nnx.Param)

  def loss(params, batch):
    images, labels = batch
    return cross_entropy(nnx.merge(graph, params)(images), labels)

  params, state = train(params, loss, batches)
  nnx.update(model, params)
  check(nnx.to_pure_dict(params), nnx.to_pure_dict(masks_of(state)), NNX_KERNELS, model, digits)


def test_flax_nnx_with_its_own_optimizer(digits, batches):
  """Which hands the extra arguments of its update on to the chain."""
  model, rule = Nnx(nnx.Rngs(0)), sparsejax.criteria.saliency
  schedule = sparsejax.cubic(begin=50, end=200, density=0.1, every=25)
  chain = optax.chain(optax.adam(3e-3), sparsejax.prune(schedule, criterion=rule))
  optimizer = nnx.Optimizer(model, chain, wrt=nnx.Param)

  def loss(model, batch):
    images, labels = batch
    return cross_entropy(model(images), labels)

  @nnx.jit
  def step(model, optimizer, batch):
    grad = nnx.grad(loss)(model, batch)
    optimizer.update(model, grad, grad=grad)

  for batch in batches:
    step(model, optimizer, batch)
  params, masks = nnx.state(model, nnx.Param), masks_of(nnx.as_pure(optimizer.opt_state))
  check(nnx.to_pure_dict(params), masks, NNX_KERNELS, model, digits)


class NnxWithState(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
    self.norm = nnx.BatchNorm(8, rngs=rngs)
    self.hidden = nnx.Linear(128, 32, rngs=rngs)
    self.dropout = nnx.Dropout(0.2, rngs=rngs)
    self.out = nnx.Linear(32, 10, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.conv(x))).reshape(len(x), -1)
    return self.out(self.dropout(nnx.relu(self.hidden(x))))


def test_flax_nnx_with_batch_norm_and_dropout(digits, batches):
  """As the README trains it, whose code is run; the averages of BatchNorm have moved, too."""
  readme = {'nnx': nnx, 'optax': optax}
  exec(next(block for block in blocks_of_the_readme() if 'nnx.Optimizer' in block), readme)
  schedule = sparsejax.cubic(begin=50, end=200, density=0.1, every=25)
  prune = sparsejax.prune(schedule, criterion=sparsejax.criteria.saliency)
  model = NnxWithState(nnx.Rngs(0))

  def loss(model, batch):
    images, labels = batch
    return cross_entropy(model(images), labels)

  masks = readme['train_nnx'](model, optax.chain(optax.adam(3e-3), prune), loss, batches)
  params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  check(params, masks, NNX_KERNELS, model, digits)
  assert bool(jnp.all(model.norm.mean[...] != 0))


def test_haiku(digits, batches):
  network = hk.without_apply_rng(hk.transform(haiku_network))
  images, _ = batches[0]
  params = network.init(jax.random.key(0), images)

  def loss(params, batch):
    images, labels = batch
    return cross_entropy(network.apply(params, images), labels)

  params, state = train(params, loss, batches)
  kernels = ['conv2_d/w', 'linear/w', 'linear_1/w']
  check(params, masks_of(state), kernels, lambda x: network.apply(params, x), digits)


def test_equinox(digits, batches):
  """Its parameters have None for what is no array, and its biases may have three axes."""
  model = Equinox(jax.random.key(0))
  params, static = eqx.partition(model, eqx.is_inexact_array)

  def loss(params, batch):
    images, labels = batch
    return cross_entropy(jax.vmap(eqx.combine(params, static))(images), labels)

  params, state = train(params, loss, batches)
  model = eqx.combine(params, static)
  kernels = ['conv/weight', 'hidden/weight', 'out/weight']
  check(params, masks_of(state), kernels, jax.vmap(model), digits)
  assert masks_of(state).conv.bias.shape == ()
  assert params.conv.bias.shape == (8, 1, 1)


def test_equinox_has_its_outputs_first():
  """And so its filters and units are rows, as the types of its layers tell."""
  params = eqx.filter(Equinox(jax.random.key(0)), eqx.is_inexact_array)
  granularity = sparsejax.granularity.filters()
  allocation = sparsejax.allocation.uniform()
  tx = sparsejax.prune(sparsejax.one_shot(0, 0.5), granularity=granularity, allocation=allocation)
  _, state = tx.update(params, tx.init(params), params)
  for mask, outputs in ((state.masks.conv.weight, 8), (state.masks.hidden.weight, 32)):
    rows = mask.reshape(outputs, -1)
    np.testing.assert_array_equal(rows.all(1), rows.any(1))
    assert int(rows.all(1).sum()) == outputs // 2


# The README


def blocks_of_the_readme():
  _, found, section = README.read_text().partition('### In your own loop\n')
  assert found, 'the README has no section "In your own loop"'
  return [block.split('```')[0] for block in section.split('\n## ')[0].split('```python\n')[1:]]


def test_the_readme_has_the_same_code():
  """But for the block that a test runs."""
  blocks = [block for block in blocks_of_the_readme() if 'nnx.Optimizer' not in block]
  code = [line.split('  #')[0].strip() for block in blocks for line in block.splitlines()]
  tested = {line.strip() for line in pathlib.Path(__file__).read_text().splitlines()}
  assert len(code) > 20
  assert [line for line in code if line not in tested] == []
