"""Functions with fixed parameters have the same answers with every implementation."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparsejax.cpu_sparse import apply, autotuning, compiling, kernel, sparse_apply
from sparsejax.cpu_sparse.autotuning import VARIABLE

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

IMPLEMENTATIONS = 'kernel', 'bcsr', 'dense'


@pytest.fixture(autouse=True)
def _short_functions():
  with jax.numpy_rank_promotion('allow'):
    yield


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, monkeypatch):
  if request.param == 'kernel':
    try:
      kernel.register()
    except compiling.Unavailable as error:
      pytest.skip(str(error))
  monkeypatch.setenv(VARIABLE, request.param)
  return request.param


def drawn(*shape, density=0.2, seed=0):
  rng = np.random.default_rng((seed, *shape))
  return (rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)


def check(function, params, *examples, others=()):
  """Compares the answers with the function's own, for the examples and for other inputs."""
  params = jax.tree.map(jnp.asarray, params)
  made = sparse_apply(function, params, *examples)
  for inputs in (examples, *others):
    wanted, found = jax.jit(function)(params, *inputs), jax.jit(lambda *x: made(*x))(*inputs)
    for one, other in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
      assert one.shape == other.shape
      assert one.dtype == other.dtype
      np.testing.assert_allclose(other, one, atol=1e-5 * max(1.0, np.abs(one).max()))
  return made


def conv(x, weights, strides=(1, 1), padding='SAME', **rest):
  numbers = rest.pop('numbers', ('NHWC', 'HWIO', 'NHWC'))
  return lax.conv_general_dilated(x, weights, strides, padding, dimension_numbers=numbers, **rest)


def images(batch, height=9, width=8, channels=3):
  return drawn(batch, height, width, channels, density=1.0)


def test_dense_layers_of_any_batch_size(implementation):
  params = {'a': drawn(20, 30), 'b': drawn(30), 'c': drawn(30, 4)}

  def function(p, x):
    return jax.nn.relu(x @ p['a'] + p['b']) @ p['c']

  inputs = [(drawn(n, 20, density=1.0),) for n in (16, 1, 3, 64)]
  made = check(function, params, *inputs[0], others=inputs[1:])
  assert [layer.name for layer in made.layers] == ['a', 'c']
  assert {layer.implementation for layer in made.layers} == {implementation}


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((2, 0), (1, 3))])
def test_convolutions(implementation, padding):
  params = {'a': drawn(3, 3, 3, 8), 'b': drawn(8), 'c': drawn(1, 1, 8, 6), 'd': drawn(2, 4, 6, 5)}

  def function(p, x):
    x = jax.nn.relu(conv(x, p['a'], padding=padding) + p['b'])
    x = conv(conv(x, p['c'], (2, 2)), p['d'], (2, 1))
    return x.mean((1, 2))

  check(function, params, images(3), others=[(images(n),) for n in (1, 16, 64)])


def test_unsupported_products_are_not_replaced(implementation):
  params = {'grouped': drawn(3, 3, 1, 6), 'spread': drawn(3, 3, 6, 4), 'pairs': drawn(2, 4, 5)}

  def function(p, x):
    x = conv(x, p['grouped'], feature_group_count=3)
    x = conv(x, p['spread'], padding=((1, 1), (2, 0)), lhs_dilation=(2, 2))
    pairs = jnp.stack([x.mean((1, 2)), x.max((1, 2))])
    return jnp.einsum('pbc,pcd->pbd', pairs, p['pairs'])

  assert not check(function, params, images(4)).layers


def test_other_layouts_of_a_convolution(implementation):
  params = {'a': drawn(5, 3, 3, 3), 'b': drawn(4, 5, 2)}

  def function(p, x):
    x = conv(x, p['a'], rhs_dilation=(2, 1), numbers=('NCHW', 'OIHW', 'NCHW'))
    x = jnp.tanh(x).sum(2)
    return conv(x, p['b'], (2,), numbers=('NCH', 'OIH', 'NCH'))

  made = check(function, params, images(5, channels=3).transpose(0, 3, 1, 2))
  assert [layer.shape for layer in made.layers] == [(5, 3, 3, 3), (4, 5, 1, 2)]


def test_convolutions_of_one_tap_with_channels_first(implementation):
  params = {'a': drawn(6, 3, 1, 1), 'b': drawn(4, 6, 1)}

  def function(p, x):
    x = conv(x, p['a'], numbers=('NCHW', 'OIHW', 'NCHW'))
    return conv(jnp.tanh(x).sum(2), p['b'], (1,), numbers=('NCH', 'OIH', 'NCH'))

  made = check(function, params, images(3, channels=3).transpose(0, 3, 1, 2))
  assert [layer.shape for layer in made.layers] == [(6, 3, 1, 1), (4, 6, 1, 1)]


