"""Builds a link that removes weights by a schedule from its block, or says what is wrong in it."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from sparsejax.experiment.chain.durations import Clock, convert_to_steps
from sparsejax.experiment.config import fields
from sparsejax.experiment.config.setting_kinds import WrongError, by_layer
from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.counting.costs import Costs
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.parts import allocation, criteria, granularity, schedules, update_rules
from sparsejax.transforms.pruning import prune
from sparsejax.transforms.rewinding import rewind
from sparsejax.transforms.straight_through import straight_through

CRITERIA = {  # (param, ...) -> scores; magnitude, the default, reads nothing but the parameters
  'magnitude': criteria.magnitude,
  'saliency': criteria.saliency,
  'fisher': criteria.fisher,
  'lamp': criteria.lamp,
  'random': criteria.random,
}
ALLOCATIONS: dict[str, Callable[..., allocation.Allocation]] = {
  'global_rank': allocation.global_rank,
  'uniform': allocation.uniform,
  'erk': allocation.erk,
  'absolute_threshold': allocation.absolute_threshold,
  'by_layer': allocation.by_layer,
}
GRANULARITIES: dict[str, Callable[[Mapping[str, Any]], granularity.Granularity]] = {
  'weight': lambda s: granularity.weight(),
  'filters': lambda s: granularity.filters(),
  'input_channels': lambda s: granularity.input_channels(),
  'blocks': lambda s: granularity.blocks(*s['block']),
  'n_m': lambda s: granularity.n_m(s['n'], s['m']),
}
UPDATE_RULES: dict[str, Callable[[Mapping[str, Any]], update_rules.UpdateRule]] = {
  'nested': lambda s: update_rules.nested(),
  'set': lambda s: update_rules.set_(s['drop_fraction'], start=s['start']),
  'rigl': lambda s: update_rules.rigl(s['end'], s['drop_fraction'], start=s['start']),
}
EXCHANGING = ('set', 'rigl')  # update rules that regrow weights
PRUNING_LINKS = tuple(fields.PRUNING_SCHEDULES)  # those that remove weights by a schedule
SETTINGS = {name: tuple(map(fields.strip_unit, fields.LINKS[name])) for name in PRUNING_LINKS}


def link_of(chain: Sequence[str]) -> str | None:
  """Returns the name of a chain's link that removes weights by a schedule; None if it has none."""
  return next((name for name in PRUNING_LINKS if name in chain), None)


def pruning_schedule(
  settings: Mapping[str, Any], clock: Clock, link: str = 'prune'
) -> schedules.PruningSchedule:
  """Returns the schedule of a link: the steps of its cuts and the density after each.

  Args:
    settings: the link's block.
    clock: turns durations into steps.
    link: the name of the link that the block belongs to.

  Raises:
    ValueError: a setting is missing, unknown, out of range, or lies beyond the end of the run.
  """
  in_steps = convert_block(settings, clock, link)
  begin, kind = in_steps['begin'], in_steps['schedule']
  lookup(f'{link}.schedule', kind, dict.fromkeys(fields.PRUNING_SCHEDULES[link]))
  lookup(f'{link}.allocation', in_steps['allocation'], ALLOCATIONS)
  density = _density(in_steps, link)
  _check_step(f'{link}.begin', begin, clock)
  if 'update_rule' in in_steps:
    _check_rule(kind, in_steps['update_rule'])
  if kind == 'one_shot':
    return schedules.one_shot(begin, density)
  if in_steps['every'] < 1:
    raise ValueError(f'{link}.every is {in_steps["every"]} steps; it must be 1 or more')
  if kind == 'iterative':
    schedule = _iterative_schedule(in_steps, density, link)
    _check_step(f'{link}.last round', schedule.steps[-1], clock)
    return schedule
  if not begin < in_steps['end']:
    raise ValueError(
      f'{link}: from step {begin} to step {in_steps["end"]} every {in_steps["every"]} steps: the '
      'end must be after the begin'
    )
  _check_step(f'{link}.end', in_steps['end'], clock)
  if kind == 'periodic':
    return schedules.periodic(begin, in_steps['end'], density, every=in_steps['every'])
  initial = 0.0 if in_steps['allocation'] == 'absolute_threshold' else 1.0
  return schedules.cubic(begin, in_steps['end'], density, initial=initial, every=in_steps['every'])


def _iterative_schedule(
  steps: Mapping[str, Any], density: float | dict[str, float], link: str
) -> schedules.PruningSchedule:
  """Returns the iterative schedule of a block, whose rounds each remove a fraction of the weights.

  Args:
    steps: the block, with its durations in steps.
    density: the final density, one number for all layers.
    link: the link that the block configures, for the messages.

  Raises:
    ValueError: the block has an absolute threshold, or a density for each layer.
  """
  if steps['allocation'] == 'absolute_threshold':
    raise ValueError(
      f"{link}.schedule='iterative' does not work with an absolute threshold, because each round "
      "removes a fraction of the remaining weights; use 'one_shot' or 'cubic'"
    )
  if isinstance(density, dict):
    raise ValueError(
      f"{link}.schedule='iterative' does not work with a density for each layer, because each "
      "round removes the same fraction of all remaining weights; use 'one_shot' or 'cubic'"
    )
  fraction = steps['round_fraction']
  return schedules.iterative(steps['begin'], steps['every'], density, fraction=fraction)


