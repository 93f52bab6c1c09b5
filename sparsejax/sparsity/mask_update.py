"""Renewal of masks: criterion, granularity, allocation, schedule and update rule combined.

`Renewal.of` combines them, `begin` makes the first masks and plans the counts, and `renewed_if`
makes new masks when they are due. Features that most methods do not use are in other modules:
groups, stacks and heads in `units`, regrowth in `update_rules`, choices of parameters and their
layouts in `axes`.
"""

import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from sparsejax.internal.streams import PRUNING
from sparsejax.sparsity import refusals
from sparsejax.sparsity.counting.costs import Layer
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.parts import allocation as allocations
from sparsejax.sparsity.parts import criteria, update_rules
from sparsejax.sparsity.parts.allocation import GLOBAL_RANK
from sparsejax.sparsity.parts.granularity import SINGLE, Granularity
from sparsejax.sparsity.parts.schedules import PruningSchedule
from sparsejax.sparsity.parts.selection import after
from sparsejax.sparsity.parts.units import LARGEST, Unit
from sparsejax.sparsity.parts.units import units as find_units
from sparsejax.sparsity.placement import placed_like

PARTS = {
  'granularity': Granularity,
  'allocation': allocations.Allocation,
  'update_rule': update_rules.UpdateRule,
}
DEFAULT = (SINGLE, 'kernels', (), ())  # granularity, parameters, exclude and layouts


class Begun(NamedTuple):
  """The state of pruning, which every transformation that renews masks holds."""

  count: jax.typing.ArrayLike  # int32, shape (): the number of updates made
  renewals: jax.typing.ArrayLike  # int32, shape (): how many steps of the schedule were made
  seed: jax.typing.ArrayLike  # uint32, shape (): the seed of random scores
  table: jax.typing.ArrayLike  # int32 or float32: the plan, a row for each density
  masks: Any  # bool, of each chosen leaf's shape; shape () for other leaves


