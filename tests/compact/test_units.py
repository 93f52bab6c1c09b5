"""Small networks worked out by hand: the units removed and kept, and unchanged outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax
from sparsejax.compact import plan, shrink

pytestmark = pytest.mark.usefixtures('compiling_is_quick')
NHWC = ('NHWC', 'HWIO', 'NHWC')


def normal(*shape, seed=0):
  return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def conv(x, kernel, stride=1, padding='SAME', **settings):
  strides = (stride, stride)
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=NHWC, **settings
  )


def shapes(small):
  return jax.tree.map(np.shape, small.params)


def agree(function, params, small, *inputs, close=1e-5):
  """Checks that the smaller network has the outputs and gradients of the whole one."""

  def both(of, at):
    made, pull = jax.vjp(lambda p: of(p, *inputs), at)
    return made, pull(normal(*made.shape))[0]

  wanted, whole = jax.jit(lambda p: both(function, p))(params)
  found, gradient = jax.jit(lambda p: both(small.function, p))(small.params)
  np.testing.assert_allclose(found, wanted, atol=close * np.abs(wanted).max(), rtol=0)
  for one, other in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(small.plan.slice(whole)), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=close * (np.abs(other).max() + 1e-3), rtol=0)


def dense(params, x):
  x = jax.nn.relu(x @ params['a'] + params['b'][None])
  return x @ params['c'] + params['d'][None]


def dense_params():
  return {'a': normal(3, 6), 'b': normal(6), 'c': normal(6, 2), 'd': normal(2)}


def test_a_unit_without_weights_leaves_a_constant_from_its_bias():
  params = dense_params()
  params['a'][:, [1, 4]] = 0
  params['b'][[1, 4]] = 0.7, -0.7  # one is 0.7 after the ReLU, the other 0
  small = shrink(dense, params, normal(4, 3))
  assert shapes(small) == {'a': (3, 4), 'b': (4,), 'c': (4, 2), 'd': (2,)}
  agree(dense, params, small, normal(5, 3, seed=1))


def test_a_unit_that_nothing_reads_is_removed():
  params = dense_params()
  params['c'][2] = 0
  small = shrink(dense, params, normal(4, 3))
  assert small.plan.removed == {'a': {1: (2,)}, 'b': {0: (2,)}, 'c': {0: (2,)}}
  agree(dense, params, small, normal(5, 3))


def test_nothing_is_removed_where_nothing_is_dead():
  params = dense_params()
  small = shrink(dense, params, normal(4, 3))
  assert small.plan.removed == {}
  assert small.params['a'] is params['a']


def test_every_axis_keeps_at_least_one_index():
  params = dense_params()
  params['c'][:] = 0
  small = shrink(dense, params, normal(4, 3))
  assert shapes(small) == {'a': (3, 1), 'b': (1,), 'c': (1, 2), 'd': (2,)}
  agree(dense, params, small, normal(5, 3))


def test_a_unit_that_only_a_removed_unit_read_is_removed_too():
  def function(params, x):
    return jnp.tanh(jnp.tanh(x @ params['a']) @ params['b']) @ params['c']

  params = {'a': normal(3, 5), 'b': normal(5, 4), 'c': normal(4, 2)}
  params['b'][0, 1:] = 0  # unit 0 is read by unit 0 of the next layer alone,
  params['c'][0] = 0  # which nothing reads
  small = shrink(function, params, normal(4, 3))
  assert shapes(small) == {'a': (3, 4), 'b': (4, 3), 'c': (3, 2)}
  agree(function, params, small, normal(4, 3))


def test_a_constant_that_depends_on_a_kept_parameter_keeps_its_unit():
  """Otherwise the gradient of that parameter would not be the masked network's."""

  def function(params, x):
    return (params['s'][0] * jnp.tanh(x @ params['a'] + params['b'][None])) @ params['c']

  params = {'a': normal(3, 5), 'b': normal(5), 'c': normal(5, 2), 's': np.zeros(1, np.float32)}
  small = shrink(function, params, normal(4, 3))
  assert small.plan.removed == {}
  params['s'][:] = 2.0
  params['a'][:, 1] = 0
  small = shrink(function, params, normal(4, 3))
  assert small.plan.removed == {}
  params['b'][1] = 0
  small = shrink(function, params, normal(4, 3))
  assert shapes(small) == {'a': (3, 4), 'b': (4,), 'c': (4, 2), 's': (1,)}
  agree(function, params, small, normal(4, 3))


def batch_norm(x, p):
  wide = {name: p[name][None, None, None] for name in ('mean', 'var', 'scale', 'shift')}
  factor = jax.lax.rsqrt(wide['var'] + 1e-5) * wide['scale']
  return (x - wide['mean']) * factor + wide['shift']