def test_a_weak_number_does_not_change_the_dtype(implementation):
  params = {'w': drawn(6, 4).astype(jnp.bfloat16)}
  x = drawn(3, 6, density=1.0).astype(jnp.bfloat16)
  made = apply.sparse_apply(lambda p, x, scale: (x @ p['w']) * scale, params, x, 2.0)
  assert made(x, 2.0).dtype == jnp.bfloat16


def test_several_axes_in_one_product(implementation):
  params = {'in': drawn(6, 2, 5), 'out': drawn(2, 5, 7), 'left': drawn(3, 7)}

  def function(p, x):
    heads = jax.nn.relu(jnp.einsum('btd,dhk->bthk', x, p['in']))
    x = jnp.einsum('bthk,hkd->btd', heads, p['out'])
    return lax.dot_general(p['left'], x, (((1,), (2,)), ((), ())))

  assert len(check(function, params, drawn(3, 4, 6, density=1.0)).layers) == 3


def test_scales_biases_and_relu_are_fused(implementation):
  params = {'w': drawn(3, 3, 3, 8), **{n: drawn(8, density=1.0, seed=1) for n in 'bmgs'}}
  params['v'] = np.abs(drawn(8, density=1.0, seed=2)) + 0.1

  def function(p, x):
    x = conv(x, p['w']) + p['b'] - p['m']
    x = x * (lax.rsqrt(p['v'] + 1e-5) * p['g']) + p['s']
    return jax.nn.relu(2.0 - x / 3.0)

  check(function, params, images(3))
  program = apply._SparseProgram(function, params, (images(3),)).at((images(3),))
  assert [step.relu for step in program.trace.steps] == [True]


def test_a_value_with_two_readers_is_not_fused(implementation):
  params = {'w': drawn(6, 6), 'b': drawn(6)}

  def function(p, x):
    y = x @ p['w']
    return jax.nn.relu(y + p['b']) + y, y

  check(function, params, drawn(4, 6, density=1.0))


def test_a_scale_that_is_not_finite_is_not_fused(implementation):
  params = {'w': drawn(6, 6), 'zero': jnp.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0])}

  def function(p, x):
    return jnp.nan_to_num((x @ p['w']) / p['zero'], posinf=3.0, neginf=-3.0, nan=0.0)

  check(function, params, np.ones((4, 6), np.float32))


def test_operations_between_layers(implementation):
  """Pooling, addition, concatenation, padding and flattening of values with permuted axes."""
  params = {'a': drawn(3, 3, 3, 4), 'b': drawn(3, 3, 4, 4), 'c': drawn(4 * 4 * 9, 5)}

  def pool(x, init, of, window, strides, padding):
    return lax.reduce_window(x, init, of, (1, *window, 1), (1, *strides, 1), padding)

  def function(p, x):
    x = jnp.tanh(conv(x, p['a']))
    x = x + conv(x, p['b'])
    largest = pool(x, -jnp.inf, lax.max, (2, 2), (2, 2), 'VALID')
    mean = pool(x, 0.0, lax.add, (3, 3), (2, 2), 'SAME')[:, :4, :4] / 9
    corners = x[:, :8].reshape(-1, 4, 2, 4, 2, 4)
    x = jnp.concatenate([largest, mean, corners.max((2, 4))], -1)
    x = jnp.where(x > 0, x, 0.1 * x)[..., :9]
    return jax.nn.log_softmax(x.reshape(len(x), -1) @ p['c'])

  check(function, params, images(3), others=[(images(1),)])


def test_transposed_squeezed_and_padded(implementation):
  params = {'a': drawn(5, 4), 'b': drawn(6, 3)}

  def function(p, x):
    x = (x @ p['a'])[:, None].squeeze(1)
    x = jnp.pad(x.T, ((1, 1), (0, 0)), constant_values=2.0)
    return x.T @ p['b']

  check(function, params, drawn(7, 5, density=1.0))


def test_a_kernel_of_zeros(implementation):
  check(lambda p, x: x @ p['w'] + p['b'], {'w': np.zeros((3, 2), np.float32), 'b': np.ones(2)},
        np.ones((4, 3), np.float32))  # fmt: skip


