"""Builds the experiments of a search before it starts: every config, both ends of each range."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from optuna.distributions import CategoricalDistribution

from sparsejax.experiment.chain import rates
from sparsejax.experiment.config import identity
from sparsejax.experiment.config.identity import short_value
from sparsejax.experiment.training import setup
from sparsejax.search.plan import settings, space
from sparsejax.search.plan.settings import Resolve, Sweep


def check(sweep: Sweep, resolve: Resolve, *, with_ends: bool = True) -> list[str]:
  """Builds the experiments that a search may train; returns warnings, a line each.

  Args:
    sweep: the search.
    resolve: loads a config, with the sweep's overrides.
    with_ends: whether to build the ends of the ranges and every choice too, one parameter at a
      time.

  Raises:
    ValueError: no trial could be trained with some value, or a range changes nothing.
  """
  warnings = []
  for config in sweep.settings['configs']:
    one = {**sweep.settings, 'configs': [config]}
    experiment = _build(sweep, one, {}, f'{config}', resolve)
    if not with_ends:  # the warning about early rungs was given when the search started
      continue
    latest: dict[str, tuple[Any, setup.Experiment]] = {}
    for parameter in sweep.parameters:
      if parameter.key in (space.CONFIG, space.SEED):
        continue
      key = parameter.key
      ends = _ends(parameter)
      labels = {value: f"space: '{key}' at {short_value(value)} of {config}" for value in ends}
      built = [_build(sweep, one, {key: value}, labels[value], resolve) for value in ends]
      _check_schedule(sweep, parameter, built)
      if any(_cut(end) != _cut(experiment) for end in built):
        latest[key] = max(zip(ends, built, strict=True), key=lambda end: _cut(end[1]))
    last = _latest(sweep, one, experiment, latest, resolve)
    warnings += _rungs_before_the_cut(sweep, config, last, is_searched=bool(latest))
  return warnings


def _cut(experiment: setup.Experiment) -> float:
  """The epoch of the first cut, or -1 if there is none."""
  cut = experiment.agenda.first_cut
  return -1.0 if cut is None else cut / experiment.clock.steps_per_epoch


def _latest(sweep, one, experiment, latest, resolve) -> setup.Experiment:
  """The experiment of the space that is cut last.

  Args:
    sweep: the search.
    one: its settings, with one config.
    experiment: the config as it is, returned if no parameter moves the cut.
    latest: for each parameter that moves it, the value with the latest cut, and that experiment.
    resolve: loads a config.
  """
  if len(latest) > 1:
    values = {key: value for key, (value, _) in latest.items()}
    with contextlib.suppress(ValueError):  # they may exclude each other
      return _build(sweep, one, values, '', resolve)
  return max((built for _, built in latest.values()), key=_cut, default=experiment)


def _ends(parameter: space.Parameter) -> tuple[Any, ...]:
  samples = parameter.samples
  is_choice = isinstance(parameter.distribution, CategoricalDistribution)
  return samples if is_choice else (samples[0], samples[-1])


def _build(
  sweep: Sweep, one: Mapping[str, Any], values: Mapping[str, Any], what: str, resolve: Resolve
) -> setup.Experiment:
  """The experiment with some values; if they cannot be built alone, with other values of the space.

  The others are tried one at a time, then all at their first, middle and last value, because a
  trial has a value of every parameter.
  """
  others = [p for p in sweep.parameters if p.key not in {*values, space.CONFIG, space.SEED}]
  beside: list[dict[str, Any]] = [{}]
  beside += [{other.key: sample} for other in others for sample in other.samples]
  for choose in (lambda n: 0, lambda n: n // 2, lambda n: n - 1):
    beside.append({other.key: other.samples[choose(len(other.samples))] for other in others})
  reason = None
  for added in beside:
    try:
      return setup.build(settings.resolved(one, {**added, **values}, resolve))
    except ValueError as error:
      reason = reason or error
  raise ValueError(f'{what}: {reason}')


def _check_schedule(
  sweep: Sweep, parameter: space.Parameter, built: list[setup.Experiment]
) -> None:
  """Refuses a parameter that leaves its schedule the same at every step, whatever its value."""
  configs = [experiment.config for experiment in built]
  name = _enclosing_schedule(configs[0], parameter.key)
  if name is None or any(p.key.startswith(f'{name}.') for p in sweep.parameters if p != parameter):
    return
  first, *others = [
    jax.vmap(rates.build(identity.get_by_path(experiment.config, name), experiment.clock))(
      jnp.arange(experiment.clock.total_steps)
    )
    for experiment in built
  ]
  if all(np.array_equal(first, other) for other in others):
    low, *_, high = map(short_value, _ends(parameter))
    raise ValueError(
      f"space: '{parameter.key}' has no effect: {name} is the same at every step with {low} and "
      f'{high}'
    )


def _enclosing_schedule(config: Mapping[str, Any], key: str) -> str | None:
  """Returns the outermost block with a schedule that contains a field; None if no block has one."""
  names = key.split('.')
  for end in range(1, len(names)):
    block = identity.get_by_path(config, '.'.join(names[:end]))
    if rates.is_schedule(block) and block.get('schedule') in rates.KINDS:
      return '.'.join(names[:end])
  return None


def _rungs_before_the_cut(
  sweep: Sweep, config: str, experiment: setup.Experiment, *, is_searched: bool
) -> list[str]:
  cut = experiment.agenda.first_cut
  scheduler = sweep.settings['scheduler']
  rungs = {slot.epochs for slot in sweep.slots if not slot.is_last}
  if scheduler['name'] == 'optuna_hyperband':
    longest = sweep.slots[0].epochs
    powers = (scheduler['eta'] ** power for power in range(longest.bit_length()))
    rungs = {epochs for epochs in powers if epochs < longest}
  if cut is None:
    return []
  # The evaluation at the step of a cut is of the network before the cut.
  early = [epochs for epochs in sorted(rungs) if experiment.clock.steps('epochs', epochs) <= cut]
  if not early:
    return []
  is_not, begins = ('may not be', 'prune can begin') if is_searched else ('are not', 'prune begins')
  return [
    f'{config}: networks compared after {", ".join(map(str, early))} epochs {is_not} pruned yet: '
    f'{begins} at epoch {_cut(experiment):g}; with an earlier begin every rung compares pruned '
    'networks'
  ]
