"""Renewing masks: criterion, granularity, allocation, schedule and update rule put together."""

import functools
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.sparsity import criteria, tree, updates
from sparsejax.sparsity.allocation import Allocation
from sparsejax.sparsity.costs import Layer
from sparsejax.sparsity.granularity import Granularity
from sparsejax.sparsity.schedules import PruningSchedule, checked
from sparsejax.sparsity.updates import UpdateRule
from sparsejax.streams import PRUNING, stream


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
  seed: int

  def checked(self) -> 'Renewal':
    """Returns itself, or raises a ValueError in one line for parts that don't go together."""
    schedule = checked(self.schedule)
    for part, kind in (('granularity', Granularity), ('allocation', Allocation)):
      if not isinstance(found := getattr(self, part), kind):
        raise ValueError(f'{part}={found}: allowed is what a function of sparsejax.{part} returns')
    falling = [a > b for a, b in itertools.pairwise(schedule.targets)]
    if self.allocation.absolute and any(falling):
      raise ValueError(
        f'thresholds {schedule.targets} fall, and what the first removes is gone: allowed are '
        'rising ones, such as cubic(..., initial=0.0)'
      )
    if self.floor < 0:
      raise ValueError(f'floor={self.floor}: allowed is 0 or more')
    if self.grows and self.allocation.absolute:
      raise ValueError(
        'an update rule that grows weights at zero does not go with an absolute threshold, which '
        'removes what is near zero; allowed are the other allocations'
      )
    return self._replace(schedule=schedule)

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

  def initial(self, params: Any) -> Any:
    """Returns masks that keep everything; refuses a target or a floor that can't be met."""
    chosen = tree.choose(params, self.parameters, self.exclude)
    masks = jax.tree.map(lambda p, c: jnp.ones(jnp.shape(p) if c else (), bool), params, chosen)
    if layers := self._layers(tree.pick(masks, chosen)):
      largest = max(layers, key=lambda layer: layer.groups)
      if self.floor > 1 and self.floor >= largest.groups:
        raise ValueError(
          f'floor={self.floor} must be less than {largest.groups}, what the largest leaf to prune '
          f'({largest.path}) has: nothing would be removed'
        )
      _table(self, layers)
    return masks

  def due(self, step: jax.Array) -> jax.Array:
    """Returns how many of the schedule's renewals lie at a step or before it."""
    return jnp.sum(jnp.asarray(self.schedule.steps) <= step, dtype=jnp.int32)

  def renew(self, masks: Any, params: Any, extra: Mapping[str, Any], step: jax.Array) -> Any:
    """Returns the masks of the schedule's newest renewal, made of the parameters as they are.

    Args:
      masks: those of before.
      params: any pytree.
      extra: what `needs` names, trees of the parameters' structure.
      step: one of the schedule's, or a later one.
    """
    chosen = tree.choose(params, self.parameters, self.exclude)
    picked = tree.pick(masks, chosen)
    leaves, structure = jax.tree.flatten(picked)
    if not leaves:
      return masks
    params = jax.tree.leaves(tree.pick(params, chosen))
    extra = {name: jax.tree.leaves(tree.pick(value, chosen)) for name, value in extra.items()}
    rows = jnp.asarray(_table(self, self._layers(picked)))
    row = rows[self.due(step) - 1]
    renewed = self._renew_groups(leaves, params, extra, row, step)
    spread = [self.granularity.spread(g, m.shape) for g, m in zip(renewed, leaves, strict=True)]
    return tree.merge(structure.unflatten(spread), masks)

  def _renew_groups(self, masks, params, extra, row, step):
    key = jax.random.fold_in(stream(jax.random.key(self.seed), PRUNING), step)
    keys = jax.random.split(key, 3 * len(masks)).reshape(3, len(masks))
    groups = [self.granularity.pool(mask.astype(jnp.float32)) > 0 for mask in masks]
    scores = self._score(self.criterion, params, extra, keys[0])
    # Only what is still there is ranked: a living zero must not tie with what has gone.
    ranked = [jnp.where(g, s, -jnp.inf) for g, s in zip(groups, scores, strict=True)]
    counts = self.allocation.counts(ranked, row, self.floor)
    grow = start = [None] * len(masks)
    if self.grows:
      grow = self._score(self.update_rule.grow, params, extra, keys[1])
      start = self._score(criteria.random, params, {}, keys[2])
    renew = functools.partial(
      updates.renew, self.update_rule, select=self.granularity.select, step=step
    )
    return [
      renew(*layer, grow_scores=g, start_scores=s)
      for *layer, g, s in zip(groups, scores, counts, grow, start, strict=True)
    ]

  def _score(self, criterion, params, extra, keys):
    """The mean score of every group, layer by layer; one that is no number is the least of all."""
    needs = criteria.needs(criterion)
    given = [{name: extra[name][i] for name in needs} for i in range(len(params))]
    if criteria.takes_key(criterion):
      given = [named | {'key': key} for named, key in zip(given, keys, strict=True)]
    scores = [
      self.granularity.mean(criterion(p, **named)) for p, named in zip(params, given, strict=True)
    ]
    # The least number, and not -inf, which stands for what has gone already.
    return [jnp.where(jnp.isnan(s), jnp.finfo(s.dtype).min, s) for s in scores]

  def _layers(self, masks: Any) -> tuple[Layer, ...]:
    return tuple(
      Layer(path, jnp.shape(mask), self.granularity.groups(jnp.shape(mask)))
      for path, mask in tree.named_leaves(masks).items()
    )


@functools.cache
def _table(parts: Renewal, layers: tuple[Layer, ...]) -> np.ndarray:
  """One planned row for each target: exact on the host, looked up on the device."""
  plan = parts.allocation.plan
  return np.stack([plan(layers, target, parts.floor) for target in parts.schedule.targets])
