"""A network trained with masks is, to rounding, the small network without those weights."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import one_shot, prune
from sparsejax.sparsity.parts import allocation

DECAY = optax.add_decayed_weights(0.01)
OPTIMIZERS = {
  'momentum': optax.chain(DECAY, optax.sgd(0.05, momentum=0.9)),
  'adam': optax.adam(0.02),
  'rmsprop': optax.rmsprop(0.005, momentum=0.9),
  'lion': optax.lion(0.005),
}
# These mix all weights, and inside the masks must see none of those removed.
MIXING = {
  'clip': optax.chain(optax.clip_by_global_norm(0.1), OPTIMIZERS['momentum']),
  'lamb': optax.lamb(0.02, weight_decay=0.01),
}
ROUTES = [(name, inside) for name in OPTIMIZERS for inside in (False, True)]
ROUTES += [(name, True) for name in MIXING]
CUT_AT, KEPT = 2, 4  # the step, and so many of six hidden units


def network():
  """Two layers whose last two hidden units have small weights, biases too, and nothing else."""
  rng = np.random.default_rng(0)
  shapes = {'fc1': ((4, 6), (6,)), 'fc2': ((6, 3), (3,))}
  params = {
    name: {
      'kernel': jnp.asarray(rng.choice([-1, 1], shape) * rng.uniform(0.5, 1, shape), jnp.float32),
      'bias': jnp.asarray(rng.uniform(0.5, 1, bias), jnp.float32),
    }
    for name, (shape, bias) in shapes.items()
  }
  params['fc1'] = jax.tree.map(lambda p: p.at[..., KEPT:].multiply(1e-3), params['fc1'])
  params['fc2']['kernel'] = params['fc2']['kernel'].at[KEPT:].multiply(1e-3)
  return params


def apply(params, x):
  hidden = jax.nn.relu(x @ params['fc1']['kernel'] + params['fc1']['bias'][None])
  return hidden @ params['fc2']['kernel'] + params['fc2']['bias'][None]


@jax.jit
def gradient(params):
  rng = np.random.default_rng(1)
  x, y = (jnp.asarray(rng.normal(size=(20, n)), jnp.float32) for n in (4, 3))
  return jax.grad(lambda p: jnp.mean((apply(p, x) - y) ** 2))(params)


def without_the_cut_units(tree):
  """Parameters or an optimizer's state, with its leaves of each parameter cut as it is."""

  def cut(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.endswith(('fc1/kernel', 'fc1/bias')):
      return leaf[..., :KEPT]
    return leaf[:KEPT] if name.endswith('fc2/kernel') else leaf

  return jax.tree_util.tree_map_with_path(cut, tree)


@pytest.mark.parametrize(('name', 'inside'), ROUTES)
def test_it_trains_as_the_small_one(name, inside):
  """The small one starts right after the cut, with the slots of the optimizer as they are then."""
  optimizer = (OPTIMIZERS | MIXING)[name]
  threshold = 0.1 if name == 'lion' else 0.05  # two steps of Lion are 0.01 in every weight
  link = functools.partial(
    prune,
    one_shot(CUT_AT, threshold),
    allocation=allocation.absolute_threshold(),
    parameters='all',
  )
  tx = link(inner=optimizer) if inside else optax.chain(optimizer, link())

  def stepper(tx):
    update = jax.jit(tx.update)

    def step(params, state):
      updates, state = update(gradient(params), state, params)
      return optax.apply_updates(params, updates), state

    return step

  masked_step, small_step = stepper(tx), stepper(optimizer)
  params = network()
  state = tx.init(params)
  for _ in range(CUT_AT + 1):
    params, state = masked_step(params, state)
  # Two columns, two biases and two rows, and nothing else.
  first, second = params['fc1'], params['fc2']
  cut = first['kernel'][:, KEPT:], first['bias'][KEPT:], second['kernel'][KEPT:]
  assert [int(jnp.sum(leaf == 0)) for leaf in cut] == [8, 2, 6]
  assert sum(int(jnp.sum(leaf == 0)) for leaf in jax.tree.leaves(params)) == 16

  start = small = without_the_cut_units(params)
  small_state = without_the_cut_units(state.inner_state if inside else state[0])
  chex.assert_trees_all_equal_shapes_and_dtypes(small_state, optimizer.init(small))
  for _ in range(20):
    params, state = masked_step(params, state)
    small, small_state = small_step(small, small_state)
  moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), small, start)
  assert min(jax.tree.leaves(moved)) > 0.01
  chex.assert_trees_all_close(without_the_cut_units(params), small, rtol=1e-5, atol=1e-6)
  after = without_the_cut_units(state.inner_state if inside else state[0])
  chex.assert_trees_all_close(after, small_state, rtol=1e-4, atol=1e-6)
