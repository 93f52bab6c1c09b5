"""A sweep's config, checked: the space, the plan of slots, the ranking of trials."""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from optuna.distributions import CategoricalDistribution

from sparsejax.experiment.config.check import unmet_condition
from sparsejax.experiment.config.fields import strip_unit
from sparsejax.experiment.config.identity import hashed_settings, short_value
from sparsejax.experiment.config.setting_kinds import is_number
from sparsejax.internal.lookup import lookup
from sparsejax.search.plan import field_checks, space
from sparsejax.search.plan.brackets import Rung, Slot, brackets, plan

Resolve = Callable[[str], dict[str, Any]]  # 'configs/NAME.py:ARGUMENT' -> its resolved settings
SAMPLERS = ('random', 'tpe', 'grid')
SCHEDULERS = ('hyperband', 'optuna_hyperband', 'none')
METRICS = (
  'validation_loss',
  'validation_accuracy',
  'active_fraction',
  'active_parameters',
)
DIRECTIONS = ('minimize', 'maximize')
COUNTED = 1000  # a space of at most this many combinations has its different experiments counted


class Sweep(NamedTuple):
  """A search that can be run.

  Attributes:
    settings: the settings of the sweep, in JSON's types.
    parameters: the parameters that vary.
    combinations: the values of each slot of a grid; None if a sampler draws them.
    slots: all the pieces of work.
  """

  settings: Mapping[str, Any]
  parameters: tuple[space.Parameter, ...]
  combinations: list[dict[str, Any]] | None
  slots: list[Slot]

  @property
  def objectives(self) -> Sequence[Mapping[str, Any]]:
    return self.settings['objectives']


def check(settings: Mapping[str, Any], resolve: Resolve) -> Sweep:
  """Returns the search that a sweep's config describes.

  Args:
    settings: the fields of `sparsejax/search/plan/base.py`, in JSON's types.
    resolve: loads a config, with the sweep's overrides.

  Raises:
    ValueError: says in one line what is impossible.
  """
  settings = field_checks.check(settings)
  lookup('sampler', settings['sampler'], dict.fromkeys(SAMPLERS))
  lookup('scheduler.name', settings['scheduler']['name'], dict.fromkeys(SCHEDULERS))
  _check_goals(settings)
  parameters = space.parse(settings['space'])
  keys = {parameter.key for parameter in parameters}
  for key in {space.CONFIG, space.SEED} & keys:
    raise ValueError(f"space: '{key}' is not a parameter; give it in `{key}s` of the sweep")
  given = [config for config in settings['configs'] if ':' in config]
  if given and space.ARGUMENT in keys:
    raise ValueError(
      f"configs: '{given[0]}' has an argument, and so has the space; give only one of them"
    )
  _check_overrides(settings['overrides'], keys)
  _check_effects(settings, parameters, resolve)
  for key, values in ((space.CONFIG, settings['configs']), (space.SEED, settings['seeds'])):
    if len(set(values)) < len(values) or not values:
      raise ValueError(f'{key}s={tuple(values)} must have one entry or more, each once')
    if len(values) > 1:
      parameters = (*parameters, space.Parameter(key, CategoricalDistribution(tuple(values))))
  if not parameters:
    raise ValueError('space=(): nothing varies; give parameters, several configs or several seeds')
  if settings['sampler'] == 'grid':
    combinations = space.grid(parameters)
    _check_each_once(settings, combinations, resolve)
    slots = _full_length_slots(settings, resolve, len(combinations))
    return Sweep(settings, parameters, combinations, slots)
  if len(settings['seeds']) > 1:
    raise ValueError(
      f'seeds={tuple(settings["seeds"])} must be a single seed with the sampler '
      f"'{settings['sampler']}'"
    )
  _check_each_once(settings, [{space.CONFIG: config} for config in settings['configs']], resolve)
  return Sweep(settings, parameters, None, _slots(settings, parameters, resolve))


def _check_overrides(overrides, keys):
  """Refuses an override of a parameter: no trial would have it."""
  varied = {strip_unit(key): key for key in keys}
  for name, text in field_checks.check_overrides(overrides).items():
    if (key := varied.get(strip_unit(name))) is not None:
      raise ValueError(
        f"overrides: '{name}={text}' would never be used, since the space varies '{key}'; give "
        'only one of them'
      )


