"""Renewing masks: criterion, granularity, allocation, schedule and update rule put together."""

import functools
import itertools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.streams import PRUNING, stream
from sparsejax.sparsity.counting.costs import Layer
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.parts import criteria, update_rules
from sparsejax.sparsity.parts.allocation import Allocation
from sparsejax.sparsity.parts.granularity import Granularity
from sparsejax.sparsity.parts.schedules import PruningSchedule, checked
from sparsejax.sparsity.parts.selection import after
from sparsejax.sparsity.parts.units import Unit, units
from sparsejax.sparsity.parts.update_rules import UpdateRule
from sparsejax.sparsity.placement import placed_like

PARTS = {'granularity': Granularity, 'allocation': Allocation, 'update_rule': UpdateRule}


def check_part(name: str, part: Any, kind: type) -> None:
  """Raises a ValueError in one line where a part is not what its functions return."""
  if not isinstance(part, kind):
    module = 'update_rules' if kind is UpdateRule else name
    found = getattr(part, '__name__', repr(part))
    call = f', as {found}() does' if callable(part) else ''
    raise ValueError(f'{name}={found} must be what a function of sparsejax.{module} returns{call}')


def seed_of(seed: Any) -> jax.typing.ArrayLike:
  """Returns a seed that uint32 can hold: of any integer, or of an array of one, traced or not.

  Raises:
    ValueError: it is neither.
  """
  is_array = hasattr(seed, 'dtype') and np.ndim(seed) == 0
  is_whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
  if not is_whole and not (is_array and jnp.issubdtype(seed.dtype, jnp.integer)):
    raise ValueError(f'seed={seed!r} must be an integer')
  return int(seed) % 2**32 if is_whole else seed


NOT_INJECTED = (
  '; optax.inject_hyperparams, which makes an array of it, belongs around the optimizer alone'
)


def _check_criterion(criterion: Any) -> None:
  if callable(criterion):
    return
  if isinstance(criterion, str):
    raise ValueError(
      f'criterion={criterion!r} must be a function, as criteria.magnitude and its neighbours are'
    )
  raise ValueError(f'criterion={criterion!r} must be a function{NOT_INJECTED}')


