"""Random small networks with random zeros always keep their outputs and gradients."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from sparsejax.compact import shrink

pytestmark = pytest.mark.usefixtures('compiling_is_quick')
NHWC = ('NHWC', 'HWIO', 'NHWC')
WIDTH, SIZE = 4, 4


def activate(name, x):
  return {'relu': jax.nn.relu, 'tanh': jnp.tanh, 'cos': jnp.cos, 'softmax': jax.nn.softmax}[name](x)


def convolve(x, kernel, **settings):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), settings.pop('padding', 'SAME'), dimension_numbers=NHWC, **settings
  )


# Each step maps (all values so far, its parameters) to a value; all are images of four channels.
STEPS = {
  'conv': lambda xs, p: convolve(xs[-1], p['k']) + p['b'][None, None, None],
  'depthwise': lambda xs, p: convolve(xs[-1], p['k'][:, :, :1], feature_group_count=WIDTH),
  'grouped': lambda xs, p: convolve(xs[-1], p['k'][:, :, :2], feature_group_count=2),
  'add': lambda xs, p: xs[-1] + xs[0],
  'scale': lambda xs, p: xs[-1] * p['b'][None, None, None],
  'concatenate': lambda xs, p: convolve(
    jnp.concatenate([xs[0], xs[-1]], -1), jnp.concatenate([p['k'], p['k2']], 2)
  ),
  'halves': lambda xs, p: jnp.concatenate([xs[-1][..., 2:], xs[-1][..., :2]], -1),
  'norm': lambda xs, p: xs[-1] / jnp.sqrt(jnp.mean(xs[-1] ** 2, -1, keepdims=True) + 0.1),
  'pool': lambda xs, p: jax.lax.reduce_window(
    xs[-1], -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), 'SAME'
  ),
  'squeeze': lambda xs, p: (
    xs[-1] * jax.nn.sigmoid(xs[-1].mean((1, 2)) @ p['k'][0, 0])[:, None, None]
  ),
  'flat': lambda xs, p: (xs[-1].reshape(len(xs[-1]), -1, 2) ** 2).reshape(xs[-1].shape),
  **{
    name: (lambda xs, p, name=name: activate(name, xs[-1]))
    for name in ('relu', 'tanh', 'cos', 'softmax')
  },
}


@st.composite
def networks(draw):
  names = draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=6))
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))

  def leaf(*shape):
    made = rng.normal(size=shape).astype(np.float32)
    for axis in {len(shape) - 1, len(shape) - 2} & set(range(len(shape))):
      share = rng.choice([0.0, 0.3, 0.6])
      np.moveaxis(made, axis, 0)[rng.random(shape[axis]) < share] = 0
    return made

  def step():
    return {'k': leaf(3, 3, WIDTH, WIDTH), 'k2': leaf(3, 3, WIDTH, WIDTH), 'b': leaf(WIDTH)}

  params = {f'{i}{name}': step() for i, name in enumerate(['in', *names])}
  return names, {**params, 'out': leaf(WIDTH, 2)}


def function_of(names):
  def function(params, x):
    xs = [convolve(x, params['0in']['k'][:, :, :2]) + params['0in']['b'][None, None, None]]
    for i, name in enumerate(names, start=1):
      xs.append(STEPS[name](xs, params[f'{i}{name}']))
    return xs[-1].sum((1, 2)) @ params['out']

  return function


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(networks())
def test_outputs_and_gradients_are_unchanged(network):
  names, params = network
  function = function_of(names)
  images = np.random.default_rng(0).normal(size=(5, SIZE, SIZE, 2)).astype(np.float32)
  small = shrink(function, params, images[:2])

  def both(of, params):
    return jax.value_and_grad(lambda p: jnp.sum(jnp.cos(of(p, images))))(params)

  wanted, whole = jax.jit(lambda p: both(function, p))(params)
  found, gradient = jax.jit(lambda p: both(small.function, p))(small.params)
  assert abs(found - wanted) < 1e-3
  for one, other in zip(
    jax.tree.leaves(gradient), jax.tree.leaves(small.plan.slice(whole)), strict=True
  ):
    scale = max(1.0, float(np.abs(other).max(initial=0)))
    np.testing.assert_allclose(one, other, atol=1e-3 * scale, rtol=0)
