"""Pruning schedules: the steps at which masks are renewed, and the density at each.

A schedule is a finite table made before training, in float64: every pruning step is known from the
configuration alone, and the last density is met exactly whatever the period. "At step t" means
after t updates: update number t, counted from 0, is the first that uses the mask.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.sparsity.leaves import tree

# A number, or a density by layer: {regular expression over paths: density}, stored as pairs, which
# are hashable.
ByLayer = tuple[tuple[str, float], ...]
Density = float | ByLayer


class _Table(NamedTuple):
  steps: tuple[int, ...]
  densities: tuple[Density, ...]


class PruningSchedule(_Table):
  """The pruning steps, increasing, and the density at each: an active fraction or a threshold.

  A density is a number, or {pattern: density}: the active fraction of each layer whose path the
  regular expression matches; the first match counts, and layers without one stay whole. The
  patterns are the same at every step.

  The allocation decides whether a density is a fraction or a threshold, and which are valid.

  Raises:
    ValueError: at once, if the steps do not increase, or densities do not match them.
  """

  __slots__ = ()

  def __new__(cls, steps: Sequence[int], densities: Sequence[Any]) -> 'PruningSchedule':
    if len(steps) != len(densities) or not steps:
      raise ValueError(
        f'pruning schedule of {len(steps)} steps and {len(densities)} densities: '
        'there must be one density for each step, and at least one'
      )
    if steps[0] < 0:
      raise ValueError(f'pruning at step {steps[0]}: the step must be 0 or later')
    if any(after <= before for before, after in itertools.pairwise(steps)):
      raise ValueError(f'pruning steps {steps} must increase')
    if any(step != int(step) for step in steps):
      raise ValueError(f'pruning steps {steps} must be whole numbers')
    kept = tuple(density_of(density) for density in densities)
    if len({_patterns(density) for density in kept}) > 1:
      raise ValueError(f'densities {densities} must have the same patterns at every step')
    return super().__new__(cls, tuple(map(int, steps)), kept)

  @classmethod
  def _make(cls, iterable: Iterable[Any]) -> 'PruningSchedule':
    """Returns a checked schedule, for `_replace` too."""
    return cls(*iterable)

  @property
  def by_layer(self) -> bool:
    """Whether the densities are given by layer."""
    return isinstance(self.densities[0], tuple)


def is_number(value: Any) -> bool:
  """Returns whether a value is a real number, or an array of shape ().

  Example:
    >>> is_number(0.5), is_number('0.5'), is_number(None)
    (True, False, False)
  """
  return isinstance(value, numbers.Real) or getattr(value, 'shape', None) == ()


def _whole(schedule: str, **steps: Any) -> list[int]:
  for name, step in steps.items():
    if not is_number(step) or not float(step).is_integer():
      raise ValueError(f'{schedule}: {name}={step!r} must be a whole number')
  return [int(step) for step in steps.values()]


def _check_numbers(schedule: str, **values: Any) -> None:
  for name, value in values.items():
    if not is_number(value):
      raise ValueError(f'{schedule}: {name}={value!r} must be a number')


def density_of(value: Any, name: str = 'density') -> Density:
  """Returns a density as it is stored: a float, or a tuple of (pattern, density) pairs.

  Raises:
    ValueError: if it is neither a number nor a mapping, or a density by layer is not in [0, 1].

  Example:
    >>> density_of({'^conv': 0.5, '.*': 0.1})
    (('^conv', 0.5), ('.*', 0.1))
  """
  if is_number(value):
    return float(value)
  if not isinstance(value, Mapping | tuple):
    raise ValueError(f'{name}={value!r} must be a number')
  pairs = tuple(value.items()) if isinstance(value, Mapping) else value
  if not pairs:
    raise ValueError(f"{name}={value!r} must name a layer, as in {{'fc1': 0.1}}")
  for pattern, density in pairs:
    if not isinstance(pattern, str):
      raise ValueError(
        f'{name}={{{pattern!r}: {density}}} must have expressions over paths as keys'
      )
    tree.patterns(pattern, name)
    if not is_number(density) or not 0 <= density <= 1:
      raise ValueError(f'{name}={{{pattern!r}: {density!r}}} must be a density from 0 to 1')
  return tuple((pattern, float(density)) for pattern, density in pairs)


def each(change: Callable[[float], float], density: Density) -> Density:
  """Applies a function to a density, or to each of the densities by layer.

  Example:
    >>> each(lambda density: 1 - density, (('fc1', 0.9),))
    (('fc1', 0.09...),)
  """
  if isinstance(density, tuple):
    return tuple((pattern, change(density)) for pattern, density in density)
  return change(density)


Given = float | Mapping[str, float]


def one_shot(step: int, density: Given) -> PruningSchedule:
  """Prunes once: the update after `step` updates is the first to use the masks.

  Args:
    step: the number of updates before pruning, 0 or more.
    density: the active fraction that is left, in (0, 1], or the threshold of an absolute
      allocation; or {pattern: density} by layer.

  Raises:
    ValueError: if the step is below 0.

  Example:
    >>> one_shot(100, 0.05)
    PruningSchedule(steps=(100,), densities=(0.05,))
    >>> one_shot(100, {'conv': 0.5, 'fc': 0.05}).densities
    ((('conv', 0.5), ('fc', 0.05)),)
  """
  kept = density_of(density, 'one_shot: density')
  return PruningSchedule(tuple(_whole('one_shot', step=step)), (kept,))


def cubic(
  begin: int, end: int, density: Given, *, initial: float = 1.0, every: int = 100
) -> PruningSchedule:
  r"""Gradual pruning: decreases from the initial to the final density, fast at first.

  .. math:: density_t = density + (initial - density) (1 - \frac{t - begin}{end - begin})^3

  at t = begin + every, begin + 2 every, ... and at t = end, where the density is exact.

  Args:
    begin: the step at which the cubic begins, 0 or more; masks are first renewed `every` later.
    end: the step of the last renewal.
    density: the final density, an active fraction or a threshold; or {pattern: density} by layer.
    initial: the density at `begin`: 1.0 for a fraction, 0.0 for a threshold.
    every: the number of steps between renewals, 1 or more.

  Raises:
    ValueError: if end is not after begin, or every is below 1.

  Example:
    >>> cubic(0, 40, 0.5, every=20)
    PruningSchedule(steps=(20, 40), densities=(0.5625, 0.5))

  References:
    Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878
  """
  begin, end, every = _whole('cubic', begin=begin, end=end, every=every)
  final = density_of(density, 'cubic: density')
  _check_numbers('cubic', initial=initial)
  if end <= begin or every < 1:
    raise ValueError(
      f'cubic schedule with begin={begin}, end={end}, every={every}: '
      'end must be after begin, and every 1 or more'
    )
  steps = (*range(begin + every, end, every), end)
  share_left = [1 - (step - begin) / (end - begin) for step in steps]
  densities = [each(lambda t, s=share: t + (initial - t) * s**3, final) for share in share_left]
  return PruningSchedule(steps, (*densities[:-1], final))


def periodic(begin: int, end: int, density: Given, *, every: int = 100) -> PruningSchedule:
  """Renews the masks periodically at one density, for rules that exchange weights.

  The steps are t = begin, begin + every, ... before `end`.

  Args:
    begin: the first step, 0 or more.
    end: the step before which all renewals lie.
    density: the active fraction at each, in (0, 1]; or {pattern: density} by layer.
    every: the number of steps between renewals, 1 or more.

  Raises:
    ValueError: if end is not after begin, or every is below 1.

  Example:
    >>> periodic(0, 50, 0.1, every=20)
    PruningSchedule(steps=(0, 20, 40), densities=(0.1, 0.1, 0.1))
  """
  begin, end, every = _whole('periodic', begin=begin, end=end, every=every)
  kept = density_of(density, 'periodic: density')
  if end <= begin or every < 1:
    raise ValueError(
      f'periodic schedule with begin={begin}, end={end}, every={every}: '
      'end must be after begin, and every 1 or more'
    )
  steps = tuple(range(begin, end, every))
  return PruningSchedule(steps, (kept,) * len(steps))


def iterative(begin: int, every: int, density: float, *, fraction: float = 0.2) -> PruningSchedule:
  r"""Iterative pruning: removes a fraction of the remaining weights each round.

  .. math:: density_r = (1 - fraction)^r \text{ at } t = begin + (r - 1) every

  and the last round prunes exactly to the density.

  Args:
    begin: the step of the first round, 0 or more.
    every: the number of steps from one round to the next, for retraining, 1 or more.
    density: the active fraction after the last round, in (0, 1].
    fraction: the share of the remaining weights that each round removes, between 0 and 1.

  Raises:
    ValueError: if a value is outside its range.

  Example:
    >>> iterative(100, 50, 0.3, fraction=0.5)
    PruningSchedule(steps=(100, 150), densities=(0.5, 0.3))

  References:
    Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635
    Renda et al. 2020, https://arxiv.org/abs/2003.02389
  """
  begin, every = _whole('iterative', begin=begin, every=every)
  _check_numbers('iterative', density=density, fraction=fraction)
  if not (0 < fraction < 1 and 0 < density <= 1 and every >= 1):
    raise ValueError(
      f'iterative with every={every}, density={density}, fraction={fraction}: every must be 1 or '
      'more, the density in (0, 1] and the fraction between 0 and 1'
    )
  count = max(1, math.ceil(math.log(density) / math.log1p(-fraction) - 1e-9))
  steps = tuple(begin + every * i for i in range(count))
  densities = [(1 - fraction) ** (i + 1) for i in range(count - 1)]
  return PruningSchedule(steps, (*densities, float(density)))


def _patterns(density: Density) -> tuple[str, ...] | None:
  return tuple(pattern for pattern, _ in density) if isinstance(density, tuple) else None
