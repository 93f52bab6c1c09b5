"""Pruning as the last link of an Optax chain: masks in its state, exact zeros in the parameters."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.mask_update import Renewal, compiled, seed_of
from sparsejax.sparsity.parts import allocation as allocations
from sparsejax.sparsity.parts import criteria, schedules
from sparsejax.sparsity.parts import granularity as granularities
from sparsejax.sparsity.parts import update_rules as update_rules
from sparsejax.transforms.inner.running import running_inside
from sparsejax.transforms.inner.searching import check_no_search
from sparsejax.transforms.inner.slots import check_clearable, clear_slots, is_hole


class PruneState(NamedTuple):
  """State of `prune`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made
  renewals: jax.typing.ArrayLike  # shape=(), dtype=int32: of the schedule's, made so far
  seed: jax.typing.ArrayLike  # shape=(), dtype=uint32: of what is random
  table: jax.typing.ArrayLike  # what was planned, a row for each density; int32 or float32
  masks: optax.Params  # dtype=bool, of each chosen leaf's shape; shape=() for the others
  inner_state: optax.OptState


def prune(
  schedule: schedules.PruningSchedule,
  *,
  criterion: criteria.Criterion = criteria.magnitude,
  granularity: granularities.Granularity | None = None,
  allocation: allocations.Allocation | None = None,
  update_rule: update_rules.UpdateRule | None = None,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  layouts: Mapping[str, str | Layout] | None = None,
  floor: int = 1,
  seed: jax.typing.ArrayLike = 0,
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Removes parameters at the scheduled steps and holds them at exactly zero from then on.

  .. math:: u'_i = u_i \text{ where } m_i \text{ else } -p_i

  so that p + u' is exactly 0 outside the mask m. Place it **last** in the chain: a link behind
  it would move pruned weights again. "At step t" means that the update after t updates is the first
  to use the new mask, which is made of the parameters as they are then. A renewal that was missed,
  because a restored state's count lies beyond its step, is made at the next update. What is not
  finite stays so under any update: `apply_masks` removes it.

  Links given as `inner` run inside: the gradients and parameters that they see are zero outside the
  mask, their updates are masked after, and when masks are renewed the slots they keep for each
  parameter (momentum, second moments) are zeroed there. That is the form for links that mix
  parameters (clipping by global norm, LAMB) and for update rules that let weights come back.

  Args:
    schedule: the steps at which masks are renewed and the density at each, such as
      `one_shot(step, active_fraction)` or `cubic(begin, end, active_fraction)`.
    criterion: a function of a leaf to scores, of which the largest stay; of a group their mean
      counts. It may take a random `key`. What a criterion
      needs besides the parameters comes as an extra argument of `update`: `grad` is the raw
      gradient (averaged, of the data term only, dense), `mean_squared_grad` the mean of the squares
      of the examples' own gradients. Either may be a function without arguments that returns the
      tree; it is called at the steps of the schedule alone.
    granularity: what is removed as one; single weights by default.
    allocation: how many stay in each layer; one global rank by default, of N:M sparsity uniform,
      so that N is the same everywhere.
    update_rule: how the old mask and the scores make the new mask: by default
      `update_rules.nested()`, in which masks only shrink. One that lets weights come back makes no
      gradient step where it renews masks; a weight that comes back starts at zero. It belongs
      around its optimizer, as `inner`: momentum ahead of it would still push what comes back.
    parameters: 'kernels', 'all' (biases, BatchNorm and embeddings too), a function of (path, leaf),
      or several: 'kernels' and regular expressions over paths, as in ('kernels', 'embedding$').
    exclude: regular expressions (or one) over paths; each must match something.
    layouts: {regular expression over paths: which axes are what}, such as {'query': 'in head out'},
      where names and shapes don't tell; `layouts_of` reads them off a network.
    floor: the number of weights (of groups, if the granularity makes any) that every chosen leaf
      keeps at least, or all, if it has fewer.
    seed: of what is random: a criterion, a rule's start, its growth. It stands in the state, where
      `optax.tree.set(state, seed=...)` gives each member of an ensemble its own under vmap.
    inner: a transformation to run inside the masks.

  Returns:
    A transformation whose state holds `masks`; read them with `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: at once, for a schedule that doesn't rise or parts that don't go together; at
      `init`, for a density that the allocation refuses, a choice that matches nothing or a leaf
      whose axes could be one thing or another; at `update`, without `params` or an extra argument
      that a criterion needs.

  Example:
    >>> import sparsejax
    >>> chain = optax.chain(optax.sgd(0.1), prune(sparsejax.one_shot(step=1, density=0.5)))
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
  seed = seed_of(seed)
  parts = Renewal(
    schedule,
    criterion,
    granularity or granularities.weight(),
    allocation or allocations.default(granularity),
    update_rule or update_rules.nested(),
    parameters,
    tree.patterns(exclude),
    floor,
    axes.given(layouts),
  ).checked()
  inner = running_inside(inner)

  def init_fn(params):
    count, renewals = (jnp.zeros([], jnp.int32) for _ in range(2))  # apart, to be donated
    masks, table = parts.begin(params)
    inner_state = inner.init(params)
    check_no_search(inner_state)
    check_clearable(inner, inner_state, masks)
    return PruneState(count, renewals, jnp.array(seed, jnp.uint32), table, masks, inner_state)

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    renewals, wanted = parts.due(state.count), _wanted(parts.needs, updates, extra_args)
    due = renewals > state.renewals
    masks = _renewed_if(due, parts, state, params, *wanted)
    # What has just grown gets no gradient yet, so that its slots start at zero. The inner links run
    # all the same, and count this step: a learning rate's schedule must not stand still.
    kept = jax.tree.map(jnp.logical_and, masks, state.masks) if parts.grows else masks
    extra_args = _with_masked_grads(extra_args, updates, masks)
    inner_state = _cleared_if(due, inner, state.inner_state, kept)
    updates, inner_state = inner.update(
      apply_masks(updates, kept), inner_state, apply_masks(params, kept), **extra_args
    )
    if parts.grows:
      updates = jax.tree.map(lambda u: jnp.where(due, jnp.zeros_like(u), u), updates)
    # In the wider of the two dtypes: -p rounded to narrower updates would not bring p to zero.
    with jax.numpy_dtype_promotion('standard'):
      updates = jax.tree.map(lambda u, p, m: jnp.where(m, u, -p), updates, params, masks)
    count = optax.safe_increment(state.count)
    return updates, PruneState(count, renewals, state.seed, state.table, masks, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _renewed_if(due, parts, state, params, extra, lazy):
  """The state's masks, or where they are due those that the parameters make.

  A loop of one pass at most, and not a branch: under vmap a branch becomes a select, and masks
  would be ranked anew at every step.
  """
  if not isinstance(due, jax.core.Tracer):
    return _renewed(parts, state, params, extra, lazy) if due else state.masks

  def renew(carried):
    _, masks = carried
    now = state._replace(masks=masks)
    return jnp.zeros_like(due), _renewed(parts, now, params, extra, lazy)

  _, masks = jax.lax.while_loop(lambda carried: carried[0], renew, (due, state.masks))
  return masks


def _renewed(parts, state, params, extra, lazy):
  extra = extra | {name: value() for name, value in lazy}
  params, extra = jax.lax.stop_gradient((params, extra))  # masks have no derivative
  return compiled(parts)(
    state.masks, params, extra, step=state.count, seed=state.seed, table=state.table
  )


def _cleared_if(due, inner, inner_state, kept):
  """The inner state, with its slots at zero outside of what is kept where masks are new."""
  if not jax.tree.leaves(inner_state):
    return inner_state
  clear = functools.partial(clear_slots, inner)
  if not isinstance(due, jax.core.Tracer):
    return clear(inner_state, kept) if due else inner_state
  return jax.lax.cond(due, clear, lambda state, kept: state, inner_state, kept)


def _wanted(needs, updates, extra_args):
  """The extra arguments that criteria need: trees, and functions that make them when due."""
  for name, criterion in needs.items():
    if extra_args.get(name) is None:
      raise ValueError(
        f'the criterion {getattr(criterion, "__name__", criterion)} needs the extra argument '
        f'{name}=: call update(updates, state, params, {name}=...); grad is the raw gradient'
      )
  given = {name: _with_holes_of(updates, extra_args[name]) for name in needs}
  lazy = tuple((name, value) for name, value in given.items() if tree.is_function(value))
  return {name: value for name, value in given.items() if not tree.is_function(value)}, lazy


def _with_masked_grads(extra_args, updates, masks):
  """The extra arguments for the inner links: of any gradient they see what the masks leave."""
  found = dict(extra_args)
  if extra_args.get('grad') is not None:
    grad = _with_holes_of(updates, extra_args['grad'])
    found['grad'] = _lazily(lambda grad: apply_masks(grad, masks), grad)
  if (grad_fn := extra_args.get('grad_fn')) is not None:  # of SAM, at the points that it ascends to
    found['grad_fn'] = lambda *at: apply_masks(_with_holes_of(updates, grad_fn(*at)), masks)
  return found


def _with_holes_of(updates, grad):
  """The gradient without the leaves that `optax.masked` took from the updates alone."""

  def with_holes(grad):
    return jax.tree.map(lambda u, g: u if is_hole(u) else g, updates, grad, is_leaf=is_hole)

  return _lazily(with_holes, grad)


def _lazily(change, value):
  """What a change makes of a tree; of a function that makes a tree, such a function again."""
  return (lambda: change(value())) if tree.is_function(value) else change(value)


def apply_masks(params: Any, masks: Any) -> Any:
  """Returns the parameters with everything outside the masks at zero: the cut network itself.

  Parameters that `optax.masked` kept from the masks stay as they are.

  Example:
    >>> apply_masks({'w': jnp.array([1.0, 2.0])}, {'w': jnp.array([True, False])})['w'].tolist()
    [1.0, 0.0]
  """

  def cut(mask, param):
    return param if is_hole(mask) else jnp.where(mask, param, 0).astype(param.dtype)

  return jax.tree.map(cut, masks, params, is_leaf=is_hole)
