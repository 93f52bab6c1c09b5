"""Rewinding: weights go back to what they were, before each round of retraining."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.transforms.inner.running import running_inside
from sparsejax.transforms.inner.slots import clear_slots


class RewindState(NamedTuple):
  """State of `rewind`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made
  saved: optax.Params  # the parameters as they were after `to` updates; before, the first ones
  inner_state: optax.OptState


def rewind(
  to: int, at: Sequence[int], *, inner: optax.GradientTransformation | None = None
) -> optax.GradientTransformationExtraArgs:
  r"""Sets the parameters back, at the steps `at`, to what they were after `to` updates.

  .. math:: u'_i = s_i - p_i \text{ at the steps } at \text{, else } u_i

  with s the parameters as they were then: p + u' is s, but for one rounding. Place it behind the
  learning rate and right before `prune`: where both act at the same step, the masks are made of the
  trained parameters and what they keep is rewound (weight rewinding; the lottery ticket when `to`
  is 0). Pruning with a schedule whose learning rate runs again alone is learning-rate rewinding.

  Links given as `inner` run ahead of it, and the slots that they keep for each parameter (momentum,
  second moments) start again at zero; their counts go on.

  Args:
    to: the step whose parameters come back, 0 or more.
    at: the steps at which they do, all of them after `to`.
    inner: the links ahead, where their slots are to be cleared.

  Returns:
    A transformation whose state holds one copy of the parameters.

  Raises:
    ValueError: steps that are not after `to`; at `update`, without `params`.

  Example:
    >>> tx = optax.chain(optax.sgd(1.0), rewind(to=1, at=[3]))
    >>> params = {'w': jnp.array([0.0])}
    >>> state, seen = tx.init(params), []
    >>> for _ in range(5):
    ...   updates, state = tx.update({'w': jnp.array([-1.0])}, state, params)
    ...   params = optax.apply_updates(params, updates)
    ...   seen.append(params['w'].item())
    >>> seen
    [1.0, 2.0, 3.0, 1.0, 2.0]

  References:
    Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635
    Renda et al. 2020, https://arxiv.org/abs/2003.02389
  """
  at = tuple(int(step) for step in at)
  if not (at and to >= 0 and min(at) > to):
    raise ValueError(f'rewind from the steps {at} to step {to}: they must be after it')
  inner = running_inside(inner)

  def init_fn(params):
    saved = jax.tree.map(jnp.array, params)  # copies: a step may donate both
    return RewindState(jnp.zeros([], jnp.int32), saved, inner.init(params))

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
    saved = _where(state.count == to, params, state.saved)
    due = jnp.any(jnp.asarray(at) == state.count)
    back = jax.tree.map(jnp.subtract, saved, params)
    inner_state = clear_slots(inner, inner_state, jax.tree.map(lambda p: ~due, params))
    count = optax.safe_increment(state.count)
    return _where(due, back, updates), RewindState(count, saved, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _where(condition: jax.Array, then: Any, otherwise: Any) -> Any:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), then, otherwise)