def _check_goals(settings):
  for objective in settings['objectives']:
    if not isinstance(objective, dict) or set(objective) != {'metric', 'direction'}:
      raise ValueError(f'objectives: {objective} must have metric and direction')
    lookup('direction', objective['direction'], dict.fromkeys(DIRECTIONS))
  for constraint in settings['constraints']:
    if not isinstance(constraint, dict) or set(constraint) != {'metric', 'at_most'}:
      raise ValueError(f'constraints: {constraint} must have metric and at_most')
    bound = constraint['at_most']
    if not is_number(bound) or not math.isfinite(bound):
      raise ValueError(f'constraints: at_most={bound!r} must be a number')
  for goal in (*settings['objectives'], *settings['constraints']):
    if str(goal['metric']).startswith('test'):
      raise ValueError(
        f"metric '{goal['metric']}': the test set is for reporting; give one of "
        f'{", ".join(METRICS)}'
      )
    lookup('metric', str(goal['metric']), dict.fromkeys(METRICS))
  count = len(settings['objectives'])
  if not count or (count > 1 and settings['scheduler']['name'] != 'none'):
    raise ValueError(
      f"objectives: {count} with the scheduler '{settings['scheduler']['name']}'; give one, "
      "or more with 'none'"
    )


def _check_effects(
  settings: dict[str, Any], parameters: Sequence[space.Parameter], resolve: Resolve
) -> None:
  """Refuses a key that is absent or not read, or two values of which give the same experiment."""
  for config in settings['configs']:
    one = settings | {'configs': [config]}
    for parameter in parameters:
      key = parameter.key
      samples = [{parameter.key: value} for value in parameter.samples]
      if same := _same(one, samples, resolve):
        before, after = (short_value(values[key]) for values in same)
        raise ValueError(
          f"space: '{key}' has no effect: {config} is the same experiment with {before} and {after}"
        )
      # Another parameter may take the value with which the key is read.
      beside = [{p.key: value} for p in parameters if p != parameter for value in p.samples]
      trials = [resolved(one, values, resolve) for values in ({}, *beside)]
      needed = [unmet_condition(trial, key) for trial in trials]
      if all(needed):
        raise ValueError(
          f"space: '{key}' has no effect on {config}: it is read only with {needed[0]}"
        )


def _check_each_once(settings, combinations, resolve):
  """Refuses a space that would train one experiment twice, since two settings may cancel out."""
  if same := _same(settings, combinations, resolve):
    raise ValueError(f'space: {same[0]} and {same[1]} are the same experiment')


