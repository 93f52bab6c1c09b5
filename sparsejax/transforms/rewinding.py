"""Rewinding: resetting weights to their values at an earlier step, before they are retrained."""

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

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: the number of updates so far
  saved: optax.Params  # the parameters after `to` updates; until then, the initial ones
  inner_state: optax.OptState


def rewind(
  to: int, at: Sequence[int], *, inner: optax.GradientTransformation | None = None
) -> optax.GradientTransformationExtraArgs:
  r"""Resets the parameters, at each step in `at`, to their values after `to` updates.

  .. math:: u' = s - p \text{ at the steps in } at \text{, else } u

  where s is the copy of the parameters after `to` updates. The new parameters p + u' equal s up to
  one rounding.

  Place it after the learning rate and directly before `prune`. If both act at one step, the masks
  are computed from the trained parameters, and the weights that they keep are rewound. This is
  weight rewinding, and finds lottery tickets with `to=0`. For learning-rate rewinding, leave
  `rewind` out and restart the learning rate's schedule alone.

  With `inner`, its states for each parameter (momentum, second moments) are reset to zero as well.
  Its counts are not.

  Args:
    to: the step whose parameters are restored, 0 or more.
    at: the steps at which they are restored, all after `to`.
    inner: the transformations before this one, if their states are to be reset.

  Returns:
    A transformation whose state holds one copy of the parameters.

  Raises:
    ValueError: when called, unless all steps in `at` are after `to`; at `update`, if `params` are
      missing.

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
    raise ValueError(f'rewind: at={at} must be one or more steps after to={to}, and to 0 or more')
  inner = running_inside(inner)

  def init_fn(params):
    # Copies, because a training step may donate the buffers of both params and state.
    saved = jax.tree.map(jnp.array, params)
    return RewindState(jnp.zeros([], jnp.int32), saved, inner.init(params))

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
    saved = _where(state.count == to, params, state.saved)
    is_rewinding = jnp.any(jnp.asarray(at) == state.count)
    to_saved = jax.tree.map(jnp.subtract, saved, params)
    is_kept = jax.tree.map(lambda _: ~is_rewinding, params)
    inner_state = clear_slots(inner, inner_state, is_kept)
    count = optax.safe_increment(state.count)
    return _where(is_rewinding, to_saved, updates), RewindState(count, saved, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _where(condition: jax.Array, then: Any, otherwise: Any) -> Any:
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), then, otherwise)
