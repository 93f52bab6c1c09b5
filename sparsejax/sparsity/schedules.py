"""Pruning schedules: at which steps the masks are renewed, and with what target.

A schedule is a finite table made before training, in float64: every step at which something
happens is known from the configuration alone, and the last target is met exactly whatever the
period. "At step t" means after t updates: the update number t is the first that uses the mask.
"""

from typing import NamedTuple


class Schedule(NamedTuple):
  """The steps (rising) and the target at each: an active fraction, or a threshold."""

  steps: tuple[int, ...]
  targets: tuple[float, ...]


def one_shot(step: int, target: float) -> Schedule:
  """Prunes once, at the given step.

  Example:
    >>> one_shot(100, 0.05)
    Schedule(steps=(100,), targets=(0.05,))
  """
  return _checked(Schedule((int(step),), (float(target),)))


def cubic(begin: int, end: int, target: float, *, initial: float = 1.0, every: int = 100):
  """Falls from the initial to the final target, fast at first (Zhu and Gupta 2017, 1710.01878).

  target_t = target + (initial - target) (1 - (t - begin) / (end - begin))^3

  at t = begin + every, begin + 2 every, ... and at t = end, where the target is exact.

  Example:
    >>> cubic(0, 40, 0.5, every=20)
    Schedule(steps=(20, 40), targets=(0.5625, 0.5))
  """
  if end <= begin or every < 1:
    raise ValueError(f'cubic schedule from step {begin} to {end} every {every}: needs begin < end')
  steps = (*range(begin + every, end, every), end)
  share_left = [1 - (step - begin) / (end - begin) for step in steps]
  targets = [target + (initial - target) * share**3 for share in share_left]
  return _checked(Schedule(steps, (*targets[:-1], float(target))))


def _checked(schedule: Schedule) -> Schedule:
  if schedule.steps[0] < 0:
    raise ValueError(f'pruning at step {schedule.steps[0]}: allowed is 0 or later')
  if not all(0 <= target <= 1 for target in schedule.targets):
    raise ValueError(f'pruning target {schedule.targets[-1]}: allowed is the range from 0 to 1')
  return schedule
