"""The moments of each layer's inputs, against those of rows gathered one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from sparsejax.second_order.capture import Capture
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def normal(*shape, seed=0):
  return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def rows_by_hand(x, window, strides, padding, dilation, groups):
  """Returns the im2col rows of NHWC images, (groups, rows, positions in the window * channels)."""
  x = np.pad(x, [(0, 0), *padding, (0, 0)])
  reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
  starts = [
    range(0, size - r + 1, s) for size, r, s in zip(x.shape[1:3], reach, strides, strict=True)
  ]
  rows = []
  for image, top, left in itertools.product(x, *starts):
    taps = [
      image[top + i * dilation[0], left + j * dilation[1]]
      for i, j in itertools.product(*map(range, window))
    ]
    rows.append(
      np.stack(taps).reshape(len(taps), groups, -1).transpose(1, 0, 2).reshape(groups, -1)
    )
  return np.stack(rows, 1).astype(np.float64)


@pytest.mark.parametrize('strides', [(1, 1), (2, 3)])
@pytest.mark.parametrize('padding', [((0, 0), (0, 0)), ((1, 0), (2, 1))])
@pytest.mark.parametrize('dilation', [(1, 1), (2, 1)])
@pytest.mark.parametrize('groups', [1, 2, 4])
def test_a_convolutions_moments_are_those_of_explicit_patches(strides, padding, dilation, groups):
  x = normal(3, 9, 8, 4)
  kernel = normal(3, 2, 4 // groups, 8)

  def function(params, x):
    return jax.lax.conv_general_dilated(
      x,
      params['w'],
      strides,
      padding,
      rhs_dilation=dilation,
      feature_group_count=groups,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  capture = Capture(function, {'w': kernel}, [x[:2], x[2:]], ['w'])
  [layer] = capture.layers
  rows = rows_by_hand(x, (3, 2), strides, padding, dilation, groups)
  moments = capture.moments(layer, {'w': kernel})
  assert moments.rows == rows.shape[1]
  np.testing.assert_allclose(moments.total, rows.mT @ rows, rtol=1e-5, atol=1e-3)
  # The rows times the matrix of the layer are its outputs.
  matrix = kernel.ravel()[layer.places[0]]
  outputs = np.concatenate(list(rows @ matrix.mT), -1)
  np.testing.assert_allclose(outputs, function({'w': kernel}, x).reshape(outputs.shape), atol=1e-4)


def test_the_diagonal_alone():
  x = normal(5, 6, 6, 4)

  def function(params, x):
    return jax.lax.conv(jnp.moveaxis(x, -1, 1), params['w'], (1, 1), 'SAME')  # OIHW

  params = {'w': normal(7, 4, 3, 3)}
  both = []
  for diagonal in (False, True):
    capture = Capture(function, params, [x], ['w'])
    both.append(capture.moments(capture.layers[0], params, diagonal=diagonal))
  np.testing.assert_allclose(both[1].total, both[0].diagonal, rtol=1e-5)


def test_moments_are_float32_in_a_network_of_bfloat16():
  x = normal(64, 8) + 100

  def function(params, x):
    return x.astype(jnp.bfloat16) @ params['w'].astype(jnp.bfloat16)

  params = {'w': normal(8, 4)}
  capture = Capture(function, params, [x], ['w'])
  rows = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
  moments = capture.moments(capture.layers[0], params)
  assert moments.total.dtype == np.float32
  np.testing.assert_allclose(moments.total[0], rows.T @ rows, rtol=1e-5)


def checked(function, params, x, reference):
  """Checks that a layer's outputs are its rows times its matrix, from the moments of both.

  With x^T x of the inputs, the squares of the outputs summed over rows are w x^T x w^T.
  """
  paths = list(reference)
  capture = Capture(function, params, [x[:1], x[1:]], paths)
  assert sorted(layer.path for layer in capture.layers) == sorted(paths)
  named = tree.named_leaves(params)
  for layer in capture.layers:
    total = np.asarray(capture.moments(layer, params).total, np.float64)
    matrix = (
      np.asarray(named[layer.path]).ravel()[layer.places].reshape(-1, *layer.places.shape[2:])
    )
    squares = np.einsum('goi,gij,goj->go', matrix, total, matrix).ravel()
    outputs = np.asarray(reference[layer.path], np.float64)
    wanted = (outputs.reshape(-1, squares.size) ** 2).sum(0)
    np.testing.assert_allclose(squares, wanted, rtol=1e-4)


class Attention(linen.Module):
  @linen.compact
  def __call__(self, x):
    query = linen.DenseGeneral((3, 4), use_bias=False, name='query')(x)
    key = linen.DenseGeneral((3, 4), use_bias=False, name='key')(x)
    value = linen.DenseGeneral((3, 4), use_bias=False, name='value')(x)
    mixed = linen.dot_product_attention(query, key, value)
    return linen.DenseGeneral(6, axis=(-2, -1), use_bias=False, name='out')(mixed)


def test_the_projections_of_an_attention():
  x = normal(3, 5, 6)
  module = Attention()
  params = module.init(jax.random.key(0), x)['params']
  _, found = module.apply({'params': params}, x, capture_intermediates=True)
  outputs = {
    f'{name}/kernel': found['intermediates'][name]['__call__'][0]
    for name in ('query', 'key', 'value', 'out')
  }
  checked(lambda p, x: module.apply({'params': p}, x), params, x, outputs)


def like(weights, params):
  """Returns an NNX state with the values that linen has at the same paths."""
  values = tree.named_leaves(params)
  return jax.tree.unflatten(
    jax.tree.structure(weights), [values[path] for path in tree.paths(weights)]
  )


def test_an_attention_of_flax_in_linen_and_in_nnx():
  x = normal(2, 5, 8)
  module = linen.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
  params = module.init(jax.random.key(0), x)['params']
  twin = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
  names = ('query', 'key', 'value', 'out')
  graph, weights, rest = nnx.split(twin, nnx.Param, ...)
  weights = like(weights, params)
  paths = [f'{name}/kernel' for name in names]
  linen_capture = Capture(lambda p, x: module.apply({'params': p}, x), params, [x], paths)
  nnx_capture = Capture(lambda p, x: nnx.merge(graph, p, rest)(x), weights, [x], paths)
  ours = {one.path: linen_capture.moments(one, params) for one in linen_capture.layers}
  theirs = {one.path: nnx_capture.moments(one, weights) for one in nnx_capture.layers}
  assert set(ours) == set(theirs) == set(paths)
  for path, moments in ours.items():
    np.testing.assert_allclose(theirs[path].total, moments.total, rtol=1e-4, atol=1e-4)


def test_a_stack_of_matrices_has_moments_of_each():
  x = normal(7, 3, 5)  # an example, a member of the stack, inputs
  params = {'w': normal(3, 5, 2)}
  capture = Capture(lambda p, x: jnp.einsum('nsi,sio->nso', x, p['w']), params, [x], ['w'])
  [layer] = capture.layers
  assert layer.places.shape == (3, 1, 2, 5)
  total = capture.moments(layer, params).total
  np.testing.assert_allclose(total, np.einsum('nsi,nsj->sij', x, x), rtol=1e-5, atol=1e-5)


def test_slices_of_a_leaf_are_layers_of_their_own():
  x = normal(7, 4)
  params = {'w': normal(2, 4, 4)}
  capture = Capture(lambda p, x: jnp.tanh(x @ p['w'][0]) @ p['w'][1], params, [x], ['w'])
  assert [(one.path, one.number) for one in capture.layers] == [('w', 0), ('w', 1)]
  capture.moments(capture.layers[0], params)
  hidden = np.tanh(x @ params['w'][0])
  found = capture.moments(capture.layers[1], params).total[0]
  np.testing.assert_allclose(found, hidden.T @ hidden, rtol=1e-4, atol=1e-5)


def test_a_kernel_used_twice_sums_the_moments_of_both():
  x = normal(7, 4)
  params = {'w': normal(4, 4), 'v': normal(4, 2)}

  def function(p, x):
    return jnp.tanh(jnp.tanh(x @ p['w']) @ p['w']) @ p['v']

  capture = Capture(function, params, [x], ['w', 'v'])
  first, last = capture.layers
  moments = capture.moments(first, params)
  hidden = np.tanh(x @ params['w'])
  np.testing.assert_allclose(moments.total[0], x.T @ x + hidden.T @ hidden, rtol=1e-4, atol=1e-5)
  assert moments.rows == 14
  changed = {**params, 'w': 2 * params['w']}
  hidden = np.tanh(np.tanh(x @ changed['w']) @ changed['w'])
  found = capture.moments(last, changed).total[0]
  np.testing.assert_allclose(found, hidden.T @ hidden, rtol=1e-4, atol=1e-5)


def test_an_expression_of_parameters_alone_follows_their_changes():
  x = normal(7, 4)
  params = {'w': normal(4, 3), 'scale': normal(3), 'v': normal(3, 2)}

  def function(p, x):
    return (x @ p['w'] * jnp.exp(p['scale'])[None]) @ p['v']

  capture = Capture(function, params, [x], ['w', 'v'])
  capture.moments(capture.layers[0], params)
  changed = {**params, 'scale': params['scale'] + 1}
  hidden = x @ params['w'] * np.exp(changed['scale'])
  found = capture.moments(capture.layers[1], changed).total[0]
  np.testing.assert_allclose(found, hidden.T @ hidden, rtol=1e-4)


def scan_over_layers(p, x):
  return jax.lax.scan(lambda x, w: (x @ w, None), x, p['w'])[0]


@pytest.mark.parametrize(
  ('function', 'shape', 'match'),
  [
    (scan_over_layers, (2, 4, 4), "goes into 'scan'"),
    (lambda p, x: x @ (p['w'] * 2), (4, 4), "goes into 'mul'"),
    (lambda p, x: x @ p['w'] @ p['w'].T, (4, 3), 'share only some'),
    (lambda p, x: x, (4, 4), 'multiplies no activation'),
    (lambda p, x: x @ (p['w'] @ p['w']), (4, 4), "goes into 'dot_general'"),
  ],
)
def test_a_kernel_that_is_used_otherwise_is_refused(function, shape, match):
  with pytest.raises(ValueError, match=match):
    Capture(function, {'w': normal(*shape)}, [normal(7, 4)], ['w'])


def test_no_batch_is_refused():
  with pytest.raises(ValueError, match='batches is empty'):
    Capture(lambda p, x: x @ p['w'], {'w': normal(4, 4)}, [], ['w'])
