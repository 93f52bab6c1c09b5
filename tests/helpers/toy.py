"""Toys for the tests of the links: small parameters, a gradient, and a loop that trains them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from trials import gradient


class Norm(NamedTuple):
  scale: jax.Array
  bias: jax.Array | None


def network():
  """Kernels of 24 + 48 weights, biases, and a BatchNorm whose shift is all zeros."""
  rng = np.random.default_rng(0)
  conv, conv_bias, head, head_bias = (
    jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 2, 2, 3), (3,), (6, 8), (8,))
  )
  return {
    'conv': {'kernel': conv, 'bias': conv_bias},
    'norm': Norm(jnp.ones(3), jnp.zeros(3)),
    'head': {'kernel': head, 'bias': head_bias},
  }


def layer():
  """One layer, where one is enough."""
  rng = np.random.default_rng(1)
  return {
    'kernel': jnp.asarray(rng.normal(size=(4, 5)), jnp.float32),
    'bias': jnp.asarray(rng.normal(size=(5,)), jnp.float32),
  }


WEIGHTS, PARAMETERS = 24 + 48, 24 + 3 + 6 + 48 + 8


def kernels(tree):
  return [tree['conv']['kernel'], tree['head']['kernel']]


def count(masks):
  return sum(int(jnp.sum(mask)) for mask in masks)


def zeros(params):
  return sum(int(jnp.sum(leaf == 0)) for leaf in kernels(params))


def masks_of(state):
  return optax.tree.get(state, 'masks')


def train(tx, params, steps, *, pass_grad=False, jit=True):
  """The parameters and the state before the first step and after each."""

  def step(params, state, t):
    grad = gradient(params, t)
    extra = {'grad': grad} if pass_grad else {}
    updates, state = tx.update(grad, state, params, **extra)
    return optax.apply_updates(params, updates), state

  step = jax.jit(step) if jit else step
  history = [(params, tx.init(params))]
  for t in range(steps):
    history.append(step(*history[-1], jnp.float32(t)))
  return history


def sgd(momentum=0.9, weight_decay=0.0):
  decay = optax.add_decayed_weights(weight_decay)
  return optax.chain(decay, optax.trace(momentum), optax.scale_by_learning_rate(0.05))
