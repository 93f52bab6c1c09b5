"""All that a run must remember to go on as if it had never stopped, as one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Window(NamedTuple):
  """Sums over the steps since the last line of metrics, on the device."""

  steps: jax.Array  # shape=(), dtype=int32
  loss: jax.Array  # shape=(), dtype=float32: of the mean losses of the steps
  accuracy: jax.Array  # shape=(), dtype=float32: likewise
  bad_step: jax.Array  # shape=(), dtype=int32: the first whose loss was not finite, or -1


class TrainState(NamedTuple):
  """What a training step reads and writes. The place in the data follows from `step` alone."""

  step: jax.Array  # shape=(), dtype=int32: updates made
  params: Any
  batch_stats: Any  # BatchNorm's running averages, {} without BatchNorm
  opt_state: optax.OptState
  key: jax.Array  # shape=(), the run's key: never changed, folded with step, epoch, example
  events: jax.Array  # shape=(), dtype=int32: events that have happened
  window: Window


class Best(NamedTuple):
  """The best network by validation loss among the evaluations at the final target."""

  step: jax.Array  # shape=(), dtype=int32: -1 before there is one
  loss: jax.Array  # shape=(), dtype=float32
  params: Any
  batch_stats: Any


class RunState(NamedTuple):
  """What a checkpoint holds."""

  train: TrainState
  best: Best


def empty_window() -> Window:
  return Window(jnp.int32(0), jnp.float32(0), jnp.float32(0), jnp.int32(-1))


def init_optimizer(tx: optax.GradientTransformation, params: Any) -> optax.OptState:
  """Returns tx.init(params) in arrays of its own.

  A link may keep the parameters themselves, and a step can't donate the same array twice.
  """
  return jax.tree.map(jnp.copy, tx.init(params))


def initial(variables: Any, tx: optax.GradientTransformation, seed: int) -> RunState:
  """Returns the state before the first step, of the model's initial variables."""
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  train = TrainState(
    step=jnp.int32(0),
    params=params,
    batch_stats=batch_stats,
    opt_state=init_optimizer(tx, params),
    key=jax.random.key(seed),
    events=jnp.int32(0),
    window=empty_window(),
  )
  copied = jax.tree.map(jnp.copy, (params, batch_stats))
  return RunState(train, Best(jnp.int32(-1), jnp.float32(jnp.inf), *copied))


@jax.jit
def better(best: Best, train: TrainState, loss: jax.Array) -> Best:
  """Returns the better of the best so far and the present network, without asking the host."""
  new = Best(train.step, loss, train.params, train.batch_stats)
  return jax.tree.map(lambda n, b: jnp.where(loss < best.loss, n, b), new, best)


def to_host(state: Any) -> Any:
  """Returns the state as plain NumPy arrays, keys as the numbers that they are made of."""
  return jax.device_get(jax.tree.map(_data, state))


def shaped_as_on_host(state: Any) -> Any:
  """Returns arrays of the shapes and types of `to_host`, whose values mean nothing."""
  shapes = jax.eval_shape(lambda tree: jax.tree.map(_data, tree), state)
  return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def from_host(arrays: Any, like: Any) -> Any:
  """Returns what `to_host` was given.

  Args:
    arrays: what it returned.
    like: a state of the same structure, or its shapes.
  """

  def leaf_of(array, old):
    return jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(old) else array

  return jax.tree.map(leaf_of, arrays, like)


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
  return jax.random.key_data(leaf) if _is_key(leaf) else leaf
