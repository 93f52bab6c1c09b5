"""Messages about invalid parts of a pruning method, or parts that do not go together."""

import itertools
import numbers
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.sparsity.parts.allocation import Allocation
from sparsejax.sparsity.parts.granularity import Granularity
from sparsejax.sparsity.parts.schedules import PruningSchedule
from sparsejax.sparsity.parts.update_rules import UpdateRule

NOT_INJECTED = (
  '; optax.inject_hyperparams, which makes an array of it, belongs around the optimizer alone'
)


def unlike(name: str, path: str, value: Any, param: Any) -> str:
  """Returns the message for an extra argument that is missing or has another shape than a leaf."""
  has = 'is missing' if value is None else f'has shape {jnp.shape(value)}'
  return f"{name} of '{path}' {has} and must have shape {jnp.shape(param)}"


def check_array(seed: Any) -> None:
  """Raises a ValueError for a seed that is not an array of one integer, traced or not."""
  is_array = hasattr(seed, 'dtype') and np.ndim(seed) == 0
  if not is_array or not jnp.issubdtype(seed.dtype, jnp.integer):
    raise ValueError(f'seed={seed!r} must be an integer')


def schedule(given: Any) -> str:
  """Returns the message for a schedule that is not a PruningSchedule."""
  return (
    f'schedule={given!r} must be a PruningSchedule, made by one_shot, cubic, periodic or iterative'
  )


def part(name: str, given: Any) -> str:
  """Returns the message for a part of the wrong type."""
  module = 'update_rules' if name == 'update_rule' else name
  found = getattr(given, '__name__', repr(given))
  call = f', as {found}() does' if callable(given) else ''
  return f'{name}={found} must be what a function of sparsejax.{module} returns{call}'


def criterion(given: Any) -> str:
  """Returns the message for a criterion that is not a function."""
  if isinstance(given, str):
    return f'criterion={given!r} must be a function, such as criteria.magnitude'
  return f'criterion={given!r} must be a function{NOT_INJECTED}'


def floor(given: Any) -> str:
  """Returns the message for a floor that is not an integer of 0 or more."""
  if not isinstance(given, numbers.Integral) or isinstance(given, bool):
    return f'floor={given!r} must be an integer{NOT_INJECTED}'
  return f'floor={given} must be 0 or more'


def check_together(
  schedule: PruningSchedule, granularity: Granularity, allocation: Allocation, rule: UpdateRule
) -> None:
  """Raises a ValueError for densities that the allocation or the granularity cannot meet."""
  if schedule.by_layer != allocation.by_layer:
    raise ValueError(
      'densities by layer leave nothing to allocate: give no allocation='
      if schedule.by_layer
      else "allocation by_layer must have densities by layer, as in one_shot(0, {'fc1': 0.1})"
    )
  if not allocation.absolute:
    last = schedule.densities[-1]
    for kept in [kept for _, kept in last] if isinstance(last, tuple) else [last]:
      if kept < 1:
        granularity.check_density(kept, must='end at')
    return
  thresholds = [density for density in schedule.densities if isinstance(density, float)]
  if any(a > b for a, b in itertools.pairwise(thresholds)):
    raise ValueError(
      f'thresholds {schedule.densities} must not decrease, since removed weights stay removed: '
      'give increasing ones, such as cubic(..., initial=0.0)'
    )
  if rule.grow is not None:
    raise ValueError(
      'an update rule that grows weights at zero does not go with an absolute threshold, which '
      'removes what is near zero; give another allocation'
    )
