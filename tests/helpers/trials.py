"""Running a transformation on small trees: what the points of its contract look at."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Make = Callable[..., optax.GradientTransformation]
STEPS = 4  # enough for an example to do something at steps 1 and 3


class Norm(NamedTuple):
  scale: jax.Array
  shift: jax.Array | None


class Network(NamedTuple):
  """A tree that can be called, as a model of Equinox can."""

  blocks: list
  head: tuple
  temperature: jax.Array

  def __call__(self, x):
    return x


def layer(dtype: Any = jnp.float32) -> dict[str, jax.Array]:
  """A kernel of 8 inputs and 6 outputs with no two equal and no tiny values, and its bias."""
  rng = np.random.default_rng(0)
  kernel = rng.choice([-1, 1], (8, 6)) * rng.permutation(np.linspace(0.5, 1.5, 48)).reshape(8, 6)
  return {'kernel': jnp.asarray(kernel, dtype), 'bias': jnp.linspace(0.7, 0.8, 6, dtype=dtype)}


def every_kind_of_tree() -> Network:
  """Lists, tuples, NamedTuples, nested dicts, a scalar, BatchNorm, and a hole as Equinox has."""
  rng = np.random.default_rng(1)
  filters = jnp.asarray(rng.normal(size=(3, 3, 4, 2)), jnp.float32)
  return Network(
    blocks=[{'conv': {'kernel': filters, 'bias': jnp.ones(2)}, 'norm': Norm(jnp.ones(2), None)}],
    head=(layer(), {'activation': None}),
    temperature=jnp.float32(2.0),
  )


def gradient(params: Any, step: jax.Array | int) -> Any:
  """Some gradient that differs from step to step and nowhere vanishes."""
  return jax.tree.map(lambda p: jnp.cos(3 * p + step) + 2, params)


# Running a transformation


class Moment(NamedTuple):
  params: Any
  updates: Any
  state: Any


class Trial(NamedTuple):
  """A transformation, the same with a jitted update, and what that did with `layer()`."""

  tx: optax.GradientTransformation
  jitted: optax.GradientTransformation
  history: list[Moment]
  traces: int


def jitted(tx, traces=None) -> optax.GradientTransformation:
  """The transformation, of its own type, with its update compiled and its state donated to it."""

  def update(updates, state, params=None, **extra_args):
    if traces is not None:
      traces.append(None)
    return tx.update(updates, state, params, **extra_args)

  return type(tx)(tx.init, jax.jit(update, donate_argnums=1))


def descent(grad: Any) -> Any:
  return jax.tree.map(lambda g: -0.05 * g, grad)


def extra_arguments(grad: Any) -> dict[str, Any]:
  """What a training step passes to every link; a link takes what it needs."""
  return {'grad': grad, 'mean_squared_grad': jax.tree.map(jnp.square, grad)}


def step(tx, params, state, t, arriving=descent) -> Moment:
  grad = gradient(params, t)
  updates, state = tx.update(arriving(grad), _copied(state), params, **extra_arguments(grad))
  return Moment(optax.apply_updates(params, updates), updates, state)


def run(tx, params, *, state=None, first=0, arriving=descent) -> list[Moment]:
  """The moment before the first step and those after each, up to step number STEPS.

  arriving: from the gradient to the updates that come in.
  """
  history = [Moment(params, None, tx.init(params) if state is None else state)]
  for t in range(first, STEPS):
    history.append(step(tx, history[-1].params, history[-1].state, t, arriving))
  return history


@functools.cache
def trial(make: Make) -> Trial:
  tx, traces = make(), []
  compiled = jitted(tx, traces)
  history = run(compiled, layer())
  return Trial(tx, compiled, history, len(traces))


def _copied(tree):
  return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else leaf, tree)