class Renewal(NamedTuple):
  """The parts of a pruning method, and the masks that they make of parameters.

  Masks are a tree of the parameters' structure: bools of a chosen leaf's shape, and one bool of
  shape () in the place of any other leaf, so that no leaf is ever missing.
  """

  schedule: PruningSchedule
  criterion: criteria.Criterion
  granularity: Granularity
  allocation: Allocation
  update_rule: UpdateRule
  parameters: tree.Choice
  exclude: tuple[str, ...]
  floor: int
  layouts: axes.Given = ()

  def checked(self) -> 'Renewal':
    """Returns itself, or raises a ValueError in one line for parts that don't go together."""
    schedule = checked(self.schedule)
    for part, kind in PARTS.items():
      check_part(part, getattr(self, part), kind)
    self._check_densities(schedule)
    _check_criterion(self.criterion)
    if not isinstance(self.floor, numbers.Integral) or isinstance(self.floor, bool):
      raise ValueError(f'floor={self.floor!r} must be an integer{NOT_INJECTED}')
    if self.floor < 0:
      raise ValueError(f'floor={self.floor} must be 0 or more')
    if self.grows and self.allocation.absolute:
      raise ValueError(
        'an update rule that grows weights at zero does not go with an absolute threshold, which '
        'removes what is near zero; give another allocation'
      )
    which = self.parameters
    if not isinstance(which, str) and not callable(which):
      which = tuple(which)
    return self._replace(schedule=schedule, parameters=which)

  def _check_densities(self, schedule: PruningSchedule) -> None:
    """Refuses densities that the allocation or the granularity can't make."""
    if schedule.by_layer != self.allocation.by_layer:
      raise ValueError(
        'densities by layer leave nothing to allocate, and no allocation= must be given'
        if schedule.by_layer
        else "allocation by_layer must have densities by layer, as in one_shot(0, {'fc1': 0.1})"
      )
    thresholds = [density for density in schedule.densities if isinstance(density, float)]
    falling = [a > b for a, b in itertools.pairwise(thresholds)]
    if self.allocation.absolute and any(falling):
      raise ValueError(
        f'thresholds {schedule.densities} fall, and what the first removes is gone: give '
        'rising ones, such as cubic(..., initial=0.0)'
      )
    fixed, last = self.granularity.density, schedule.densities[-1]
    lasts = [kept for _, kept in last] if isinstance(last, tuple) else [last]
    if fixed is not None and not self.allocation.absolute:
      for kept in lasts:
        if kept < 1 and not math.isclose(kept, fixed):
          raise ValueError(
            f'density={kept:.6g} must end at {fixed:.6g}, the n / m of the granularity n_m'
          )

  @property
  def grows(self) -> bool:
    return self.update_rule.grow is not None

  @property
  def needs(self) -> dict[str, criteria.Criterion]:
    """The extra arguments without which masks can't be renewed, and which criterion asks."""
    needs = dict.fromkeys(criteria.needs(self.criterion), self.criterion)
    if (grow := self.update_rule.grow) is not None:
      needs |= dict.fromkeys(criteria.needs(grow), grow)
    return needs

  def begin(self, params: Any) -> tuple[Any, jax.Array]:
    """Returns masks that keep everything, placed as their parameters are, and the planned table.

    The table has a row for each density, int32 or float32, planned exactly on the host.

    Raises:
      ValueError: a density or a floor that can't be met.
    """
    found = self.units(params)
    pruned = {leaf.path for unit in found for leaf in unit.leaves}
    ones = [
      jnp.ones_like(leaf, dtype=bool) if path in pruned else jnp.ones((), bool)
      for path, leaf in tree.named_leaves(params).items()
    ]
    masks = jax.tree.unflatten(jax.tree.structure(params), ones)
    priced = self.allocation.priced
    layers = [layer for unit in found for layer in unit.layers(with_sizes=priced)]
    self._check_floor(layers)
    rows = _table(self.allocation, tuple(layers), self.schedule.densities, self.floor)
    return masks, jnp.asarray(rows)

  def _check_floor(self, layers: Sequence[Layer]) -> None:
    largest = max(layers, key=lambda layer: layer.groups, default=None)
    if largest is not None and self.floor > 1 and self.floor >= largest.groups:
      raise ValueError(
        f'floor={self.floor} must be less than {largest.groups}, what the largest leaf to prune '
        f'({largest.path}) has: nothing would be removed'
      )

  def units(self, params: Any) -> list[Unit]:
    """Returns what is ranked together, as names and shapes tell; a leaf without a weight is not."""
    chosen = axes.choose(params, self.parameters, self.exclude, self.layouts)
    chosen = jax.tree.map(lambda c, leaf: c and math.prod(jnp.shape(leaf)) > 0, chosen, params)
    return units(params, chosen, self.granularity, self.layouts)

  def due(self, step: jax.Array) -> jax.Array:
    """Returns how many of the schedule's renewals lie at a step or before it."""
    return jnp.sum(jnp.asarray(self.schedule.steps) <= step, dtype=jnp.int32)

  def renew(
    self,
    masks: Any,
    params: Any,
    extra: Mapping[str, Any],
    *,
    step: jax.Array,
    seed: jax.Array,
    table: jax.Array,
  ) -> Any:
    """Returns the masks of the schedule's newest renewal, made of the parameters as they are.

    Args:
      masks: those of before.
      params: any pytree.
      extra: what `needs` names, trees of the parameters' structure.
      step: one of the schedule's, or a later one.
      seed: the seed of all that is random.
      table: the rows that were planned.
    """
    found = self.units(params)
    if not found:
      return masks
    row = table[self.due(step) - 1]

    @placed_like(masks)
    def renewed(masks, params, extra, row, step, seed):
      named = tree.named_leaves(masks), tree.named_leaves(params)
      of_leaves = {name: tree.named_leaves(value) for name, value in extra.items()}
      new = _Step(self, found, *named, of_leaves).masks(row, step, seed)
      leaves = [new.get(path, mask) for path, mask in named[0].items()]
      return jax.tree.unflatten(jax.tree.structure(masks), leaves)

    return renewed(masks, params, dict(extra), row, step, seed)


