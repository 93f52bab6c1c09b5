"""Pruning as the last link of an Optax chain: masks in its state, exact zeros in the parameters."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.mask_update import Renewal, held_at_zero
from sparsejax.sparsity.parts import allocation as allocations
from sparsejax.sparsity.parts import criteria, schedules, update_rules
from sparsejax.sparsity.parts import granularity as granularities
from sparsejax.transforms.inner.masking import collect_extra_args, update_masked
from sparsejax.transforms.inner.running import begun_inside, running_inside
from sparsejax.transforms.inner.slots import cleared_if


class PruneState(NamedTuple):
  """State of `prune`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made
  renewals: jax.typing.ArrayLike  # shape=(), dtype=int32: how many steps of the schedule were made
  seed: jax.typing.ArrayLike  # shape=(), dtype=uint32: for all that is random
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

  so that p + u' is exactly 0 outside the mask m. Place it **last** in the chain: a link after it
  would move pruned weights again. "At step t" means that the update after t updates is the first to
  use the new mask, which is made from the parameters as they are then. A renewal that was missed,
  because a restored state's count lies beyond its step, is made at the next update. A weight that
  is infinite or NaN stays so, since p + (-p) is not 0: `apply_masks` zeroes it.

  Links given as `inner` run inside: the gradients and parameters that they see are zero outside the
  mask, their updates are masked afterwards, and when masks are renewed, the slots that they keep
  for each parameter (momentum, second moments) are zeroed there. Use `inner` for links that mix
  parameters (clipping by global norm, LAMB), and with update rules that let weights come back.

  Args:
    schedule: the steps at which masks are renewed and the density at each, such as
      `one_shot(step, density)` or `cubic(begin, end, density)`. Instead of one density, a mapping
      {pattern of a path: density} gives layers their own; layers that no pattern matches stay
      whole.
    criterion: a function from a leaf to scores; the weights with the largest stay, and a group is
      ranked by its mean score. It may take a random `key`, and the leaf's `path`. What a criterion
      needs besides the parameters comes as an extra argument of `update`: `grad` is the raw
      gradient (averaged, of the data term only, dense), `mean_squared_grad` the mean of the squares
      of the examples' own gradients. Either may be a function without arguments that returns the
      tree; it is called only at the steps of the schedule.
    granularity: what is removed together; single weights by default.
    allocation: the number that each layer keeps; by default one global rank, or `uniform` with N:M
      sparsity, so that N is the same everywhere.
    update_rule: how the old mask and the scores make the new mask: by default
      `update_rules.nested()`, in which masks only shrink. One that lets weights come back makes no
      gradient step when it renews masks; a weight that comes back starts at zero. Such a
      rule needs the optimizer as `inner`: momentum ahead of it would still push what comes back.
    parameters: 'kernels', 'all' (biases, BatchNorm and embeddings too), a function of (path, leaf),
      or several: 'kernels' and regular expressions over paths, as in ('kernels', 'embedding$').
    exclude: regular expressions (or one) over paths; each must match something.
    layouts: {regular expression over paths: layout}, such as {'query': 'in head out'},
      where names and shapes do not show them; `layouts_of` reads them off a network.
    floor: the least number of weights (or groups, if the granularity makes any) that every chosen
      leaf keeps; it keeps all if it has fewer.
    seed: for all that is random: a criterion, a rule's start, its growth. The state holds it, where
      `optax.tree.set(state, seed=...)` gives each member of an ensemble its own under vmap.
    inner: a transformation to run inside the masks.

  Returns:
    A transformation whose state holds `masks`; read them with `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: at once, for what is not a schedule, or parts that don't go together; at
      `init`, for a density that the allocation refuses, a choice that matches nothing or a leaf
      whose axes are ambiguous; at `update`, without `params` or an extra argument that a criterion
      needs.

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
  parts = Renewal.of(
    schedule,
    criterion=criterion,
    granularity=granularity,
    allocation=allocation,
    update_rule=update_rule,
    parameters=parameters,
    exclude=exclude,
    layouts=layouts,
    floor=floor,
    seed=seed,
  )
  around = None if inner is None else running_inside(inner)
  grows = parts.update_rule.grow is not None

  def init_fn(params):
    begun = parts.begin(params, seed)
    inner_state = (
      optax.EmptyState() if around is None else begun_inside(around, params, begun.masks)
    )
    return PruneState(*begun, inner_state)

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    renewals = jnp.sum(jnp.asarray(parts.schedule.steps) <= state.count, dtype=jnp.int32)
    due = renewals > state.renewals
    needed = collect_extra_args(parts.needs, updates, extra_args) if parts.needs else {}
    masks = parts.renewed_if(due, state, params, needed)
    inner_state = state.inner_state
    if around is not None:
      # What has just grown gets no gradient yet, so that its slots start at zero. The inner links
      # run all the same, and count this step: a learning rate's schedule must not stand still.
      kept = jax.tree.map(jnp.logical_and, masks, state.masks) if grows else masks
      inner_state = cleared_if(due, around, inner_state, kept)
      updates, inner_state = update_masked(around, kept, updates, inner_state, params, extra_args)
    if grows:
      updates = jax.tree.map(lambda u: jnp.where(due, jnp.zeros_like(u), u), updates)
    updates = held_at_zero(updates, params, masks)
    count = optax.safe_increment(state.count)
    return updates, PruneState(count, renewals, state.seed, state.table, masks, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
