"""Durations carry their unit in their name; this module is where they become steps."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.config import fields

MOST_STEPS = 2**31 - 2  # steps are counted in 32 bits


class Clock(NamedTuple):
  """The number of steps in an epoch and in the whole run; the incomplete last batch is dropped.

  Attributes:
    examples: the training examples, of which an epoch takes each once.
    batch_size: how many a step takes.
    epochs: how long a run is.
    labels_per_example: over all labels the data term of the loss is a mean; a text has one for
      each byte.
  """

  examples: int
  batch_size: int
  epochs: float
  labels_per_example: int = 1

  @property
  def labels(self) -> int:
    """The number of training labels, over which a posterior's KL is divided."""
    return self.examples * self.labels_per_example

  @property
  def steps_per_epoch(self) -> int:
    return self.examples // self.batch_size

  @property
  def total_steps(self) -> int:
    return self.steps('epochs', self.epochs)

  def steps(self, unit: str, duration: float) -> int:
    """Returns a duration in steps, rounded to the nearest.

    Example:
      >>> Clock(examples=1000, batch_size=10, epochs=3).steps('epochs', 1.5)
      150
    """
    if not math.isfinite(duration):
      raise ValueError(f'{unit}={duration} must be a finite number')
    per_unit = {'epochs': self.steps_per_epoch, 'steps': 1, 'examples': 1 / self.batch_size}
    steps = duration * per_unit[unit]
    if abs(steps) > MOST_STEPS:
      raise ValueError(f'{duration:g} {unit} must be at most {MOST_STEPS:,} steps')
    return round(steps)


def convert_to_steps(settings: Mapping[str, Any], clock: Clock, block: str = '') -> dict[str, Any]:
  """Returns the settings with `name_epochs`, `name_steps` or `name_examples` as `name`, in steps.

  Args:
    settings: one block of a config.
    clock: the run's.
    block: the block's name, which errors put before the setting's name.

  Raises:
    ValueError: a duration is negative, not finite, or given in two units.

  Example:
    >>> convert_to_steps({'begin_epochs': 2.0, 'density': 0.1}, Clock(1000, 10, 3))
    {'begin': 200, 'density': 0.1}
  """
  converted = {}
  prefix = block and f'{block}.'
  for key, value in settings.items():
    name, _, unit = key.rpartition('_')
    if name and unit in fields.UNITS:
      if not (isinstance(value, int | float) and 0 <= value < math.inf):
        raise ValueError(f'{prefix}{key}={value} must be a number of {unit}, 0 or more')
      try:
        key, value = name, clock.steps(unit, value)
      except ValueError as error:
        raise ValueError(f'{prefix}{key}={value}: {error}') from None
    if key in converted:
      raise ValueError(f'{prefix}{key} is given in two units; give it in only one')
    converted[key] = value
  return converted
