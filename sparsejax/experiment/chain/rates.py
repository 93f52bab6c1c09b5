"""Turns a number, or a schedule that stands in its place, into an Optax schedule.

In a config a schedule is a block: `dict(schedule='step_decay', value=0.1, factor=0.1,
every_epochs=60)`. Every kind also takes `warmup_*`, a duration during which the value rises
linearly to the schedule's own.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.experiment.chain.durations import Clock, convert_to_steps
from sparsejax.internal.lookup import lookup

# step -> number, like Optax's own type, but without the complex numbers, which float() refuses.
Schedule = Callable[[jax.typing.ArrayLike], Any]


def constant(total, value):
  """value, always."""
  del total
  return optax.constant_schedule(value)


def step_decay(total, value, factor, every):
  """value * factor^floor(t / every); integers are divided, so the result is exact at any length."""
  del total
  if every < 1:
    raise ValueError(f'step_decay: every={every} steps; it must be 1 or more')
  return lambda step: value * jnp.float32(factor) ** (step // every)


def linear(total, initial, final, begin=0, end=None):
  """Goes from initial to final between the steps begin and end (by default the run's last)."""
  end = total if end is None else end
  if end <= begin:
    raise ValueError(f'linear: from step {begin} to step {end}; end must be after begin')

  def schedule(step):
    # The remaining steps are an integer, so that the end is met exactly: under jit 1 - done can
    # fall below zero by a rounding error, and so could a learning rate.
    left = jnp.clip((end - step) / (end - begin), 0.0, 1.0)
    return final + (initial - final) * left

  return schedule


def cosine(total, value, final=0.0):
  """Half a cosine from value to final over the whole run (Loshchilov and Hutter 2017)."""
  share = optax.cosine_decay_schedule(1.0, total)
  return lambda step: final + (value - final) * share(step)


def sgdr(total, value, first, multiply=2.0):
  """0.5 value (1 + cos(pi T / T_i)), restarted after each T_i = first * multiply^i steps.

  Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983
  """
  if first < 1 or not 1 <= multiply < math.inf:
    raise ValueError(f'sgdr: first={first} steps and multiply={multiply} must be 1 or more')
  cycles, ends = [], []
  while not ends or ends[-1] < total:
    length = round(first * multiply ** len(cycles))
    cycles.append(optax.cosine_decay_schedule(value, length))
    ends.append((ends[-1] if ends else 0) + length)
  return optax.join_schedules(cycles, ends[:-1])


def rewound(total, base, length, last):
  """The base schedule for `length` steps, then its last `last` steps again and again.

  Source: learning-rate rewinding, Renda et al. 2020, https://arxiv.org/abs/2003.02389
  """
  del total
  if not 1 <= last <= length:
    raise ValueError(f'rewound: last={last} of length={length} steps must be from 1 to the length')

  def schedule(step):
    again = length - last + (step - length) % last
    return base(jnp.where(step < length, step, again))

  return schedule


KINDS = {f.__name__: f for f in (constant, step_decay, linear, cosine, sgdr, rewound)}


def is_schedule(value: Any) -> bool:
  """Returns whether a setting is a schedule's block and not a plain number."""
  return isinstance(value, Mapping)


def build(settings: float | Mapping[str, Any], clock: Clock, field: str = 'schedule') -> Schedule:
  """Returns the Optax schedule (step -> number) for a number or a schedule's block.

  Args:
    settings: the number or the block, from a config.
    clock: the run's clock.
    field: where they stand in the config; errors begin with it.

  Raises:
    ValueError: the kind or a setting is unknown, a setting is missing, or a value is impossible.

  Example:
    >>> clock = Clock(examples=1000, batch_size=10, epochs=3)
    >>> rate = build(dict(schedule='step_decay', value=0.5, factor=0.5, every_epochs=1), clock)
    >>> float(rate(99)), float(rate(100))
    (0.5, 0.25)
  """
  if not isinstance(settings, Mapping):
    return optax.constant_schedule(settings)
  try:
    return _build(settings, clock)
  except ValueError as error:
    raise ValueError(f'{field}: {error}') from None


def _build(settings, clock):
  settings = dict(settings)
  kind = settings.pop('schedule', None)
  make = lookup('schedule', kind, KINDS)
  settings = convert_to_steps(settings, clock)
  warmup = settings.pop('warmup', 0)
  if 'base' in settings and 'length' in settings:
    epochs = settings['length'] / clock.steps_per_epoch
    settings['base'] = build(settings['base'], clock._replace(epochs=epochs), 'base')
  try:
    inspect.signature(make).bind(clock.total_steps, **settings)
  except TypeError as error:
    raise ValueError(f'schedule {kind!r}: {error}; given {sorted(settings)}') from None
  schedule = make(clock.total_steps, **settings)
  if not warmup:
    return schedule
  return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup)