def _density(settings: Mapping[str, Any], link: str) -> float | dict[str, float]:
  """The final density, of all layers or by layer, or the threshold of an absolute allocation."""
  if settings['allocation'] == 'absolute_threshold':
    threshold = settings['threshold']
    if not 0 <= threshold < 1:
      raise ValueError(f'{link}.threshold={threshold} must be in [0, 1)')
    return threshold
  if settings['granularity'] == 'n_m':
    return settings['n'] / settings['m']
  density = settings['density']
  if isinstance(density, str) != (settings['allocation'] == 'by_layer'):
    raise ValueError(_mismatch_message(settings, link))
  parsed = _parse_by_layer(density, link) if isinstance(density, str) else density
  values = parsed.values() if isinstance(parsed, dict) else [parsed]
  if not all(0 < value <= 1 for value in values):
    raise ValueError(f'{link}.density={density} must be in (0, 1]')
  return parsed


def _parse_by_layer(density: str, link: str) -> dict[str, float]:
  """Returns {pattern: density} from a string such as 'conv=0.5,.*=0.1'."""
  try:
    return by_layer(density)
  except WrongError as error:
    raise ValueError(f"{link}.density='{density}' must be {error}") from None


def _mismatch_message(settings: Mapping[str, Any], link: str) -> str:
  """Returns the message for densities by layer without their allocation, or the reverse."""
  density, allocation_name = settings['density'], settings['allocation']
  if allocation_name == 'by_layer':
    return (
      f"{link}.allocation='by_layer' must have a density for each layer, such as "
      f"{link}.density='conv=0.5,.*=0.1', but {link}.density={density}"
    )
  return (
    f"{link}.density='{density}' leaves nothing to allocate: {link}.allocation='{allocation_name}' "
    "must be 'by_layer'"
  )


def _check_step(what: str, step: int, clock: Clock) -> None:
  """Raises a ValueError if a step lies beyond the end of the run."""
  if step >= clock.total_steps:
    raise ValueError(
      f'{what} is step {step}, but the run has {clock.total_steps} steps; it must be earlier'
    )


def _check_rule(schedule: str, rule: str) -> None:
  """Refuses a schedule that leaves the update rule nothing to do."""
  lookup('prune.update_rule', rule, UPDATE_RULES)
  if rule == 'nested' and schedule == 'periodic':
    raise ValueError(
      "prune.schedule='periodic': nested masks would be cut once and never change again; for that "
      "give one_shot, otherwise prune.update_rule='set' or 'rigl'"
    )
  if rule in EXCHANGING and schedule == 'one_shot':
    raise ValueError(
      f"prune.schedule='one_shot': the update rule '{rule}' exchanges weights at every mask update "
      'and one_shot makes only one; give periodic, cubic or iterative'
    )


def convert_block(block: Mapping[str, Any], clock: Clock, link: str) -> dict[str, Any]:
  """Returns the block with its durations in steps; refuses unknown or missing settings."""
  settings = convert_to_steps(block, clock, link)
  known = SETTINGS[link]
  for key in settings:
    lookup('setting', f'{link}.{key}', {f'{link}.{name}': None for name in known})
  missing = [name for name in known if name not in settings]
  if missing:
    raise ValueError(f'{link}.{missing[0]} is missing; {link} needs {", ".join(known)}')
  return settings


def build(
  block: Mapping[str, Any],
  clock: Clock,
  *,
  seed: int,
  inner: optax.GradientTransformation | None,
  costs: Callable[[str], Costs],
  link: str = 'prune',
) -> optax.GradientTransformationExtraArgs:
  """Returns the link that a block describes.

  Args:
    block: the settings.
    clock: turns durations into steps.
    seed: the seed of everything random.
    inner: the links that run inside the masks.
    costs: the network's costs in 'weights' or 'macs'.
    link: the name of the link that the block belongs to.
  """
  settings = convert_block(block, clock, link)
  schedule = pruning_schedule(block, clock, link)
  _check_leaves(settings, link)
  lookup(f'{link}.granularity', settings['granularity'], GRANULARITIES)
  try:
    made = MAKERS[link](
      settings,
      schedule,
      granularity=_granularity(settings),
      criterion=lookup(f'{link}.criterion', settings['criterion'], CRITERIA),
      allocation=_allocation(settings, costs, link),
      parameters=settings['parameters'],
      exclude=settings['exclude'],
      floor=settings['floor'],
      seed=seed,
      inner=inner,
    )
  except TypeError as error:
    raise ValueError(f'{link}: {error}') from None
  except ValueError as error:
    message = str(error)
    raise ValueError(message if link in message else f'{link}: {message}') from None
  return optax.GradientTransformationExtraArgs(_with_link_in_errors(link, made.init), made.update)


