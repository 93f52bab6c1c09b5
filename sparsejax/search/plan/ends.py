"""What a search would train, built before it begins: every config, both ends of every range."""

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
  """Builds what a search starts from; returns warnings, a line each.

  Args:
    sweep: the search.
    resolve: loads a config, with the sweep's overrides.
    with_ends: builds the ends of the ranges and every choice too, one parameter at a time.

  Raises:
    ValueError: a value with which no trial could be trained, or a range that changes nothing.
  """
  warnings = []
  for config in sweep.settings['configs']:
    one = {**sweep.settings, 'configs': [config]}
    experiment = _build(sweep, one, {}, f'{config}', resolve)
    if not with_ends:  # what is compared before the cut was told when the search began
      continue
    latest: dict[str, tuple[Any, setup.Experiment]] = {}
    for parameter in sweep.parameters:
      if parameter.key in (space.CONFIG, space.SEED):
        continue
      key, ends = parameter.key, _ends(parameter)
      at = {value: f"space: '{key}' at {short_value(value)} of {config}" for value in ends}
      built = [_build(sweep, one, {key: value}, at[value], resolve) for value in ends]
      _check_schedule(sweep, parameter, built)
      if any(_cut(end) != _cut(experiment) for end in built):
        latest[key] = max(zip(ends, built, strict=True), key=lambda end: _cut(end[1]))
    last = _latest(sweep, one, experiment, latest, resolve)
    warnings += _rungs_before_the_cut(sweep, config, last, is_searched=bool(latest))
  return warnings


def _cut(experiment: setup.Experiment) -> float:
  """The epoch of the first cut; -1 where there is none."""
  cut = experiment.agenda.first_cut
  return -1.0 if cut is None else cut / experiment.clock.steps_per_epoch


def _latest(sweep, one, experiment, latest, resolve) -> setup.Experiment:
  """Of what the space can be the experiment that is cut last.

  Args:
    sweep: the search.
    one: its settings, of one config.
    experiment: the config as it is, which stands where no parameter moves the cut.
    latest: for each parameter that does, its value with the latest cut, and that experiment.
    resolve: loads a config.
  """
  if len(latest) > 1:
    values = {key: value for key, (value, _) in latest.items()}
    with contextlib.suppress(ValueError):  # together they can't be
      return _build(sweep, one, values, '', resolve)
  return max((built for _, built in latest.values()), key=_cut, default=experiment)


def _ends(parameter: space.Parameter) -> tuple[Any, ...]:
  samples = parameter.samples
  is_choice = isinstance(parameter.distribution, CategoricalDistribution)
  return samples if is_choice else (samples[0], samples[-1])


def _build(
  sweep: Sweep, one: Mapping[str, Any], values: Mapping[str, Any], what: str, resolve: Resolve
) -> setup.Experiment:
  """The experiment with some values, or, if that can't be by itself, with others of the space.

  Of these one at a time, and all at their first, middle and last: a trial has a value of each.
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


def _check_schedule(sweep, parameter, built: list[setup.Experiment]) -> None:
  """Refuses a setting of a schedule that is the same at every step of the run, whatever it is."""
  configs = [experiment.config for experiment in built]
  name = _schedule_of(configs[0], parameter.key)
  if name is None or any(p.key.startswith(f'{name}.') for p in sweep.parameters if p != parameter):
    return
  first, *others = [
    jax.vmap(rates.build(identity.at(experiment.config, name), experiment.clock))(
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


def _schedule_of(config: Mapping[str, Any], key: str) -> str | None:
  """The outermost schedule's block that a field is in."""
  names = key.split('.')
  for end in range(1, len(names)):
    block = identity.at(config, '.'.join(names[:end]))
    if rates.is_schedule(block) and block.get('schedule') in rates.KINDS:
      return '.'.join(names[:end])
  return None


def _rungs_before_the_cut(
  sweep: Sweep, config: str, experiment: setup.Experiment, *, is_searched: bool
) -> list[str]:
  cut, scheduler = experiment.agenda.first_cut, sweep.settings['scheduler']
  rungs = {slot.epochs for slot in sweep.slots if not slot.is_last}
  if scheduler['name'] == 'optuna_hyperband':
    longest = sweep.slots[0].epochs
    powers = (scheduler['eta'] ** power for power in range(longest.bit_length()))
    rungs = {epochs for epochs in powers if epochs < longest}
  if cut is None:
    return []
  # The evaluation at the very step of a cut is of the network before it.
  early = [epochs for epochs in sorted(rungs) if experiment.clock.steps('epochs', epochs) <= cut]
  if not early:
    return []
  is_not, begins = ('may not be', 'prune can begin') if is_searched else ('is not', 'prune begins')
  return [
    f'{config}: what is compared after {", ".join(map(str, early))} epochs {is_not} pruned yet: '
    f'{begins} at epoch {_cut(experiment):g}; with an earlier begin every rung compares pruned '
    'networks'
  ]