def norm_params(size):
  found = {name: normal(size, seed=i) for i, name in enumerate(('mean', 'scale', 'shift'))}
  return {**found, 'var': np.abs(normal(size, seed=9)) + 0.5}


def conv_net(params, x):
  x = jax.nn.relu(batch_norm(conv(x, params['a']), params['n']))
  return jnp.mean(conv(x, params['b'], 2), (1, 2))


def test_a_convolution_and_batch_norm_with_constants_of_both_signs():
  """At borders the next layer reads less of the constant, so the added constant varies."""
  params = {'a': normal(3, 3, 2, 6), 'n': norm_params(6), 'b': normal(3, 3, 6, 4)}
  params['a'][..., [0, 3, 5]] = 0
  params['n']['shift'][[0, 3, 5]] = 1.0, -1.0, 2.0
  params['n']['mean'][[0, 3, 5]] = 0.3, 0.5, -0.4
  small = shrink(conv_net, params, normal(2, 8, 8, 2))
  assert shapes(small)['a'] == (3, 3, 2, 3)
  assert shapes(small)['b'] == (3, 3, 3, 4)
  assert shapes(small)['n']['var'] == (3,)
  agree(conv_net, params, small, normal(3, 8, 8, 2))


def test_another_size_of_image_has_its_own_border():
  params = {'a': normal(3, 3, 2, 4), 'n': norm_params(4), 'b': normal(3, 3, 4, 4)}
  params['a'][..., 0] = 0
  params['n']['shift'][0] = 3.0
  small = shrink(conv_net, params, normal(2, 8, 8, 2))
  agree(conv_net, params, small, normal(3, 5, 6, 2))


def test_depthwise_convolutions_lose_single_channels():
  def function(params, x):
    x = jax.nn.relu(conv(x, params['a']) + params['s'][None, None, None])
    x = jax.nn.relu(conv(x, params['d'], feature_group_count=4))
    return jnp.sum(conv(x, params['b']), (1, 2))

  params = {
    'a': normal(1, 1, 3, 4),
    's': normal(4),
    'd': normal(3, 3, 1, 4),
    'b': normal(1, 1, 4, 2),
  }
  params['a'][..., 1] = 0
  params['s'][1] = 0.8  # to which the depthwise convolution gives a border
  params['d'][..., 2] = 0
  small = shrink(function, params, normal(2, 6, 6, 3))
  assert shapes(small) == {'a': (1, 1, 3, 2), 's': (2,), 'd': (3, 3, 1, 2), 'b': (1, 1, 2, 2)}
  agree(function, params, small, normal(3, 6, 6, 3))


def test_grouped_convolutions_lose_whole_groups():
  def function(params, x):
    x = jax.nn.relu(conv(x, params['a']))
    x = jax.nn.relu(conv(x, params['g'], feature_group_count=3))
    return jnp.sum(x, (1, 2)) @ params['b']

  params = {'a': normal(3, 3, 2, 6), 'g': normal(3, 3, 2, 6), 'b': normal(6, 2)}
  params['b'][[0, 1, 2]] = 0  # the whole first group, half of the second
  small = shrink(function, params, normal(2, 5, 5, 2))
  assert shapes(small) == {'a': (3, 3, 2, 4), 'g': (3, 3, 2, 4), 'b': (4, 2)}
  agree(function, params, small, normal(3, 5, 5, 2))


def test_transposed_convolutions_lose_channels():
  def function(params, x):
    x = jax.nn.relu(conv(x, params['a']) + params['s'][None, None, None])
    x = jax.lax.conv_transpose(x, params['t'], (2, 2), 'SAME', dimension_numbers=NHWC)
    return jnp.tanh(x)

  params = {'a': normal(3, 3, 2, 4), 's': normal(4), 't': normal(3, 3, 4, 2)}
  params['a'][..., :2] = 0
  params['s'][0] = 1.0
  small = shrink(function, params, normal(2, 5, 5, 2))
  assert shapes(small) == {'a': (3, 3, 2, 2), 's': (2,), 't': (3, 3, 2, 2)}
  agree(function, params, small, normal(2, 5, 5, 2))


def residual(params, x):
  x = x @ params['in']
  for name in ('1', '2'):
    x = x + jax.nn.relu(x @ params['a' + name]) @ params['b' + name]
  return x @ params['out']


def residual_params():
  params = {'in': normal(3, 5), 'out': normal(5, 2)}
  for name in ('1', '2'):
    params |= {'a' + name: normal(5, 4), 'b' + name: normal(4, 5)}
  return params


