"""The transformer: what it sees, its twin in NNX, its counts, its widths, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sparsejax
from sparsejax import models
from sparsejax.models.transformer import NnxTransformer
from sparsejax.sparsity.leaves.tree import named_leaves

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

SIZES = {'width': 16, 'depth': 1, 'heads': 2}
CONTEXT = 16
STREAM = {'block1/down': 8, 'block1/attention/out': 8}


@pytest.fixture(scope='module')
def network():
  """The network and its parameters, as large as those of a trained one."""
  model = models.create('transformer', 256, **SIZES)
  params = model.init(jax.random.key(0), jnp.zeros((1, CONTEXT)), train=False)['params']
  return model, jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(leaf.size + leaf * 1e4), params)


@pytest.fixture(scope='module')
def text():
  return jax.random.randint(jax.random.key(1), (3, CONTEXT), 0, 256).astype(jnp.uint8)


def logits(network, x):
  model, params = network
  return model.apply({'params': params}, x, train=False)


@pytest.mark.parametrize('place', [0, 5, CONTEXT - 1])
def test_a_later_byte_never_changes_an_earlier_logit(network, text, place):
  before = logits(network, text)
  after = logits(network, text.at[:, place].add(1))
  np.testing.assert_array_equal(before[:, :place], after[:, :place])
  assert (before[:, place:] != after[:, place:]).any((0, 2)).all()


def test_bytes_may_be_floats(network, text):
  np.testing.assert_array_equal(logits(network, text), logits(network, text.astype(jnp.float32)))


def test_the_logits_are_float32_whatever_the_computation_is_in(text):
  model = models.create('transformer', 256, **SIZES, dtype='bfloat16')
  variables = model.init(jax.random.key(0), text, train=False)
  assert model.apply(variables, text, train=False).dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


def test_its_twin_in_nnx_gives_equal_outputs_for_equal_weights(network, text):
  _, params = network
  twin = NnxTransformer(**SIZES, context=CONTEXT, rngs=nnx.Rngs(0))
  assert list(named_leaves(nnx.state(twin, nnx.Param))) == list(named_leaves(params))
  nnx.update(twin, params)
  np.testing.assert_allclose(twin(text), logits(network, text), rtol=1e-6, atol=1e-6)


def test_multiplications_by_hand(network):
  """Each kernel is applied at 16 positions; q k^T and p v have 16 x 16 x 16 products each."""
  model, params = network
  positions, products = models.applied(model, (CONTEXT,))
  kernels = 4 * 16 * 16 + 2 * 16 * 64 + 16 * 256
  assert set(positions.values()) == {CONTEXT}
  assert products == 2 * CONTEXT * CONTEXT * 16
  found = sparsejax.sparsity_report(params, positions, products=products)
  assert found['weights'] == kernels
  assert found['macs'] == found['active_macs'] == CONTEXT * kernels + products
  x = jnp.zeros((1, CONTEXT))
  by_program = sparsejax.count_macs(lambda p, x: logits((model, p), x), params, x)
  assert found['macs'] == by_program['macs']


def test_hidden_units_that_are_zero_lose_their_weights_and_nothing_else_does(network):
  model, params = network
  halved = jax.tree.map(lambda leaf: leaf, params)
  up = halved['block1']['up']
  halved['block1']['up'] = {name: leaf.at[..., ::2].set(0) for name, leaf in up.items()}
  clean = models.remove_dead(model, {'params': halved}, (CONTEXT,))['params']
  expected = jax.tree.map(lambda leaf: leaf, halved)
  kernel = halved['block1']['down']['kernel']
  expected['block1']['down'] = halved['block1']['down'] | {'kernel': kernel.at[::2].set(0)}
  jax.tree.map(np.testing.assert_array_equal, clean, expected)


def test_it_shrinks_by_its_hidden_units(network, text):
  model, params = network
  halved = jax.tree.map(lambda leaf: leaf, params)
  up = halved['block1']['up']
  halved['block1']['up'] = {name: leaf.at[..., ::2].set(0) for name, leaf in up.items()}
  small, variables = models.shrink(model, {'params': halved}, (CONTEXT,))
  assert dict(small.widths) == {'block1/up': 32}
  found = small.apply(variables, text, train=False)
  np.testing.assert_allclose(found, logits((model, halved), text), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'width': 16}, r'width=16 must be a multiple of the number of heads \(6\)'),
    ({'heads': 0}, 'heads=0 must be an integer of at least 1'),
    ({'depth': 0}, 'depth=0 must be an integer of at least 1'),
    ({'depth': True}, 'depth=True must be an integer, or None'),
    ({**SIZES, 'widths': STREAM}, "widths='block1/down' must be a layer 'up'"),
    ({**SIZES, 'widths': {'block2/up': 8}}, "unknown layer of widths 'block2/up'"),
    ({'name': 'lenet5', 'depth': 2}, "depth=2 must be None with 'lenet5'"),
    ({'name': 'resnet20', 'heads': 2}, "heads=2 must be None with 'resnet20'"),
  ],
)
def test_impossible_sizes_are_refused_in_one_line(settings, message):
  with pytest.raises(ValueError, match=message) as told:
    models.create(**{'name': 'transformer', **settings})
  assert '\n' not in str(told.value)


@pytest.mark.parametrize(
  ('name', 'shape', 'message'),
  [
    (
      'transformer',
      (1, 8, 8, 1),
      r'Transformer: inputs.shape=\(1, 8, 8, 1\) must be \(examples, bytes',
    ),
    ('lenet300', (1, 128), r'LeNet300: images.shape=\(1, 128\) must be \(examples, height'),
  ],
)
def test_images_are_no_text_and_a_text_is_no_images(name, shape, message):
  with pytest.raises(ValueError, match=message):
    models.create(name).init(jax.random.key(0), jnp.zeros(shape), train=False)


def test_the_twin_takes_any_length_up_to_its_context():
  model = NnxTransformer(width=8, depth=1, heads=2, context=4, rngs=nnx.Rngs(0))
  text = jnp.arange(8.0).reshape(2, 4)
  whole = model(text)
  for length in (1, 3):
    np.testing.assert_allclose(model(text[:, :length]), whole[:, :length], atol=1e-5)
  with pytest.raises(ValueError, match=r'bytes=5 must be at most the context \(4\)'):
    model(jnp.zeros((1, 5)))


def test_a_function_that_makes_a_network_gets_its_sizes(monkeypatch):
  made = {}

  def make(**settings):
    made.update(settings)
    return models.create('lenet300')

  monkeypatch.setitem(models.MODELS, 'mine', make)
  models.create('mine', width=8, depth=3)
  assert (made['width'], made['depth']) == (8, 3)
  assert 'heads' not in made