class _Step(NamedTuple):
  """One renewal: its parts, what it prunes, and the leaves by path."""

  parts: Renewal
  units: list[Unit]
  old: Mapping[str, jax.Array]
  params: Mapping[str, jax.Array]
  extra: Mapping[str, Mapping[str, jax.Array]]

  def masks(self, row, step, seed) -> dict[str, jax.Array]:
    """Returns the new mask of every leaf that is pruned."""
    parts = self.parts
    number = sum(len(unit.leaves) for unit in self.units)
    key = jax.random.fold_in(stream(jax.random.key(seed), PRUNING), step)
    keys = jax.random.split(key, 3 * number).reshape(3, number)
    groups = [
      unit.pool([self.old[leaf.path].astype(jnp.float32) for leaf in unit.leaves]) > 0
      for unit in self.units
    ]
    keys = [self._by_unit(some) for some in keys]
    scores: list[jax.Array] = []
    for unit, some in zip(self.units, keys[0], strict=True):
      earlier = scores[-1] if scores else None
      scores.append(self._scores(parts.criterion, unit, some, earlier))
    # Only what is still there is ranked: a living zero must not tie with what has gone.
    ranked = [jnp.where(g, s, -jnp.inf) for g, s in zip(groups, scores, strict=True)]
    sizes = [unit.sizes if parts.allocation.priced else 1 for unit in self.units]
    counts = parts.allocation.counts(ranked, row, parts.floor, sizes)
    renew = functools.partial(
      update_rules.renew, parts.update_rule, select=parts.granularity.select, step=step
    )
    found, kept = {}, None
    for unit, group, score, count, *some in zip(
      self.units, groups, scores, counts, *keys[1:], strict=True
    ):
      g = s = None
      if parts.grows:
        g = self._scores(parts.update_rule.grow, unit, some[0], kept)
        s = self._scores(criteria.random, unit, some[1], kept)
      of_layer = jax.vmap(
        lambda mask, score, count, g, s: renew(mask, score, count, grow_scores=g, start_scores=s)
      )
      kept = of_layer(group, score, after(count, kept), g, s)
      paths = [leaf.path for leaf in unit.leaves]
      found |= dict(zip(paths, unit.spread(kept), strict=True))
    return found

  def _by_unit(self, keys: jax.Array) -> list[list[jax.Array]]:
    """Each leaf's random key, unit by unit."""
    each = iter(keys)
    return [[next(each) for _ in unit.leaves] for unit in self.units]

  def _scores(self, criterion, unit, keys, earlier) -> jax.Array:
    """The mean score of every group of a unit, finite; one that is no number is the least of all.

    Args:
      criterion: scores single weights.
      unit: what is ranked.
      keys: a random key for each leaf.
      earlier: what must be there first, so that no two leaves are sorted at a time.
    """
    leaves = zip(unit.leaves, keys, strict=True)
    score = unit.mean([self._score(criterion, leaf, key, earlier) for leaf, key in leaves])
    # Finite, as -inf stands for what has gone already and inf for what a rule keeps as it grows.
    least, most = jnp.finfo(score.dtype).min, jnp.finfo(score.dtype).max
    return jnp.where(jnp.isnan(score), least, jnp.clip(score, least, most))

  def _score(self, criterion, leaf, key, earlier) -> jax.Array:
    """What a criterion says of a leaf, each of the layers that it stacks by itself."""
    named = {name: self.extra[name].get(leaf.path) for name in criteria.needs(criterion)}
    for name, value in named.items():
      if value is None or jnp.shape(value) != leaf.shape:
        has = 'is missing' if value is None else f'has shape {jnp.shape(value)}'
        raise ValueError(f"{name} of '{leaf.path}' {has} and must have shape {leaf.shape}")
    random = criteria.takes_key(criterion)
    param, key = (after(value, earlier) for value in (self.params[leaf.path], key))
    if criteria.takes_path(criterion):
      criterion = functools.partial(criterion, path=leaf.path)
    if leaf.layers == 1:
      return criterion(param, **named, **({'key': key} if random else {}))
    keys = {'key': jax.random.split(key, leaf.layers)} if random else {}
    param, named = jax.tree.map(lambda values: leaf.layout.view(values, 'stacked'), (param, named))
    scores = jax.vmap(lambda p, named: criterion(p, **named))(param, named | keys)
    return leaf.layout.restore(scores, 'stacked', leaf.shape)


@functools.lru_cache(maxsize=64)
def compiled(parts: Renewal) -> Callable[..., Any]:
  """Returns `parts.renew`, compiled as one program outside of jit too."""
  return jax.jit(parts.renew)


@functools.cache
def _table(allocation, layers, densities, floor) -> np.ndarray:
  rows = np.stack([allocation.plan(layers, density, floor) for density in densities])
  return rows.astype(np.float32 if np.issubdtype(rows.dtype, np.floating) else np.int32)
