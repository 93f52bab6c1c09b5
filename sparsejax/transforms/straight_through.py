"""Straight-through training: the network is sparse, and dense weights behind it learn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.mask_update import Renewal
from sparsejax.sparsity.parts import allocation as allocations
from sparsejax.sparsity.parts import criteria, schedules
from sparsejax.sparsity.parts import granularity as granularities
from sparsejax.transforms.inner.masking import apply_masks, collect_extra_args
from sparsejax.transforms.inner.running import begun_inside, running_inside


class StraightThroughState(NamedTuple):
  """State of `straight_through`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made
  renewals: jax.typing.ArrayLike  # shape=(), dtype=int32: how many steps of the schedule were made
  seed: jax.typing.ArrayLike  # shape=(), dtype=uint32: for all that is random
  table: jax.typing.ArrayLike  # what was planned, a row for each density; int32 or float32
  masks: optax.Params  # dtype=bool, of each chosen leaf's shape; shape=() for the others
  dense: optax.Params  # the weights that learn; masked, they are the parameters
  inner_state: optax.OptState


def straight_through(
  schedule: schedules.PruningSchedule,
  *,
  every: int = 1,
  criterion: criteria.Criterion = criteria.magnitude,
  granularity: granularities.Granularity | None = None,
  allocation: allocations.Allocation | None = None,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  layouts: Mapping[str, str | Layout] | None = None,
  floor: int = 1,
  seed: jax.typing.ArrayLike = 0,
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Trains dense weights with the gradients of the network that the masks leave of them.

  .. math:: d' = d + u, \quad p + u' = m(d') d'

  The parameters p that the network is given are exactly zero outside the mask m, which is made anew
  from the dense weights d, so that what is zero now may come back with the value that it learned
  meanwhile: the gradient goes through the mask as if it were not there. The dense weights are in
  the state; where the mask is true they are the parameters themselves.

  Place it **last** in the chain. An optimizer that reads parameters (weight decay, LAMB) goes
  inside, as `inner`, where it is given the dense weights.

  Args:
    schedule: the density at each of its steps, as in `prune`. Masks are renewed from the first of
      these steps on; before it the network is dense.
    every: steps between two renewals at the same density, 1 or more.
    criterion: a function from a dense leaf to scores; the largest stay, as in `prune`.
    granularity: what is removed together; single weights by default.
    allocation: the number that each layer keeps, as in `prune`.
    parameters: 'kernels', 'all', a function of (path, leaf), or several, as in `prune`.
    exclude: regular expressions (or one) over paths; each must match something.
    layouts: {regular expression over paths: layout}, as in `prune`.
    floor: the least number of weights (or groups) that every chosen leaf keeps.
    seed: the seed of all that is random, which is drawn anew at every renewal.
    inner: a transformation to run on the dense weights.

  Returns:
    A transformation whose state holds `masks` and `dense`; read them with `optax.tree.get`.

  Raises:
    ValueError: as for `prune`, and at once if `every` is not a whole number, 1 or more.

  Example:
    >>> from sparsejax import one_shot
    >>> tx = straight_through(one_shot(0, 0.5), inner=optax.sgd(1.0))
    >>> params = {'kernel': jnp.array([[2.0, 3.0]])}
    >>> state, seen = tx.init(params), []
    >>> for _ in range(3):
    ...   updates, state = tx.update({'kernel': jnp.array([[-1.0, 0.5]])}, state, params)
    ...   params = optax.apply_updates(params, updates)
    ...   seen.append(params['kernel'].tolist())
    >>> seen
    [[[3.0, 0.0]], [[4.0, 0.0]], [[5.0, 0.0]]]
    >>> state.dense['kernel'].tolist()
    [[5.0, 1.5]]

  References:
    Bengio, Leonard and Courville 2013, https://arxiv.org/abs/1308.3432
    Zhou et al. 2021 (with masks), https://arxiv.org/abs/2102.04010
  """
  every = _period(every)
  parts = Renewal.of(
    schedule,
    criterion=criterion,
    granularity=granularity,
    allocation=allocation,
    parameters=parameters,
    exclude=exclude,
    layouts=layouts,
    floor=floor,
    seed=seed,
  )
  inner = running_inside(inner)

  def init_fn(params):
    dense = jax.tree.map(jnp.array, params)  # copies: a step may donate both
    return StraightThroughState(*parts.begin(params, seed), dense, begun_inside(inner, params))

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    needed = collect_extra_args(parts.needs, updates, extra_args)
    # Inside the mask the parameters are what counts, whoever else may have moved them.
    dense = jax.tree.map(jnp.where, state.masks, params, state.dense)
    extra_args = _mask_gradient_points(extra_args, state.masks)
    updates, inner_state = inner.update(updates, state.inner_state, dense, **extra_args)
    with jax.numpy_dtype_promotion('standard'):
      dense = optax.apply_updates(dense, updates)
    renewals = jnp.sum(jnp.asarray(parts.schedule.steps) <= state.count, dtype=jnp.int32)
    since = state.count - parts.schedule.steps[0]
    due = (renewals > state.renewals) | ((renewals > 0) & (since % every == 0))
    masks = parts.renewed_if(due, state, dense, needed, anew=True)
    updates = jax.tree.map(_towards, updates, params, dense, state.masks, masks)
    with jax.numpy_dtype_promotion('standard'):
      # The very sum that the caller makes: another rounding could differ by a bit.
      dense = jax.tree.map(jnp.where, masks, optax.apply_updates(params, updates), dense)
    count = optax.safe_increment(state.count)
    return updates, StraightThroughState(
      count, renewals, state.seed, state.table, masks, dense, inner_state
    )

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _towards(update, param, dense, was, mask):
  """Returns the update of a parameter to its dense weight inside the mask, to zero outside."""
  with jax.numpy_dtype_promotion('standard'):
    return jnp.where(mask, jnp.where(was, update, dense - param), -param)


def _mask_gradient_points(extra_args: Mapping[str, Any], masks: Any) -> dict[str, Any]:
  """Returns the extra arguments with a `grad_fn` that takes its gradients at masked points."""
  found = dict(extra_args)
  if (grad_fn := extra_args.get('grad_fn')) is not None:  # SAM's
    found['grad_fn'] = lambda dense, *more: grad_fn(apply_masks(dense, masks), *more)
  return found


def _period(every: Any) -> int:
  if not schedules.is_number(every) or not float(every).is_integer() or every < 1:
    raise ValueError(f'every={every!r} must be a whole number, 1 or more')
  return int(every)