def test_kernels_computed_from_parameters(implementation):
  params = {'w': drawn(6, 4, density=1.0), 'mask': drawn(6, 4) != 0, 'steps': np.arange(3)}

  def function(p, x):
    return (x @ (p['w'] * p['mask'])) * p['steps'].sum(), x + 1

  [layer] = check(function, params, drawn(5, 6, density=1.0)).layers
  assert layer.name == 'w'
  assert layer.sparsity == pytest.approx(np.mean(~params['mask']))


def test_products_of_other_dtypes_are_not_replaced(implementation):
  params = {'w': drawn(6, 4).astype(jnp.bfloat16)}
  made = check(lambda p, x: x @ p['w'], params, jnp.ones((5, 6), jnp.bfloat16))
  assert not made.layers


def test_pytrees_as_inputs_and_outputs(implementation):
  params = {'w': drawn(6, 4)}

  def function(p, x, which):
    return {'logits': jnp.where(which['flag'], x @ p['w'], 0.0), 'same': which}

  check(function, params, drawn(5, 6, density=1.0), {'flag': np.array(True)})


def test_programs_of_the_shapes_used_last_are_kept(monkeypatch):
  monkeypatch.setenv(VARIABLE, 'dense')
  monkeypatch.setattr(apply, 'MAX_SHAPES', 2)
  traced, params = [], drawn(3, 2)

  def function(p, x):
    traced.append(len(x))
    return x @ p

  def call(size):
    x = drawn(size, 3, density=1.0)
    np.testing.assert_allclose(program.call(x), x @ params, atol=1e-6)

  program = apply._SparseProgram(function, params, (drawn(1, 3),))
  layer = weakref.ref(program.at((drawn(1, 3),)).trace.steps[0])
  for size in (1, 2, 1, 3, 1, 2):  # 3 takes the place of 2, since 1 was used after it
    call(size)
  assert traced == [1, 2, 3, 2]
  gc.collect()
  assert layer() is not None
  call(4)
  call(5)
  gc.collect()
  assert layer() is None


def slower_when_sparse(calls):
  """Times every single layer as faster by a sparse implementation, and the whole as slower."""
  return {name: float((name == 'dense') != ('sparse' in calls)) for name in calls}


def test_what_stays_dense_is_compiled_with_its_refusal_of_gradients(monkeypatch):
  monkeypatch.setattr(autotuning, 'measure', slower_when_sparse)
  params, x = drawn(6, 4), drawn(64, 6, density=1.0)
  made = sparse_apply(lambda p, x: jax.nn.relu(x @ p), params, x)
  assert made.seconds == {'sparse': 1.0, 'dense': 0.0}
  monkeypatch.setattr(jax.custom_jvp, '__call__', None)  # what Python must not follow at a call
  wanted = np.maximum(x @ params, 0.0)
  np.testing.assert_allclose(made(x), wanted, atol=1e-6)
  np.testing.assert_allclose(jax.jit(lambda x: made(x))(x), wanted, atol=1e-6)
  monkeypatch.undo()
  np.testing.assert_allclose(jax.vmap(made)(x[:5]), wanted[:5], atol=1e-6)
  with pytest.raises(TypeError, match='gives no gradients: differentiate'):
    jax.grad(lambda x: made(x).sum())(x)


# Errors


def test_no_gradients():
  made = sparse_apply(lambda p, x: x @ p, np.zeros((3, 2), np.float32), np.ones((1, 3)))
  with pytest.raises(TypeError, match='gives no gradients: differentiate'):
    jax.grad(lambda x: made(x).sum())(np.ones((1, 3), np.float32))


def test_different_answers_are_rejected(monkeypatch):
  monkeypatch.setenv(VARIABLE, 'dense')
  params = np.array([[1.0], [-1.0]], np.float32)
  original = apply.fuse_products

  def damaged(*given):
    [layer] = original(*given)
    layer.bias = layer.bias + 0.1
    return [layer]

  monkeypatch.setattr(apply, 'fuse_products', damaged)
  with pytest.raises(ValueError, match=r'would differ by 0\.1, where their spread is 2'):
    sparse_apply(lambda p, x: x @ p, params, np.array([[2.0, 0.0], [0.0, 2.0]], np.float32))


@pytest.mark.parametrize('name', ['params', 'examples'])
def test_shapes_without_values_are_rejected(name):
  array, shape = np.ones((2, 2), np.float32), jax.ShapeDtypeStruct((2, 2), jnp.float32)
  given = (shape, array) if name == 'params' else (array, shape)
  with pytest.raises(ValueError, match=f'{name} must be arrays with numbers'):
    sparse_apply(lambda p, x: x @ p, *given)
