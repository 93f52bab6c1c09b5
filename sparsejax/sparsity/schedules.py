"""Pruning schedules: at which steps the masks are renewed, and with what target.

A schedule is a finite table made before training, in float64: every step at which something
happens is known from the configuration alone, and the last target is met exactly whatever the
period. "At step t" means after t updates: the update number t is the first that uses the mask.
"""

import itertools
from typing import NamedTuple


class PruningSchedule(NamedTuple):
  """The steps (rising) and the target at each: an active fraction, or a threshold."""

  steps: tuple[int, ...]
  targets: tuple[float, ...]


def one_shot(step: int, target: float) -> PruningSchedule:
  """Prunes once, at the given step.

  Example:
    >>> one_shot(100, 0.05)
    PruningSchedule(steps=(100,), targets=(0.05,))
  """
  return checked(PruningSchedule((int(step),), (float(target),)))


def cubic(
  begin: int, end: int, target: float, *, initial: float = 1.0, every: int = 100
) -> PruningSchedule:
  """Falls from the initial to the final target, fast at first (Zhu and Gupta 2017, 1710.01878).

  target_t = target + (initial - target) (1 - (t - begin) / (end - begin))^3

  at t = begin + every, begin + 2 every, ... and at t = end, where the target is exact.

  Example:
    >>> cubic(0, 40, 0.5, every=20)
    PruningSchedule(steps=(20, 40), targets=(0.5625, 0.5))
  """
  if end <= begin or every < 1:
    raise ValueError(
      f'cubic schedule with begin={begin}, end={end}, every={every}: '
      'allowed is begin < end and every >= 1'
    )
  steps = (*range(begin + every, end, every), end)
  share_left = [1 - (step - begin) / (end - begin) for step in steps]
  targets = [target + (initial - target) * share**3 for share in share_left]
  return checked(PruningSchedule(steps, (*targets[:-1], float(target))))


def checked(schedule: PruningSchedule) -> PruningSchedule:
  """Returns the schedule, or raises a ValueError if it is no table of rising steps and targets.

  Which targets are allowed is the allocation's to say: a fraction and a threshold differ.
  """
  steps, targets = schedule
  if len(steps) != len(targets) or not steps:
    raise ValueError(
      f'pruning schedule of {len(steps)} steps and {len(targets)} targets: '
      'allowed is one target for each step, and at least one'
    )
  if steps[0] < 0:
    raise ValueError(f'pruning at step {steps[0]}: allowed is 0 or later')
  if any(after <= before for before, after in itertools.pairwise(steps)):
    raise ValueError(f'pruning steps {steps}: allowed are rising steps, each once')
  if any(step != int(step) for step in steps):
    raise ValueError(f'pruning steps {steps}: allowed are whole numbers')
  return schedule