def _same(
  settings: Mapping[str, Any], combinations: Sequence[Mapping[str, Any]], resolve: Resolve
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
  """Returns the first two combinations with one experiment and seed; None if all differ."""
  known: dict[str, Mapping[str, Any]] = {}
  for values in combinations:
    before = known.setdefault(_key(settings, values, resolve), values)
    if before is not values:
      return before, values
  return None


def _key(settings, values, resolve) -> str:
  trial = resolved(settings, values, resolve)
  return json.dumps([hashed_settings(trial), trial['seed']], sort_keys=True)


def repeats(sweep: Sweep, resolve: Resolve) -> list[str]:
  """Returns a warning if a sampler will draw some experiments more than once, else nothing.

  Args:
    sweep: the search.
    resolve: loads a config, with the sweep's overrides.
  """
  every = [parameter.values for parameter in sweep.parameters]
  if sweep.combinations is not None or not all(every):
    return []
  possible = math.prod(map(len, every))
  if possible <= COUNTED:
    keys = [parameter.key for parameter in sweep.parameters]
    combinations = (dict(zip(keys, values, strict=True)) for values in itertools.product(*every))
    possible = len({_key(sweep.settings, values, resolve) for values in combinations})
  drawn = sum(not slot.rung for slot in sweep.slots)
  # Less than half a repeat is expected, which the float below may lose.
  if drawn * (drawn - 1) < possible:
    return []
  different = round(possible * (1 - (1 - 1 / possible) ** drawn))
  if different >= drawn:
    return []
  return [
    f'{drawn} configurations are drawn from {possible} experiments, so about {different} of them '
    'will be different; each is trained once, however often it is drawn'
  ]


def resolved(
  sweep: Mapping[str, Any], values: Mapping[str, Any], resolve: Resolve
) -> dict[str, Any]:
  """Returns the settings of one trial.

  Args:
    sweep: the settings of the search.
    values: the values by parameter.
    resolve: loads a config, with the sweep's overrides.
  """
  values = dict(values)
  config = values.pop(space.CONFIG, sweep['configs'][0])
  seed = values.pop(space.SEED, sweep['seeds'][0])
  if space.ARGUMENT in values:
    config = f'{config.partition(":")[0]}:{values.pop(space.ARGUMENT)}'
  return space.apply(resolve(config), {'seed': seed, **values})


def _epochs(settings, resolve) -> int:
  """R, a whole number of epochs, with an evaluation at every rung."""
  lengths = {config: resolve(config)['epochs'] for config in settings['configs']}
  if len(set(lengths.values())) > 1:
    raise ValueError(f'epochs must be the same in all configs, not {lengths}')
  epochs = lengths[settings['configs'][0]]
  if epochs != int(epochs) or epochs < 1:
    raise ValueError(f'epochs={epochs} must be a whole number with brackets')
  return int(epochs)


def _slots(settings, parameters, resolve) -> list[Slot]:
  if settings['scheduler']['name'] != 'hyperband':
    return _full_length_slots(settings, resolve, settings['trials'])
  if any(parameter.key == 'epochs' for parameter in parameters):
    raise ValueError("space: 'epochs' is set by the brackets; vary it with the scheduler 'none'")
  schedule = brackets(_epochs(settings, resolve), settings['scheduler']['eta'])
  _check_evaluated(settings, [r.epochs for rungs in schedule for r in rungs], resolve)
  return plan(schedule)


def _check_evaluated(settings, epochs, resolve):
  """Refuses a config that is not evaluated at each of these epochs.

  Only whole divisors are accepted: a part of an epoch is rounded to whole steps, so that ten tenths
  need not make one epoch.
  """
  for config in settings['configs']:
    every = resolve(config)['evaluation'].get('every_epochs')
    for epoch in epochs:
      if every is None or every < 1 or every != int(every) or epoch % every:
        raise ValueError(
          f'evaluation.every_epochs={every}: nothing is evaluated at epoch {epoch}, where a '
          'trial may end; it must be a whole divisor of every such epoch, as 1.0 is'
        )


def _full_length_slots(settings, resolve, trials: int) -> list[Slot]:
  if settings['scheduler']['name'] == 'hyperband':
    raise ValueError(
      f"scheduler.name='hyperband' must be 'none' with the sampler '{settings['sampler']}'"
    )
  if settings['scheduler']['name'] == 'optuna_hyperband':
    _check_evaluated(settings, [_epochs(settings, resolve)], resolve)
  longest = max(math.ceil(resolve(config)['epochs']) for config in settings['configs'])
  return plan([(Rung(trials, longest),)])


def score(sweep: Mapping[str, Any], metrics: Mapping[str, float] | None) -> tuple[int, float]:
  """Returns the rank of a trial, smaller being better: feasible, then infeasible, then failed.

  Args:
    sweep: the settings of the search.
    metrics: the metrics of the trial; None if it failed.

  Example:
    >>> goals = {'objectives': [{'metric': 'active_fraction', 'direction': 'minimize'}],
    ...          'constraints': [{'metric': 'validation_loss', 'at_most': 0.0766}]}
    >>> score(goals, {'active_fraction': 0.1, 'validation_loss': 0.07})
    (0, 0.1)
    >>> score(goals, {'active_fraction': 0.01, 'validation_loss': 0.5766})
    (1, 0.5)
    >>> score(goals, None)
    (2, 0.0)
  """
  if metrics is None:
    return (2, 0.0)
  objective = sweep['objectives'][0]
  value = metrics[objective['metric']]
  broken = sum(excess for excess in excesses(sweep, metrics) if not excess <= 0)
  if not (math.isfinite(value) and math.isfinite(broken)):
    return (2, 0.0)
  if broken > 0:
    return (1, broken)
  return (0, value if objective['direction'] == 'minimize' else -value)


def excesses(sweep: Mapping[str, Any], metrics: Mapping[str, float]) -> list[float]:
  """Returns how far each constraint's metric exceeds its bound; at 0 or less it holds."""
  return [metrics[c['metric']] - c['at_most'] for c in sweep['constraints']]
