"""Renewing masks: criterion, granularity, allocation, schedule and update rule put together.

`Renewal.of` puts them together, `begin` makes the first masks and plans how many stay, and
`renewed_if` makes new masks where they are due. What most methods do without is elsewhere, each a
call from here: groups, stacks and heads (`units`), weights that come back (`update_rules`), choices
of parameters and their layouts (`axes`).
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
from sparsejax.sparsity.parts.units import LARGEST, Unit, units
from sparsejax.sparsity.placement import placed_like

PARTS = {
  'granularity': Granularity,
  'allocation': allocations.Allocation,
  'update_rule': update_rules.UpdateRule,
}
USUAL = (SINGLE, 'kernels', (), ())  # granularity, parameters, exclude and layouts


class Begun(NamedTuple):
  """Where pruning stands: what every transformation that renews masks has in its state."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made
  renewals: jax.typing.ArrayLike  # shape=(), dtype=int32: how many of the schedule's steps are made
  seed: jax.typing.ArrayLike  # shape=(), dtype=uint32: of what is random
  table: jax.typing.ArrayLike  # what was planned, a row for each density; int32 or float32
  masks: Any  # dtype=bool, of each chosen leaf's shape; shape=() for the others


class Renewal(NamedTuple):
  """The parts of a pruning method, and the masks that they make of parameters.

  Masks are a tree of the parameters' structure: bools of a chosen leaf's shape, and one bool of
  shape () in the place of any other leaf, so that no leaf is ever missing.
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
  needs: tuple[tuple[str, criteria.Criterion], ...] = ()  # extra arguments and who asks for them

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
    """Returns the parts of a method; what is None is as `prune` has it by default.

    Raises:
      ValueError: in one line, what is no such part, or parts that don't go together.
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
    """Returns masks that keep everything, placed as their parameters are, and the planned table.

    The table has a row for each density, int32 or float32, planned exactly on the host.

    Raises:
      ValueError: a density or a floor that can't be met.
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
        f'floor={self.floor} must be less than {most.groups}, what the largest leaf to prune '
        f'({most.path}) has: nothing would be removed'
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
      *(jnp.zeros([], jnp.int32) for _ in range(2)),  # apart, to be donated
      seed=jnp.array(int(seed) % 2**32 if isinstance(seed, numbers.Integral) else seed, jnp.uint32),
      table=jnp.asarray(rows.astype(np.int32 if is_whole else np.float32)),
      masks=jax.tree.unflatten(jax.tree.structure(params), masks),
    )

  def units(self, params: Any) -> list[Unit]:
    """Returns the units to rank, found by leaf names and shapes; empty leaves are skipped.

    In most networks whatever has several axes is called a kernel, and is a matrix or the filters of
    images, and all else is a vector or a number: then no leaf stacks layers, and single weights are
    ranked as they lie. Whatever is harder, `units` answers.
    """
    is_usual = (self.granularity, self.parameters, self.exclude, self.layouts) == USUAL
    named = tree.named_leaves(params) if is_usual else {}
    kernels = {}
    for path, leaf in named.items():
      if callable(leaf) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        is_usual = False
        break
      shape, name = jnp.shape(leaf), path.rpartition('/')[2]
      if len(shape) > 1:
        is_image = len(shape) == 4 and shape[0] == shape[1] <= axes.LARGEST_WINDOW
        is_filters = is_image and not axes.DENSE.search(path)
        is_usual &= name == 'kernel' and (len(shape) == 2 or is_filters)
        kernels[path] = shape
    if is_usual and kernels and max(map(math.prod, kernels.values())) <= LARGEST:
      return [Unit((path,), shape) for path, shape in kernels.items() if math.prod(shape)]
    chosen = axes.choose(params, self.parameters, self.exclude, self.layouts)
    chosen = jax.tree.map(lambda c, leaf: c and math.prod(jnp.shape(leaf)) > 0, chosen, params)
    return units(params, chosen, self.granularity, self.layouts)

  def renewed_if(
    self,
    due: jax.Array | bool,
    state: Any,
    params: Any,
    extra: Mapping[str, Any],
    *,
    anew: bool = False,
  ) -> Any:
    """Returns the state's masks, or where they are due those that the parameters make.

    A loop of one pass at most, and not a branch: under vmap a branch becomes a select, and masks
    would be ranked anew at every step.

    Args:
      due: shape (), whether masks are to be renewed.
      state: has `masks`, `count`, `seed` and `table`, as `Begun`.
      params: the parameters that masks are made for.
      extra: what `needs` names: trees as the parameters, or functions that make them when due.
      anew: whether all that was removed is ranked again, as if nothing had been.
    """

    def renewed(renew, masks):
      trees = {name: v() if tree.is_function(v) else v for name, v in extra.items()}
      given = jax.lax.stop_gradient((params, trees))  # masks have no derivative
      masks = jax.tree.map(jnp.ones_like, masks) if anew else masks
      return renew(masks, *given, state.count, state.seed, state.table)

    if not isinstance(due, jax.core.Tracer):
      return renewed(_compiled(self), state.masks) if due else state.masks
    within = functools.partial(_traced, self)
    _, masks = jax.lax.while_loop(
      lambda carried: carried[0],
      lambda carried: (jnp.zeros_like(due), renewed(within, carried[1])),
      (due, state.masks),
    )
    return masks

  def renew(self, masks: Any, params: Any, extra: Mapping[str, Any], step, seed, table) -> Any:
    """Returns new masks, made from the parameters as they are.

    Args:
      masks: the old masks, in the structure of `params`.
      params: any pytree.
      extra: what `needs` names, trees in the structure of `params`.
      step, seed, table: the step, and what `Begun` holds.
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
    groups, ranked, kept = [], [], None
    for unit in found:
      if unit.groups is None:
        there = old[unit.paths[0]][None]
      else:
        there = unit.groups.pool([old[path].astype(jnp.float32) for path in unit.paths]) > 0
      earlier = ranked[-1] if ranked else None
      scores = self._scores(self.criterion, unit, named, given, earlier=earlier)
      groups.append(there)
      # Only what is still there is ranked: a living zero must not tie with what has gone.
      ranked.append(jnp.where(there, scores, -jnp.inf))
    sizes = [u.groups.sizes if self.allocation.priced and u.groups else 1 for u in found]
    row = table[jnp.sum(jnp.asarray(self.schedule.steps) <= step) - 1]
    counts = self.allocation.counts(ranked, row, self.floor, sizes)
    for unit, there, scores, count in zip(found, groups, ranked, counts, strict=True):
      count = after(count, kept)
      if self.update_rule.grow is None:
        kept = there & jax.vmap(self.granularity.select)(scores, count)
      else:
        kept = self._exchanged(unit, named, given, there, scores, count, step, kept)
      new = [kept[0]] if unit.groups is None else unit.groups.spread(kept)
      old |= dict(zip(unit.paths, new, strict=True))
    return jax.tree.unflatten(jax.tree.structure(masks), old.values())

  def _scores(self, criterion, unit, params, given, use=0, earlier=None) -> jax.Array:
    """The mean score of every group of a unit, finite; one that is no number is the least of all.

    Args:
      criterion: scores single weights.
      unit: what is ranked.
      params: by path.
      given: by name and path, what else there is to score by.
      use: which of a leaf's three random keys: to rank, to grow or to start.
      earlier: what must be there first, so that no two leaves are sorted at a time.
    """
    found = []
    for i, path in enumerate(unit.paths):
      param, named = params[path], {}
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
    # Finite, as -inf stands for what has gone already and inf for what a rule keeps as it grows.
    least, most = jnp.finfo(jnp.float32).min, jnp.finfo(jnp.float32).max
    return jnp.where(jnp.isnan(mean), least, jnp.clip(mean, least, most))

  def _exchanged(self, unit, params, given, there, scores, count, step, earlier) -> jax.Array:
    """Which groups of a unit are kept by an update rule that lets others come back."""
    grow = self._scores(self.update_rule.grow, unit, params, given, 1, earlier)
    start = self._scores(criteria.random, unit, params, given, 2, earlier)
    renew = functools.partial(
      update_rules.renew, self.update_rule, select=self.granularity.select, step=step
    )
    of_layer = jax.vmap(
      lambda mask, score, count, g, s: renew(mask, score, count, grow_scores=g, start_scores=s)
    )
    return of_layer(there, scores, count, grow, start)


_traced = jax.jit(Renewal.renew, static_argnums=0)  # within another program, one for all places


@functools.lru_cache(maxsize=64)
def _compiled(parts: Renewal) -> Callable[..., Any]:
  """Returns `parts.renew` as a program of its own, for updates outside of `jax.jit`.

  Programs hold memory that the system maps, of which a process may have only so many pieces: those
  of methods that are no longer used must go.
  """
  return jax.jit(parts.renew)


def held_at_zero(updates: Any, params: Any, masks: Any) -> Any:
  """Returns the updates u within the masks, and outside of them -p, so that p + u is exactly zero.

  The result has the wider dtype of u and p: -p rounded to a narrower one would not bring p to zero.

  Example:
    >>> w, masks = {'w': jnp.array([5.0, 5.0])}, {'w': jnp.array([True, False])}
    >>> held_at_zero({'w': jnp.ones(2)}, w, masks)['w'].tolist()
    [1.0, -5.0]
  """
  with jax.numpy_dtype_promotion('standard'):
    return jax.tree.map(lambda u, p, m: jnp.where(m, u, -p), updates, params, masks)
