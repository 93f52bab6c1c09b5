"""Pruning as the last link of an Optax chain: masks in its state, exact zeros in the parameters."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax._src.base import NO_PARAMS_MSG

from sparsejax.sparsity import allocation as allocations
from sparsejax.sparsity import criteria, schedules, tree
from sparsejax.sparsity import granularity as granularities
from sparsejax.sparsity import updates as update_rules
from sparsejax.streams import PRUNING, stream


class PruneState(NamedTuple):
  """State of `prune`."""

  count: jax.Array  # shape=(), dtype=int32: updates made
  masks: optax.Params  # dtype=bool, of each chosen leaf's shape; shape=() for the others
  inner_state: optax.OptState


def prune(
  schedule: schedules.PruningSchedule,
  *,
  criterion: criteria.Criterion = criteria.magnitude,
  granularity: granularities.Granularity | None = None,
  allocation: allocations.Allocation | None = None,
  update_rule: update_rules.UpdateRule = update_rules.nested,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  floor: int = 1,
  seed: int = 0,
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Removes parameters at the scheduled steps and holds them at exactly zero from then on.

  .. math:: u'_i = u_i \text{ where } m_i \text{ else } -p_i

  so that p + u' is exactly 0 outside the mask m. Place it **last** in the chain: a link behind
  it would move pruned weights again. "At step t" means that the update after t updates is the first
  to use the new mask, which is made of the parameters as they are then.

  Links given as `inner` run inside: the gradients and parameters that they see are zero outside the
  mask, their updates are masked after, and when masks are renewed the slots they keep for each
  parameter (momentum, second moments) are zeroed there. That is the form for links that mix
  parameters (clipping by global norm, LAMB) and for update rules that let weights come back.

  Args:
    schedule: the steps at which masks are renewed and the target at each, such as
      `one_shot(step, active_fraction)` or `cubic(begin, end, active_fraction)`.
    criterion: scores, of which the largest stay. One that needs the gradient reads it from the
      extra argument `grad` of `update`: the raw one, averaged, of the data term only.
    granularity: what is removed as one; single weights by default.
    allocation: how many stay in each layer; one global rank by default.
    update_rule: how the old mask and the scores make the new mask.
    parameters: 'kernels', 'all' (biases and BatchNorm too), or a function of (path, leaf).
    exclude: regular expressions (or one) over paths; each must match something.
    floor: the number of weights (of groups, if the granularity makes any) that every chosen leaf
      keeps at least, or all, if it has fewer.
    seed: of the random criterion.
    inner: a transformation to run inside the masks.

  Returns:
    A transformation whose state holds `masks`; read them with `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: at once, for a schedule that doesn't rise; at `init`, for a target that the
      allocation refuses or a choice that matches nothing; at `update`, without `params`, or without
      `grad` when the criterion needs it.

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
  steps, targets = schedules.checked(schedule)
  if floor < 0:
    raise ValueError(f'floor={floor}: allowed is 0 or more')
  allocation = allocation or allocations.global_rank()
  granularity = granularity or granularities.weight()
  inner = optax.with_extra_args_support(optax.identity() if inner is None else inner)

  @functools.cache
  def table(shapes):
    """One planned row for each target: exact on the host, looked up on the device."""
    sizes = [_groups(granularity, shape) for shape in shapes]
    return np.stack([allocation.plan(sizes, target, floor) for target in targets])

  def init_fn(params):
    chosen = tree.choose(params, parameters, exclude)
    masks = jax.tree.map(lambda p, c: jnp.ones(jnp.shape(p) if c else (), bool), params, chosen)
    if shapes := _shapes(tree.pick(masks, chosen)):
      table(shapes)  # refuses a bad target now, not in the middle of the training
    return PruneState(jnp.zeros([], jnp.int32), masks, inner.init(params))

  def scores_of(params, grad, chosen, count):
    leaves = jax.tree.leaves(tree.pick(params, chosen))
    needs_grad = criteria.needs_grad(criterion)
    grads = jax.tree.leaves(tree.pick(grad, chosen)) if needs_grad else [None] * len(leaves)
    key = jax.random.fold_in(stream(jax.random.key(seed), PRUNING), count)
    keys = jax.random.split(key, len(leaves))
    return [
      granularity.pool(criterion(p, grad=g, key=k))
      for p, g, k in zip(leaves, grads, keys, strict=True)
    ]

  def renew(state, params, grad):
    """The step's masks, made of the parameters as they are, and the inner state under them."""
    chosen = tree.choose(params, parameters, exclude)
    masks, structure = jax.tree.flatten(tree.pick(state.masks, chosen))
    if not masks:
      return state.masks, state.inner_state
    groups = [granularity.pool(mask.astype(jnp.float32)) > 0 for mask in masks]
    scores = scores_of(params, grad, chosen, state.count)
    # Only what is still there is ranked: a living zero must not tie with what has gone.
    ranked = [jnp.where(g, s, -jnp.inf) for g, s in zip(groups, scores, strict=True)]
    row = jnp.asarray(table(_shapes(masks)))[jnp.argmax(jnp.asarray(steps) == state.count)]
    renewed = map(update_rule, groups, scores, allocation.counts(ranked, row, floor))
    spread = [granularity.spread(g, m.shape) for g, m in zip(renewed, masks, strict=True)]
    masks = tree.merge(structure.unflatten(spread), state.masks)
    return masks, _clear(inner, state.inner_state, masks)

  def keep(state, params, grad):
    del params, grad
    return state.masks, state.inner_state

  def update_fn(updates, state, params=None, *, grad=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    if grad is None and criteria.needs_grad(criterion):
      raise ValueError(
        f'the criterion {getattr(criterion, "__name__", criterion)} needs the extra argument '
        'grad=: call update(updates, state, params, grad=raw_gradient)'
      )
    grad = None if grad is None else _with_holes_of(updates, grad)
    now = jnp.any(jnp.asarray(steps) == state.count)
    masks, inner_state = jax.lax.cond(now, renew, keep, state, params, grad)
    if grad is not None:
      extra_args['grad'] = apply_masks(grad, masks)
    updates, inner_state = inner.update(
      apply_masks(updates, masks), inner_state, apply_masks(params, masks), **extra_args
    )
    # In the wider of the two dtypes: -p rounded to narrower updates would not bring p to zero.
    updates = jax.tree.map(lambda u, p, m: jnp.where(m, u, -p), updates, params, masks)
    return updates, PruneState(optax.safe_increment(state.count), masks, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _shapes(masks: Any) -> tuple[tuple[int, ...], ...]:
  return tuple(jnp.shape(mask) for mask in jax.tree.leaves(masks))


def _groups(granularity: granularities.Granularity, shape: tuple[int, ...]) -> int:
  """How many things a leaf of this shape is pruned by: its weights, or the groups of them."""
  weights = jax.ShapeDtypeStruct(shape, jnp.float32)
  return math.prod(jax.eval_shape(granularity.pool, weights).shape)


def _clear(inner, inner_state, masks):
  """The inner slots of removed weights at zero: what was gathered there belongs to no weight.

  A slot of another shape than its parameter (Adafactor's row and column sums) stays as it is.
  """

  def cleared(slot, mask):
    if _is_hole(slot) or jnp.shape(slot) != jnp.shape(mask):
      return slot
    return jnp.where(mask, slot, 0).astype(slot.dtype)

  return optax.tree.map_params(inner, cleared, inner_state, masks, is_leaf=_is_hole)


def _with_holes_of(updates, grad):
  """The gradient without the leaves that `optax.masked` took from the updates alone."""
  return jax.tree.map(lambda u, g: u if _is_hole(u) else g, updates, grad, is_leaf=_is_hole)


def _is_hole(leaf: Any) -> bool:
  return isinstance(leaf, optax.MaskedNode)


def apply_masks(params: Any, masks: Any) -> Any:
  """Returns the parameters with everything outside the masks at zero: the cut network itself.

  Parameters that `optax.masked` kept from the masks stay as they are.

  Example:
    >>> apply_masks({'w': jnp.array([1.0, 2.0])}, {'w': jnp.array([True, False])})['w'].tolist()
    [1.0, 0.0]
  """

  def cut(mask, param):
    return param if _is_hole(mask) else jnp.where(mask, param, 0).astype(param.dtype)

  return jax.tree.map(cut, masks, params, is_leaf=_is_hole)
