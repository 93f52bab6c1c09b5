"""Everything that a run must remember to continue as if it had never stopped, as one pytree."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Window(NamedTuple):
  """Sums over the steps since the last line of metrics, on the device."""

  steps: jax.Array  # shape=(), dtype=int32
  loss: jax.Array  # shape=(), dtype=float32: the sum of the steps' mean losses
  accuracy: jax.Array  # shape=(), dtype=float32: the sum of the steps' accuracies
  bad_step: jax.Array  # shape=(), dtype=int32: the first whose loss was not finite, or -1


class TrainState(NamedTuple):
  """The state of training after `step` updates, from which its place in the data follows."""

  step: jax.Array  # shape=(), dtype=int32: updates made
  params: Any
  batch_stats: Any  # BatchNorm's running averages, {} without BatchNorm
  opt_state: optax.OptState
  key: jax.Array  # shape=(), the run's key: never changed, only folded with step, epoch, example
  events: jax.Array  # shape=(), dtype=int32: events that have happened
  window: Window


class Best(NamedTuple):
  """The best network on the validation split among the evaluations at the final density."""

  step: jax.Array  # shape=(), dtype=int32: -1 while there is none
  loss: jax.Array  # shape=(), dtype=float32: on the validation split
  accuracy: jax.Array  # shape=(), dtype=float32: on the validation split
  params: Any
  batch_stats: Any


class RunState(NamedTuple):
  """The state of a run that a checkpoint holds: that of training, and the best network so far."""

  train: TrainState
  best: Best


def empty_window() -> Window:
  return Window(jnp.int32(0), jnp.float32(0), jnp.float32(0), jnp.int32(-1))


def init_optimizer(tx: optax.GradientTransformation, params: Any) -> optax.OptState:
  """Returns tx.init(params) in new arrays.

  A link may keep the parameters themselves, and a step cannot donate the same array twice.
  """
  return jax.tree.map(jnp.copy, tx.init(params))


def initial(variables: Any, tx: optax.GradientTransformation, seed: int) -> RunState:
  """Returns the state before the first step, from the model's initial variables."""
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
  nothing = jnp.int32(-1), jnp.float32(jnp.inf), jnp.float32(-jnp.inf)
  return RunState(train, Best(*nothing, *copied))


def _has_less_loss(new: Best, old: Best) -> jax.Array:
  return new.loss < old.loss


def _is_more_accurate(new: Best, old: Best) -> jax.Array:
  """Returns whether the new network is more accurate or, at equal accuracy, has less loss."""
  is_as_accurate = (new.accuracy == old.accuracy) & (new.loss < old.loss)
  return jnp.isfinite(new.loss) & ((new.accuracy > old.accuracy) | is_as_accurate)


CHOOSE_BY = {'loss': _has_less_loss, 'accuracy': _is_more_accurate}


@functools.partial(jax.jit, static_argnames='by')
def better(best: Best, train: TrainState, loss: jax.Array, accuracy: jax.Array, by: str) -> Best:
  """Returns the better of the best so far and the current network, without asking the host.

  Args:
    best: the best so far.
    train: the current state.
    loss: the loss of its network on the validation split.
    accuracy: the accuracy of its network on the validation split.
    by: a name in `CHOOSE_BY`.
  """
  new = Best(train.step, loss, jnp.float32(accuracy), train.params, train.batch_stats)
  is_better = CHOOSE_BY[by](new, best)
  return jax.tree.map(lambda n, b: jnp.where(is_better, n, b), new, best)