def test_a_residual_stream_loses_a_feature_everywhere_or_nowhere():
  params = residual_params()
  params['in'][:, 2] = params['b1'][:, 2] = 0
  assert plan(residual, params, normal(1, 3)).removed == {}  # the second block still writes to it
  params['b2'][:, 2] = 0
  small = shrink(residual, params, normal(1, 3))
  assert shapes(small)['in'] == (3, 4)
  assert shapes(small)['b2'] == (4, 4)
  agree(residual, params, small, normal(4, 3))


def test_ties_name_all_slices_of_a_residual_stream():
  ties = plan(residual, residual_params(), normal(1, 3)).ties
  stream = next(tie for tie in ties if tie.slices.get('out') == {0: (2,)})
  axes = {'a1': 0, 'a2': 0, 'b1': 1, 'b2': 1, 'in': 1, 'out': 0}
  assert stream.slices == {path: {axis: (2,)} for path, axis in axes.items()}
  assert len(ties) == 5 + 4 + 4


def test_a_flattened_channel_has_many_rows():
  def function(params, x):
    x = jax.nn.relu(conv(x, params['a']))
    return x.reshape(len(x), -1) @ params['b']

  params = {'a': normal(3, 3, 2, 3), 'b': normal(4 * 4 * 3, 2)}
  params['a'][..., 1] = 0
  small = shrink(function, params, normal(2, 4, 4, 2))
  assert shapes(small) == {'a': (3, 3, 2, 2), 'b': (4 * 4 * 2, 2)}
  np.testing.assert_array_equal(small.params['b'], np.delete(params['b'], np.s_[1::3], 0))
  agree(function, params, small, normal(5, 4, 4, 2))


def test_concatenated_and_split_values_lose_units():
  def function(params, x):
    both = jnp.concatenate([jnp.tanh(x @ params['a']), jnp.tanh(x @ params['b'])], -1)
    left, right = jnp.split(both @ params['c'], 2, -1)
    return (jax.nn.silu(left) * right) @ params['d']

  params = {'a': normal(3, 4), 'b': normal(3, 5), 'c': normal(9, 8), 'd': normal(4, 2)}
  params['a'][:, 0] = params['b'][:, 3] = 0
  params['c'][:, 2] = 0  # half of a gated unit; the other half is 6
  small = shrink(function, params, normal(2, 3))
  assert shapes(small) == {'a': (3, 3), 'b': (3, 4), 'c': (7, 6), 'd': (3, 2)}
  agree(function, params, small, normal(4, 3))


def test_pooled_and_padded_channels_are_removed():
  def function(params, x):
    x = jax.nn.relu(conv(x, params['a']) + params['s'][None, None, None])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), 'SAME')
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 2)))  # as a shortcut without weights does
    return jnp.mean(conv(x, params['b']), (1, 2))

  params = {'a': normal(3, 3, 2, 4), 's': normal(4), 'b': normal(3, 3, 7, 2)}
  params['a'][..., [0, 2]] = 0
  params['s'][[0, 2]] = 1.5, -1
  small = shrink(function, params, normal(2, 8, 8, 2))
  assert shapes(small)['a'] == (3, 3, 2, 2)
  assert shapes(small)['b'][2] <= 5
  agree(function, params, small, normal(3, 8, 8, 2))


def attention(params, x):
  q, k, v = (jnp.einsum('btd,dhk->bthk', x, params[name]) for name in 'qkv')
  weights = jax.nn.softmax(jnp.einsum('bqhk,bthk->bhqt', q, k))
  return jnp.einsum('bhqt,bthk,hkd->bqd', weights, v, params['o'])


def test_attention_loses_heads_and_features_of_all_heads():
  params = {name: normal(6, 4, 3, seed=ord(name)) for name in 'qkv'} | {'o': normal(4, 3, 6)}
  params['o'][1] = 0  # nothing reads head 1
  params['v'][:, :, 2] = 0  # the last feature of every value
  params['k'][:, :, 0] = 0  # the first feature of every key
  small = shrink(attention, params, normal(2, 5, 6))
  assert shapes(small) == {'q': (6, 3, 2), 'k': (6, 3, 2), 'v': (6, 3, 2), 'o': (3, 2, 6)}
  agree(attention, params, small, normal(3, 7, 6))


def test_heads_in_one_matrix_are_removed_whole():
  def function(params, x):
    q, k, v = (jnp.split(x @ params['qkv'], 3, -1)[i].reshape(*x.shape[:2], 4, 3) for i in range(3))
    weights = jax.nn.softmax(jnp.einsum('bqhk,bthk->bhqt', q, k))
    return jnp.einsum('bhqt,bthk->bqhk', weights, v).reshape(*x.shape[:2], 12) @ params['o']

  params = {'qkv': normal(6, 36), 'o': normal(12, 6)}
  params['o'][:4] = 0  # head 0, and a third of head 1
  small = shrink(function, params, normal(2, 5, 6))
  assert shapes(small) == {'qkv': (6, 27), 'o': (9, 6)}
  agree(function, params, small, normal(2, 5, 6))


