"""Primitives that pin an axis, inputs that are refused, and the check of the result."""

import gc
import weakref
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import cpu_sparse
from sparsejax.compact import evaluate, plan, shrink, shrinking

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def normal(*shape):
  return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def two_layers(between):
  """Returns a function of two dense layers around `between`, with five hidden units."""
  params = {'a': normal(3, 5), 'b': normal(5, 2)}
  params['a'][:, 1] = 0
  return lambda p, x: between(x @ p['a']) @ p['b'], params


@pytest.mark.parametrize(
  ('name', 'between'),
  [
    ('reduce_max', jax.nn.softmax),
    ('reduce_max', lambda x: x - jnp.max(x, -1, keepdims=True)),
    ('sort', lambda x: jnp.sort(x, -1)),
    ('argmax', lambda x: x + jnp.argmax(x, -1, keepdims=True)),
    ('cumsum', lambda x: jnp.cumsum(x, -1)),
    ('fft', lambda x: jnp.real(jnp.fft.fft(x))),
    ('while', lambda x: jax.lax.while_loop(lambda x: False, lambda x: x, x)),
    ('erf_inv', lambda x: x.at[:, 2].set(1.0)),
  ],
)
def test_primitives_that_pin_an_axis(name, between):
  function, params = two_layers(between)
  found = plan(function, params, normal(2, 3))
  assert found.removed == {}
  if name != 'erf_inv':
    assert found.pinned['a'][1].keys() >= {name}
    assert found.pinned['b'][0][name] == 5
  small = shrink(function, params, normal(2, 3))
  np.testing.assert_array_equal(small.params['a'], params['a'])


def test_layer_normalisation_keeps_its_features():
  """A zero feature has a nonzero deviation from the mean, though not a nonzero square."""

  def layer_norm(x):
    x = x - jnp.mean(x, -1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5)

  function, params = two_layers(layer_norm)
  assert plan(function, params, normal(2, 3)).removed == {}
  function, params = two_layers(lambda x: x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-5))
  small = shrink(function, params, normal(2, 3))
  assert small.params['a'].shape == (3, 4)


def test_a_custom_vjp_keeps_every_index_it_touches():
  @jax.custom_vjp
  def own(x):
    return 2 * x

  own.defvjp(lambda x: (own(x), None), lambda _, g: (3 * g,))
  function, params = two_layers(own)
  small = shrink(function, params, normal(2, 3))
  assert small.plan.pinned['a'][1] == {'custom_vjp_call': 5}
  x = normal(4, 3)
  gradients = [
    jax.grad(lambda p, of=of: of(p, x).sum())(params) for of in (function, small.function)
  ]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *gradients)


def test_a_callback_keeps_every_index_it_sees():
  def seen(x):
    jax.debug.callback(lambda x: None, x)
    return x

  function, params = two_layers(seen)
  assert plan(function, params, normal(2, 3)).pinned['a'][1] == {'debug_callback': 5}


def test_inputs_and_outputs_are_kept():
  params = {'a': np.zeros((3, 4), np.float32)}
  found = plan(lambda p, x: x @ p['a'], params, normal(2, 3))
  assert found.removed == {}
  assert found.pinned == {'a': {0: {'an input': 3}, 1: {'an output': 4}}}


def test_indices_that_no_sum_reads_are_kept():
  """Such as rows of a table that longer examples would read, and leaves for training alone."""

  def function(params, x):
    return jnp.tanh(x @ params['a'] + params['rows'][: x.shape[1]][None]) @ params['b']

  params = {'a': normal(3, 5), 'b': normal(5, 2), 'rows': normal(9, 5), 'other': normal(2, 2)}
  params['b'][1] = 0
  small = shrink(function, params, normal(2, 4, 3))
  assert small.params['rows'].shape == (9, 4)
  assert small.params['other'].shape == (2, 2)
  assert small.plan.pinned['rows'][0]['no sum'] == 5
  x = normal(2, 7, 3)
  np.testing.assert_allclose(small.function(small.params, x), function(params, x), atol=1e-5)


def test_params_must_have_values():
  params = {'a': jax.ShapeDtypeStruct((3, 4), jnp.float32)}
  with pytest.raises(ValueError, match='params must be arrays with values'):
    plan(lambda p, x: x @ p['a'], params, normal(2, 3))
  with pytest.raises(ValueError, match='outside jax'):
    jax.jit(lambda p: plan(lambda p, x: x @ p['a'], p, normal(2, 3)))({'a': normal(3, 4)})


