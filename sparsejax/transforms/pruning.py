"""Pruning as the last link of an Optax chain: masks in its state, exact zeros in the parameters."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax._src.base import NO_PARAMS_MSG

from sparsejax.sparsity import allocation as allocations
from sparsejax.sparsity import criteria, tree, updates
from sparsejax.sparsity import granularity as granularities
from sparsejax.sparsity.schedules import Schedule


class PruneState(NamedTuple):
  """State of `prune`."""

  count: jax.Array  # shape=(), dtype=int32: updates made
  masks: optax.Params  # dtype=bool, of each chosen leaf's shape; shape=() for the others
  inner_state: optax.OptState


def prune(
  schedule: Schedule,
  *,
  criterion: criteria.Criterion = criteria.magnitude,
  granularity: granularities.Granularity | None = None,
  allocation: allocations.Allocation | None = None,
  update_rule=updates.nested,
  parameters: tree.Choice = 'kernels',
  exclude: Iterable[str] = (),
  floor: int = 1,
  seed: int = 0,
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Removes parameters at the scheduled steps and holds them at exactly zero from then on.

  .. math:: u'_i = u_i \text{ where } m_i \text{ else } -p_i

  so that p + u' is exactly 0 wherever the mask m is. Place it **last** in the chain: a link behind
  it would move pruned weights again. "At step t" means that the update after t updates is the first
  to use the new mask, which is made of the parameters as they are then.

  Links given as `inner` run inside: their gradients are masked before and their updates after, and
  when masks are renewed the slots they keep for each parameter (momentum, second moments) are
  zeroed where the mask is. That is the form for links that mix parameters (clipping by global norm,
  LAMB) and for update rules that let weights come back.

  Args:
    schedule: the steps at which masks are renewed and the target at each, such as
      `one_shot(step, active_fraction)` or `cubic(begin, end, active_fraction)`.
    criterion: scores, of which the largest stay. One that needs the gradient reads it from the
      extra argument `grad` of `update`: the raw one, averaged, of the data term only.
    granularity: what is removed as one; single weights by default.
    allocation: how many stay in each layer; one global rank by default.
    update_rule: how the old mask and the scores make the new mask.
    parameters: 'kernels', 'all' (biases and BatchNorm too), or a function of (path, leaf).
    exclude: regular expressions over paths; each must match something.
    floor: the number of weights that every chosen leaf keeps at least (or all, if it has fewer).
    seed: of the random criterion.
    inner: a transformation to run inside the masks.

  Returns:
    A transformation whose state holds `masks`; read them with `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: at `init`, for a choice that matches nothing; at `update`, without `params`, or
      without `grad` when the criterion needs it.

  Example:
    >>> import sparsejax
    >>> chain = optax.chain(optax.sgd(0.1), prune(sparsejax.one_shot(step=1, target=0.5)))
    >>> params = {'kernel': jnp.array([[1.0, -3.0, 2.0, 0.1]])}
    >>> state = chain.init(params)
    >>> for _ in range(2):
    ...   updates, state = chain.update({'kernel': jnp.zeros((1, 4))}, state, params)
    ...   params = optax.apply_updates(params, updates)
    >>> params['kernel'].tolist()
    [[0.0, -3.0, 2.0, 0.0]]

  References:
    Han et al. 2015, https://arxiv.org/abs/1506.02626
    Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878
  """
  allocation = allocation or allocations.global_rank()
  granularity = granularity or granularities.weight()
  inner = optax.with_extra_args_support(optax.identity() if inner is None else inner)
  exclude = tuple(exclude)

  def init_fn(params):
    chosen = tree.choose(params, parameters, exclude)
    masks = jax.tree.map(lambda p, c: jnp.ones(jnp.shape(p) if c else (), bool), params, chosen)
    return PruneState(jnp.zeros([], jnp.int32), masks, inner.init(params))

  def renew(masks, params, grad, row, key):
    """New masks from the present parameters; the unchosen leaves keep their scalar True."""
    chosen = jax.tree.leaves(tree.choose(params, parameters, exclude))
    old, structure = jax.tree.flatten(masks)
    grads = jax.tree.leaves(grad) if criteria.needs_grad(criterion) else [None] * len(old)
    keys = jax.random.split(key, len(old))
    scores = [
      granularity.pool(criterion(p, grad=g, key=k))
      for p, g, k, c in zip(jax.tree.leaves(params), grads, keys, chosen, strict=True)
      if c
    ]
    counts = allocation.counts(scores, row, floor)
    renewed = iter(zip(scores, counts, strict=True))
    new = [_renew_leaf(mask, *next(renewed)) if c else mask for mask, c in zip(old, chosen)]  # noqa: B905
    return jax.tree.unflatten(structure, new)

  def _renew_leaf(mask, score, count):
    old = granularity.pool(mask)
    return granularity.spread(update_rule(old, score, count), mask.shape)

  def update_fn(updates, state, params=None, *, grad=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    if grad is None and criteria.needs_grad(criterion):
      raise ValueError(
        f'the criterion {criterion.__name__} needs the extra argument grad=: call '
        'update(updates, state, params, grad=raw_gradient)'
      )
    table = _plan(schedule, allocation, params, tree.choose(params, parameters, exclude), floor)
    index = jnp.searchsorted(jnp.asarray(schedule.steps, jnp.int32), state.count)
    index = jnp.minimum(index, len(schedule.steps) - 1)
    now = jnp.asarray(schedule.steps, jnp.int32)[index] == state.count
    key = jax.random.fold_in(jax.random.key(seed), state.count)
    masks, inner_state = jax.lax.cond(
      now,
      lambda: _clear(renew(state.masks, params, grad, table[index], key), state.inner_state),
      lambda: (state.masks, state.inner_state),
    )
    updates = jax.tree.map(lambda u, m: jnp.where(m, u, 0), updates, masks)
    grad = None if grad is None else jax.tree.map(lambda g, m: jnp.where(m, g, 0), grad, masks)
    updates, inner_state = inner.update(updates, inner_state, params, grad=grad, **extra_args)
    updates = jax.tree.map(
      lambda u, p, m: jnp.where(m, u, -p).astype(u.dtype), updates, params, masks
    )
    return updates, PruneState(optax.safe_increment(state.count), masks, inner_state)

  def _clear(masks, inner_state):
    """The inner slots of removed weights at zero: what was gathered there belongs to no weight."""
    cleared = optax.tree.map_params(
      inner, lambda slot, mask: jnp.where(mask, slot, 0).astype(slot.dtype), inner_state, masks
    )
    return masks, cleared

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _plan(schedule, allocation, params, chosen, floor) -> jax.Array:
  """One planned row for each target: exact on the host, looked up by index on the device."""
  leaves = zip(jax.tree.leaves(params), jax.tree.leaves(chosen), strict=True)
  sizes = [int(np.prod(jnp.shape(leaf))) for leaf, c in leaves if c]
  return jnp.asarray(np.stack([allocation.plan(sizes, t, floor) for t in schedule.targets]))


def apply_masks(params: Any, masks: Any) -> Any:
  """Returns the parameters with everything outside the masks at zero: the cut network itself.

  Example:
    >>> apply_masks({'w': jnp.array([1.0, 2.0])}, {'w': jnp.array([True, False])})['w'].tolist()
    [1.0, 0.0]
  """
  return jax.tree.map(lambda p, m: jnp.where(m, p, 0).astype(p.dtype), params, masks)