def test_embeddings_lose_features():
  def function(params, tokens):
    return jnp.tanh(params['table'][tokens] @ params['a']).sum(1) @ params['b']

  params = {'table': normal(11, 5), 'a': normal(5, 4), 'b': normal(4, 2)}
  params['table'][:, 2] = 0
  params['a'][3] = 0
  tokens = np.arange(6).reshape(2, 3)
  small = shrink(function, params, tokens)
  assert shapes(small) == {'table': (11, 3), 'a': (3, 4), 'b': (4, 2)}
  np.testing.assert_allclose(
    small.function(small.params, tokens + 5), function(params, tokens + 5), atol=1e-6
  )


def test_layers_of_a_scan_lose_units_that_are_dead_in_all():
  def function(params, x):
    def layer(x, p):
      return x + jax.nn.relu(x @ p['a'] + p['s'][None]) @ p['b'], None

    return jax.lax.scan(layer, x @ params['in'], params['layers'])[0] @ params['out']

  layers = {'a': normal(3, 4, 6), 's': normal(3, 6), 'b': normal(3, 6, 4)}
  params = {'in': normal(2, 4), 'layers': layers, 'out': normal(4, 2)}
  layers['a'][:, :, 0] = layers['s'][:, 0] = 0  # in all three layers
  layers['b'][:, 1] = 0
  layers['b'][0, 2] = 0  # in one layer alone
  small = shrink(function, params, normal(2, 2))
  assert shapes(small)['layers'] == {'a': (3, 4, 4), 's': (3, 4), 'b': (3, 4, 4)}
  agree(function, params, small, normal(5, 2))


def test_inner_functions_are_followed():
  """Those compiled, rematerialised, or with a derivative of their own."""

  @jax.custom_jvp
  def twice(x):
    return 2 * x

  @twice.defjvp
  def _(primals, tangents):
    return twice(*primals), 5 * tangents[0]  # not 2, so that its use shows

  def function(params, x):
    layer = jax.checkpoint(jax.jit(lambda x: twice(jnp.tanh(x @ params['a']))))
    return layer(x) @ params['b']

  params = {'a': normal(3, 5), 'b': normal(5, 2)}
  params['a'][:, 2] = 0
  small = shrink(function, params, normal(2, 3))
  assert shapes(small) == {'a': (3, 4), 'b': (4, 2)}
  agree(function, params, small, normal(4, 3))


def test_the_derivative_of_relu_at_zero_is_kept():
  """It is 0, where that of a maximum would be a half."""
  params = dense_params()
  params['a'][:, [1, 3]] = 0
  params['b'][:] = 0
  params['c'][3] = 0
  small = shrink(dense, params, normal(4, 3))
  x = np.zeros((2, 3), np.float32)
  agree(dense, params, small, x)


def test_the_smaller_function_is_compiled_and_mapped():
  params = dense_params()
  params['a'][:, 1] = 0
  params['b'][1] = 1.0
  small = shrink(dense, params, normal(4, 3))
  x = normal(7, 3)
  np.testing.assert_allclose(jax.jit(small.function)(small.params, x), dense(params, x), atol=1e-5)
  stack = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), small.params)
  both = jax.vmap(small.function, (0, None))(stack, x)
  np.testing.assert_allclose(both[0], dense(params, x), atol=1e-5)
  each = jax.vmap(lambda x: small.function(small.params, x[None])[0])(x)
  np.testing.assert_allclose(each, dense(params, x), atol=1e-5)


def test_second_derivatives_are_the_whole_networks():
  params = dense_params()
  params['a'][:, 1] = 0
  small, x = shrink(dense, params, normal(4, 3)), normal(7, 3)

  along = jax.tree.map(np.copy, params)  # removed entries are not trained
  along['b'][1] = along['c'][1] = 0

  def second(of, at, along):
    gradient = jax.grad(lambda p: jnp.sum(of(p, x) ** 2))
    return jax.jit(lambda p, along: jax.jvp(gradient, (p,), (along,))[1])(at, along)

  found = second(small.function, small.params, small.plan.slice(along))
  wanted = small.plan.slice(second(dense, params, along))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), found, wanted)


def test_a_kept_weight_may_be_trained_further():
  params = dense_params()
  params['a'][:, 1] = 0
  params['b'][1] = 1.0
  small = shrink(dense, params, normal(4, 3))
  changed = {**params, 'd': params['d'] + 1, 'a': params['a'] * 2}
  x = normal(7, 3)
  found = small.function(small.plan.slice(changed), x)
  np.testing.assert_allclose(found, dense(changed, x), atol=1e-5)


def test_compact_is_in_the_public_index():
  assert sparsejax.compact.shrink is shrink