def test_params_of_another_shape_are_refused_by_name():
  function, params = two_layers(jnp.tanh)
  small = shrink(function, params, normal(2, 3))
  with pytest.raises(ValueError, match=r"'a' of shape \(3, 5\) must have shape \(3, 4\)"):
    small.function(params, normal(2, 3))


def test_constants_and_pins_that_depend_on_the_batch_size_are_found_anew():
  """A constant may differ from that of the examples, and pins may appear."""

  def function(params, x):
    x = jnp.tanh(x @ params['a'] + params['s'][None]) * len(x)
    return (jax.nn.softmax(x) if len(x) == 5 else x) @ params['b']

  params = {'a': normal(3, 5), 'b': normal(5, 2), 's': normal(5)}
  params['a'][:, 1] = 0
  small = shrink(function, params, normal(2, 3))
  assert small.params['a'].shape == (3, 4)
  x = normal(4, 3)
  np.testing.assert_allclose(small.function(small.params, x), function(params, x), atol=1e-5)
  with pytest.raises(ValueError, match='call shrink with examples of these shapes'):
    small.function(small.params, normal(5, 3))


def test_programs_of_the_shapes_used_last_are_kept(monkeypatch):
  monkeypatch.setattr(shrinking, 'MAX_SHAPES', 2)
  function, params = two_layers(jnp.cos)
  traced = []

  def noted(params, x):
    traced.append(len(x))
    return function(params, x)

  small = shrink(noted, params, normal(2, 3))
  traced.clear()
  for size in (2, 1, 2, 3, 2, 1):  # 3 takes the place of 1, since 2 was used after it
    x = normal(size, 3)
    np.testing.assert_allclose(small.function(small.params, x), function(params, x), atol=1e-5)
  assert traced == [1, 3, 1]


def test_a_program_is_compiled_once_and_forgotten_with_its_shapes(monkeypatch):
  monkeypatch.setattr(shrinking, 'MAX_SHAPES', 2)
  evaluated, original = [], evaluate.Smaller.__call__

  def noted(self, values):
    evaluated.append(weakref.ref(self))
    return original(self, values)

  monkeypatch.setattr(evaluate.Smaller, '__call__', noted)
  function, params = two_layers(jnp.cos)
  small = shrink(function, params, normal(2, 3))
  evaluated.clear()
  for size in (1, 1, 4, 1, 4):
    x = normal(size, 3)
    for given in (x, jnp.asarray(x), x.astype(np.float64)):
      np.testing.assert_allclose(small.function(small.params, given), function(params, x), 1e-5)
  assert len(evaluated) == 2
  small.function(small.params, normal(3, 3))
  gc.collect()
  assert [one() is None for one in evaluated] == [True, False, False]


def test_a_program_that_calls_the_smaller_function_has_its_equations():
  function, params = two_layers(jnp.cos)
  small = shrink(function, params, normal(2, 3))
  names = [
    eqn.primitive.name for eqn in jax.make_jaxpr(small.function)(small.params, normal(2, 3)).eqns
  ]
  assert {'dot_general', 'cos'} <= {*names} <= {'dot_general', 'cos', 'add', 'broadcast_in_dim'}


def test_the_check_sees_a_difference(monkeypatch):
  """Such as the one left by constants that are not added."""
  function, params = two_layers(jnp.cos)
  monkeypatch.setattr(evaluate.Fold, 'add_to', lambda self, value: value)
  with pytest.raises(ValueError, match=r'differ by .*, where their spread is'):
    shrink(function, params, normal(2, 3))


def test_examples_may_be_shapes():
  function, params = two_layers(jnp.cos)
  small = shrink(function, params, jax.ShapeDtypeStruct((2, 3), jnp.float32))
  assert small.params['a'].shape == (3, 4)


class Doubling(NamedTuple):
  """A callable that JAX can't refer to weakly."""

  kernel: str

  def __call__(self, params, x):
    return 2 * jax.nn.relu(x @ params[self.kernel]) @ params['b']


def test_any_callable_is_a_function():
  _, params = two_layers(jax.nn.relu)
  function, x = Doubling('a'), normal(4, 3)
  small = shrink(function, params, x)
  assert small.params['a'].shape == (3, 4)
  np.testing.assert_allclose(small.function(small.params, x), function(params, x), rtol=1e-5)
  fast = cpu_sparse.sparse_apply(function, params, x)
  np.testing.assert_allclose(fast(x), function(params, x), rtol=1e-4, atol=1e-5)