def _check_leaves(settings: Mapping[str, Any], link: str) -> None:
  """Raises a ValueError for a negative or fractional floor, or an invalid regular expression."""
  floor = settings['floor']
  if not (isinstance(floor, int) and floor >= 0):
    raise ValueError(f'{link}.floor={floor} must be an integer, 0 or more')
  try:
    tree.patterns(settings['exclude'])
  except ValueError as error:
    raise ValueError(f'{link}.{error}') from None


def _with_link_in_errors(link: str, init: Callable[..., Any]) -> Callable[..., Any]:
  """Returns `init` with the link's name put before the setting that an error begins with.

  'floor=9 must be ...' becomes 'prune.floor=9 must be ...'.
  """

  def init_fn(params):
    try:
      return init(params)
    except ValueError as error:
      setting = re.match(r'\w*', str(error))
      if setting is None or setting[0] not in SETTINGS[link]:
        raise
      raise ValueError(f'{link}.{error}') from None

  return init_fn


def _prune(
  settings: Mapping[str, Any], schedule: schedules.PruningSchedule, **parts: Any
) -> optax.GradientTransformationExtraArgs:
  """Returns `prune` with the update rule of the block."""
  rule = UPDATE_RULES[settings['update_rule']](settings)
  return prune(schedule, update_rule=rule, **parts)


def _straight_through(
  settings: Mapping[str, Any], schedule: schedules.PruningSchedule, **parts: Any
) -> optax.GradientTransformationExtraArgs:
  """Returns `straight_through` with the mask interval of the block."""
  every = settings['renew_every']
  if every < 1:
    raise ValueError(f'straight_through.renew_every is {every} steps; it must be 1 or more')
  return straight_through(schedule, every=every, **parts)


MAKERS = {'prune': _prune, 'straight_through': _straight_through}


def grows(block: Mapping[str, Any]) -> bool:
  """Returns whether the update rule of a block `prune` regrows weights."""
  name = block.get('update_rule', 'nested')
  if name in ('nested', *EXCHANGING) or name not in UPDATE_RULES:
    return name in EXCHANGING
  return UPDATE_RULES[name](block).grow is not None


def needs_squared_gradients(config: Mapping[str, Any]) -> bool:
  """Returns whether the criterion of a config's chain reads per-example gradients."""
  link = link_of(config['chain'])
  name = 'magnitude' if link is None else config[link]['criterion']
  return 'mean_squared_grad' in criteria.needs(CRITERIA[name])


def build_rewind(
  block: Mapping[str, Any], prune_block: Mapping[str, Any] | None, clock: Clock
) -> optax.GradientTransformationExtraArgs:
  """Returns the link that rewinds the weights at every mask update of `prune`."""
  settings = convert_to_steps(block, clock, 'rewind')
  for key in settings:
    lookup('setting', f'rewind.{key}', {'rewind.to': None})
  to = settings.get('to')
  if prune_block is None:
    raise ValueError("config.chain: 'rewind' acts at the cuts of 'prune'; give both")
  if to is None:
    raise ValueError('rewind.to is missing: give to_epochs, to_steps or to_examples')
  at = pruning_schedule(prune_block, clock).steps
  if to >= at[0]:
    raise ValueError(f'rewind.to is step {to}, but it must be before prune.begin, step {at[0]}')
  return rewind(to, at)


def _granularity(settings: Mapping[str, Any]) -> granularity.Granularity:
  """Returns the granularity of a block, in multiples of `in_multiples` groups."""
  groups = GRANULARITIES[settings['granularity']](settings)
  is_grouped = settings['granularity'] in fields.GROUPED
  if not is_grouped or settings['in_multiples'] == 1:
    return groups
  return granularity.in_multiples(settings['in_multiples'], groups)


def _allocation(
  settings: Mapping[str, Any], costs: Callable[[str], Costs], link: str
) -> allocation.Allocation:
  """Returns the allocation of a block, in the unit that `density_of` names.

  Raises:
    ValueError: the granularity or the allocation does not work with this unit.
  """
  if settings['granularity'] == 'n_m' and settings['allocation'] != 'uniform':
    raise ValueError(
      f"{link}.allocation='{settings['allocation']}' must be 'uniform' with the granularity n_m, "
      'which keeps n of every m everywhere'
    )
  lookup(f'{link}.density_of', settings['density_of'], dict.fromkeys(fields.DENSITY_UNITS))
  make = ALLOCATIONS[settings['allocation']]
  if settings['density_of'] == 'groups':
    return make()
  if settings['granularity'] == 'n_m':
    raise ValueError(
      f"{link}.density_of='{settings['density_of']}' must be 'groups' with the granularity n_m, "
      'which keeps n of every m'
    )
  if settings['allocation'] == 'by_layer':
    raise ValueError(
      f"{link}.density_of='{settings['density_of']}' must be 'groups' with densities by layer, "
      'each of which is a fraction of the weights of its layer'
    )
  if settings['allocation'] == 'absolute_threshold':
    raise ValueError(
      f"{link}.density_of='{settings['density_of']}' must be 'groups' with an absolute threshold, "
      'which is compared with each weight and is not a fraction of them'
    )
  return make(costs(settings['density_of']))