class Renewal(NamedTuple):
  """The parts of a pruning method, and the masks that they make.

  Masks are a tree in the structure of the parameters: bools of a chosen leaf's shape, and a bool of
  shape () in place of any other leaf, so that no leaf is ever missing.
  """

  schedule: PruningSchedule
  criterion: criteria.Criterion
  granularity: Granularity
  allocation: allocations.Allocation
  update_rule: update_rules.UpdateRule
  parameters: tree.Choice
  exclude: tuple[str, ...]
  floor: int
  layouts: axes.Given
  needs: tuple[
    tuple[str, criteria.Criterion], ...
  ] = ()  # extra arguments and the criteria that need them

  @classmethod
  def of(
    cls,
    schedule: PruningSchedule,
    *,
    criterion: criteria.Criterion,
    granularity: Granularity | None,
    allocation: allocations.Allocation | None,
    update_rule: update_rules.UpdateRule | None = None,
    parameters: tree.Choice = 'kernels',
    exclude: str | Sequence[str],
    layouts: Mapping[str, str | Layout] | axes.Given | None,
    floor: int,
    seed: jax.typing.ArrayLike,
  ) -> 'Renewal':
    """Returns the parts of a method, with the default of `prune` for each part that is None.

    Raises:
      ValueError: if an argument is not such a part, or parts do not go together.
    """
    if not isinstance(schedule, PruningSchedule):
      raise ValueError(refusals.schedule(schedule))
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool):
      refusals.check_array(seed)
    by_layer = isinstance(schedule.densities[0], tuple)
    if allocation is None:
      is_plain = granularity is None and not by_layer
      allocation = GLOBAL_RANK if is_plain else allocations.default(granularity, schedule)
    parts = cls(
      schedule,
      criterion,
      granularity or SINGLE,
      allocation,
      update_rule or update_rules.UpdateRule(),
      parameters if isinstance(parameters, str) or callable(parameters) else tuple(parameters),
      () if exclude == () else tree.patterns(exclude),
      floor,
      () if layouts is None else axes.given(layouts),
    )
    for name, kind in PARTS.items():
      if not isinstance(getattr(parts, name), kind):
        raise ValueError(refusals.part(name, getattr(parts, name)))
    if not callable(criterion):
      raise ValueError(refusals.criterion(criterion))
    if not isinstance(floor, numbers.Integral) or isinstance(floor, bool) or floor < 0:
      raise ValueError(refusals.floor(floor))
    by_layer = by_layer or parts.allocation.by_layer
    if by_layer or parts.allocation.absolute or parts.granularity.density is not None:
      refusals.check_together(schedule, parts.granularity, parts.allocation, parts.update_rule)
    asking = [ask for ask in (criterion, parts.update_rule.grow) if ask is not None]
    needs = [(name, ask) for ask in asking for name in criteria.takes(ask)]
    return parts._replace(needs=tuple(need for need in needs if need[0] not in criteria.GIVEN))

  def begin(self, params: Any, seed: jax.typing.ArrayLike) -> Begun:
    """Returns masks that keep everything, sharded like their parameters, and the planned table.

    The table has a row for each density, int32 or float32, planned exactly on the host.

    Raises:
      ValueError: if a density or the floor cannot be met.
    """
    found = self.units(params)
    layers = []
    for unit in found:
      if unit.groups is not None:
        layers += unit.groups.layers(with_sizes=self.allocation.priced)
      else:
        layers.append(Layer(unit.paths[0], unit.shape, math.prod(unit.shape)))
    most = max(layers, key=lambda layer: layer.groups, default=None)
    if most is not None and self.floor > 1 and self.floor >= most.groups:
      raise ValueError(
        f'floor={self.floor} must be less than {most.groups}, the number of groups in the '
        f'largest leaf to prune ({most.path}): nothing would be removed'
      )
    densities = self.schedule.densities
    plan = self.allocation.plan
    rows = np.stack([plan(tuple(layers), density, self.floor) for density in densities])
    is_whole = np.issubdtype(rows.dtype, np.integer)
    pruned = {path for unit in found for path in unit.paths}
    masks = [
      jnp.ones_like(leaf, dtype=bool) if path in pruned else jnp.ones((), bool)
      for path, leaf in tree.named_leaves(params).items()
    ]
    return Begun(
      *(jnp.zeros([], jnp.int32) for _ in range(2)),  # separate arrays, so that both can be donated
      seed=jnp.array(int(seed) % 2**32 if isinstance(seed, numbers.Integral) else seed, jnp.uint32),
      table=jnp.asarray(rows.astype(np.int32 if is_whole else np.float32)),
      masks=jax.tree.unflatten(jax.tree.structure(params), masks),
    )

  def units(self, params: Any) -> list[Unit]:
    """Returns the units to rank, found by leaf names and shapes; empty leaves are skipped.

    The usual case is decided here: with the default parts, and if every leaf of several axes is
    named a kernel and is a matrix or a bank of square image filters, each such leaf is a unit whose
    single weights are ranked in place. In any other case the module `units` finds the groups, heads
    and stacked layers.
    """

    def is_usual(path, shape):
      is_image = len(shape) == 4 and shape[0] == shape[1] <= axes.LARGEST_WINDOW
      is_filters = is_image and not axes.DENSE.search(path)
      return path.rpartition('/')[2] == 'kernel' and (len(shape) == 2 or is_filters)

    is_default = (self.granularity, self.parameters, self.exclude, self.layouts) == DEFAULT
    named = tree.named_leaves(params) if is_default else {}
    are_floats = all(
      not callable(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
      for leaf in named.values()
    )
    shapes = {path: jnp.shape(leaf) for path, leaf in named.items()} if are_floats else {}
    kernels = {path: shape for path, shape in shapes.items() if len(shape) > 1}
    are_usual = bool(kernels) and all(is_usual(*kernel) for kernel in kernels.items())
    if are_usual and max(map(math.prod, kernels.values())) <= LARGEST:
      return [Unit((path,), shape) for path, shape in kernels.items() if math.prod(shape)]
    chosen = axes.choose(params, self.parameters, self.exclude, self.layouts)
    chosen = jax.tree.map(lambda c, leaf: c and math.prod(jnp.shape(leaf)) > 0, chosen, params)
    return find_units(params, chosen, self.granularity, self.layouts)

  def renewed_if(
    self,
    due: jax.Array | bool,
    state: Any,
    params: Any,
    extra: Mapping[str, Any],
    *,
    anew: bool = False,
  ) -> Any:
    """Returns the state's masks or, when they are due, new masks for the parameters.

    This is a loop of at most one iteration and not a branch: under vmap a branch becomes a select,
    and new masks would be computed at every step.

    Args:
      due: shape (), whether to renew the masks.
      state: has `masks`, `count`, `seed` and `table`, like `Begun`.
      params: the parameters to make masks for.
      extra: the arguments named in `needs`: trees like `params`, or functions that return them,
        called only when due.
      anew: whether to rank all weights again, as if none had been removed.
    """

    def call(renew, masks):
      trees = {name: v() if tree.is_function(v) else v for name, v in extra.items()}
      given = jax.lax.stop_gradient((params, trees))  # masks have no derivative
      masks = jax.tree.map(jnp.ones_like, masks) if anew else masks
      return renew(masks, *given, state.count, state.seed, state.table)

    if not isinstance(due, jax.core.Tracer):  # outside jit, where `renew` is a program of its own
      return call(_compiled(self), state.masks) if due else state.masks
    within = functools.partial(_traced, self)  # `renew` as a part of the caller's program
    _, masks = jax.lax.while_loop(
      lambda carried: carried[0],
      lambda carried: (jnp.zeros_like(due), call(within, carried[1])),
      (due, state.masks),
    )
    return masks

  def renew(self, masks: Any, params: Any, extra: Mapping[str, Any], step, seed, table) -> Any:
    """Returns new masks for the parameters.

    First the groups that are left in each unit are scored, then the allocation says how many stay
    in each layer, then these are kept. A unit's arrays are (stacked layers, *groups).

    Args:
      masks: the old masks, in the structure of `params`.
      params: any pytree.
      extra: the arguments named in `needs`, trees in the structure of `params`.
      step: the number of updates made.
      seed: the seed in `Begun`.
      table: the table in `Begun`.
    """
    shardings = [jax.typeof(mask).sharding for mask in jax.tree.leaves(masks)]
    if any(AxisType.Explicit in sharding.mesh.axis_types for sharding in shardings):
      within = placed_like(masks)(functools.partial(Renewal.renew, self))
      return within(masks, params, extra, step, seed, table)
    found = self.units(params)
    if not found:
      return masks
    old, named = tree.named_leaves(masks), tree.named_leaves(params)
    given = {name: tree.named_leaves(value) for name, value in extra.items()}
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), PRUNING), step)
    paths = [path for unit in found for path in unit.paths]
    keys = jax.random.split(key, 3 * len(paths)).reshape(3, len(paths))
    given |= {'key': {path: keys[:, i] for i, path in enumerate(paths)}}
    actives, ranked = [], []  # which groups are left, and their scores
    for unit in found:
      if unit.groups is None:
        active = old[unit.paths[0]][None]  # one layer
      else:
        active = unit.groups.pool([old[path].astype(jnp.float32) for path in unit.paths]) > 0
      earlier = ranked[-1] if ranked else None
      scores = self._scores(self.criterion, unit, named, given, earlier=earlier)
      actives.append(active)
      # Only active groups are ranked: an active zero must not tie with a removed one.
      ranked.append(jnp.where(active, scores, -jnp.inf))
    sizes = [u.groups.sizes if self.allocation.priced and u.groups else 1 for u in found]
    # The plan of the newest mask update.
    row = table[jnp.sum(jnp.asarray(self.schedule.steps) <= step) - 1]
    counts = self.allocation.counts(ranked, row, self.floor, sizes)
    earlier = None
    for unit, active, scores, count in zip(found, actives, ranked, counts, strict=True):
      count = after(count, earlier)  # unchanged, but units wait for each other, to save memory
      if self.update_rule.grow is None:
        kept = active & jax.vmap(self.granularity.select)(scores, count)  # mostly keep_largest
      else:
        kept = self._exchanged(unit, named, given, active, scores, count, step, earlier)
      earlier = kept
      new = [kept[0]] if unit.groups is None else unit.groups.spread(kept)
      old |= dict(zip(unit.paths, new, strict=True))
    return jax.tree.unflatten(jax.tree.structure(masks), old.values())

  def _scores(self, criterion, unit, params, given, use=0, earlier=None) -> jax.Array:
    """Returns the mean score of every group of a unit, all finite; NaN becomes the least score.

    Args:
      criterion: the criterion, which scores single weights.
      unit: the unit to rank.
      params: {path: parameter}.
      given: {name: {path: array}}, the other arguments of criteria.
      use: the index of one of a leaf's three random keys: to rank, to grow or to start.
      earlier: an array to compute first, so that no two leaves are ranked at the same time.
    """
    found = []
    for i, path in enumerate(unit.paths):
      param = params[path]
      named = {}
      for name in criteria.takes(criterion):
        named[name] = value = path if name == 'path' else given[name].get(path)
        is_like = name in criteria.GIVEN or (value is not None and value.shape == param.shape)
        if not is_like:
          raise ValueError(refusals.unlike(name, path, value, param))
      if 'key' in named:
        named['key'] = after(named['key'][use], earlier)
      param = after(param, earlier)
      if unit.groups is None:
        found.append(criterion(param, **named))
      else:
        found.append(unit.groups.score(i, criterion, param, named))
    mean = found[0].astype(jnp.float32)[None] if unit.groups is None else unit.groups.mean(found)
    # Finite, since -inf means that a group is removed, and inf that a rule keeps it while others
    # grow.
    least, most = jnp.finfo(jnp.float32).min, jnp.finfo(jnp.float32).max
    return jnp.where(jnp.isnan(mean), least, jnp.clip(mean, least, most))

  def _exchanged(self, unit, params, given, active, scores, count, step, earlier) -> jax.Array:
    """Returns the mask of a unit's groups by an update rule that regrows some."""
    grow = self._scores(self.update_rule.grow, unit, params, given, 1, earlier)
    start = self._scores(criteria.random, unit, params, given, 2, earlier)
    exchange = functools.partial(
      update_rules.exchange, self.update_rule, select=self.granularity.select, step=step
    )
    of_layer = jax.vmap(
      lambda mask, score, count, g, s: exchange(mask, score, count, grow_scores=g, start_scores=s)
    )
    return of_layer(active, scores, count, grow, start)


_traced = jax.jit(
  Renewal.renew, static_argnums=0
)  # inside another program: one trace for all calls


@functools.lru_cache(maxsize=64)
def _compiled(parts: Renewal) -> Callable[..., Any]:
  """Returns `parts.renew` compiled on its own, for updates outside `jax.jit`.

  Compiled programs hold memory maps, whose number is limited for each process, so programs of
  methods that are no longer used must be freed.
  """
  return jax.jit(parts.renew)


def held_at_zero(updates: Any, params: Any, masks: Any) -> Any:
  """Returns the updates u inside the masks, and -p outside of them, so that p + u is exactly zero.

  The result has the wider dtype of u and p: -p rounded to a narrower one would not cancel p.

  Example:
    >>> w, masks = {'w': jnp.array([5.0, 5.0])}, {'w': jnp.array([True, False])}
    >>> held_at_zero({'w': jnp.ones(2)}, w, masks)['w'].tolist()
    [1.0, -5.0]
  """
  with jax.numpy_dtype_promotion('standard'):
    return jax.tree.map(lambda u, p, m: jnp.where(m, u, -p), updates, params, masks)
