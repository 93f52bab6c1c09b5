"""From `config.chain`, a tuple of names, to the Optax chain; an order without sense is refused."""

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.experiment import rates
from sparsejax.experiment.durations import Clock, in_steps
from sparsejax.lookup import lookup
from sparsejax.sparsity import allocation, criteria, granularity, schedules, updates
from sparsejax.transforms.pruning import prune

CRITERIA = {f.__name__: f for f in (criteria.magnitude, criteria.saliency, criteria.random)}
ALLOCATIONS = {
  f.__name__: f for f in (allocation.global_rank, allocation.uniform, allocation.absolute_threshold)
}
GRANULARITIES = {'weight': granularity.weight}
UPDATE_RULES = {'nested': updates.nested}
PRUNING_SCHEDULES = ('one_shot', 'cubic')
PRUNE_SETTINGS = (
  *('schedule', 'begin', 'end', 'every', 'target', 'allocation', 'criterion', 'granularity'),
  *('update_rule', 'parameters', 'exclude', 'floor', 'inner'),
)


def pruning_schedule(settings: Mapping[str, Any], clock: Clock) -> schedules.PruningSchedule:
  """Returns the mask steps and targets of the block `prune`.

  Raises:
    ValueError: a setting that is missing, unknown, outside its range or beyond the run.
  """
  steps = _prune_settings(settings, clock)
  target, begin, kind = steps['target'], steps['begin'], steps['schedule']
  lookup('prune.schedule', kind, dict.fromkeys(PRUNING_SCHEDULES))
  lookup('prune.allocation', steps['allocation'], ALLOCATIONS)
  is_threshold = steps['allocation'] == 'absolute_threshold'
  allowed = '[0, 1) for a threshold' if is_threshold else '(0, 1] for an active fraction'
  if not (0 <= target < 1 if is_threshold else 0 < target <= 1):
    raise ValueError(f'prune.target={target}: allowed is {allowed}')
  if begin >= clock.total_steps:
    raise ValueError(
      f'prune.begin is step {begin}, but the run has {clock.total_steps}; allowed is earlier'
    )
  if kind == 'one_shot':
    return schedules.one_shot(begin, target)
  if not begin < steps['end'] or steps['every'] < 1:
    raise ValueError(
      f'prune: from step {begin} to step {steps["end"]} every {steps["every"]} steps; allowed are '
      'an end after the begin and a period of 1 or more'
    )
  if steps['end'] >= clock.total_steps:
    raise ValueError(
      f'prune.end is step {steps["end"]}, but the run has {clock.total_steps}; allowed is earlier'
    )
  initial = 0.0 if is_threshold else 1.0
  return schedules.cubic(begin, steps['end'], target, initial=initial, every=steps['every'])


def _prune_settings(block: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
  settings = in_steps(block, clock, 'prune')
  for key in settings:
    lookup('setting', f'prune.{key}', {f'prune.{name}': None for name in PRUNE_SETTINGS})
  missing = [name for name in PRUNE_SETTINGS if name not in settings]
  if missing:
    raise ValueError(f'prune.{missing[0]} is missing; needed are {", ".join(PRUNE_SETTINGS)}')
  return settings


def _build_prune(settings, clock, seed, inner):
  schedule = pruning_schedule(settings, clock)
  floor = settings['floor']
  if not (isinstance(floor, int) and floor >= 0):
    raise ValueError(f'prune.floor={floor}: allowed is an integer, 0 or more')
  for pattern in settings['exclude']:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(f'prune.exclude={pattern!r}: no regular expression: {error}') from None
  return prune(
    schedule,
    criterion=lookup('prune.criterion', settings['criterion'], CRITERIA),
    granularity=lookup('prune.granularity', settings['granularity'], GRANULARITIES)(),
    allocation=ALLOCATIONS[settings['allocation']](),
    update_rule=lookup('prune.update_rule', settings['update_rule'], UPDATE_RULES),
    parameters=settings['parameters'],
    exclude=settings['exclude'],
    floor=floor,
    seed=seed,
    inner=inner,
  )


OURS = {'prune': _build_prune}


@functools.cache
def _known_links() -> dict[str, Any]:
  """Every link by name: ours, and what Optax makes of plain settings."""
  named = {name: getattr(optax, name) for name in dir(optax) if not name.startswith('_')}
  functions = {name: f for name, f in named.items() if inspect.isfunction(f)}
  return OURS | {name: f for name, f in functions.items() if _is_link(inspect.signature(f))}


def _is_link(signature: inspect.Signature) -> bool:
  """Whether a factory makes a transformation, and needs no other one or tree of labels for it."""
  required = [p for p in signature.parameters.values() if p.default is p.empty]
  kinds = ' '.join(str(p.annotation) for p in required)
  needs_more = any(word in kinds for word in ('GradientTransformation', 'ArrayTree', 'ConditionFn'))
  return 'GradientTransformation' in str(signature.return_annotation) and not needs_more


def build(chain: tuple[str, ...], blocks: Mapping[str, Any], clock: Clock):
  """Returns the transformation that `chain` names, each link with the settings of its block.

  Args:
    chain: names of links, Optax's or ours, in the order in which updates pass them.
    blocks: settings by link name; a link without a block takes its own defaults.
    clock: turns the settings' durations into steps.

  Returns:
    An `optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: an unknown link or setting, or an order in which a link undoes another.

  Example:
    >>> clock = Clock(examples=100, batch_size=10, epochs=1)
    >>> chain = build(('trace', 'scale_by_learning_rate'), {
    ...   'trace': {'decay': 0.9}, 'scale_by_learning_rate': {'learning_rate': 0.1}}, clock)
    >>> chain.update(1.0, chain.init(0.0))[0].tolist()
    -0.1...
  """
  check_order(_unfold(chain, blocks))
  links = [_build_link(name, blocks, clock) for name in chain]
  return optax.with_extra_args_support(optax.chain(*links))


def _inner(blocks: Mapping[str, Any]) -> tuple[str, ...]:
  return tuple((blocks.get('prune') or {}).get('inner', ()))


def _unfold(chain: tuple[str, ...], blocks: Mapping[str, Any]) -> tuple[str, ...]:
  """The chain with the links inside `prune` in the place where updates pass them: before it."""
  inner = _inner(blocks)
  return tuple(link for name in chain for link in ((*inner, name) if name == 'prune' else (name,)))


def _build_link(name, blocks, clock):
  block = dict(blocks.get(name) or {})
  if name == 'prune':
    inside = [_build_link(link, blocks, clock) for link in _inner(blocks)]
    return _build_prune(
      block, clock, blocks.get('seed', 0), optax.chain(*inside) if inside else None
    )
  factory = lookup('chain link', name, _known_links())
  known = inspect.signature(factory).parameters
  for key in block:
    lookup('setting', f'{name}.{key}', {f'{name}.{setting}': None for setting in known})
  scheduled = {
    key: rates.build(value, clock) for key, value in block.items() if rates.is_schedule(value)
  }
  takes_schedule = all('Callable' in str(known[key].annotation) for key in scheduled)
  if scheduled and not takes_schedule:
    # What is no schedule stays a Python number: some factories branch on it.
    factory = optax.inject_hyperparams(factory, static_args=set(known) - set(scheduled))
  try:
    link = factory(**(block | scheduled))
    jax.eval_shape(functools.partial(_try, link), {'kernel': jnp.zeros((2, 2))})
  except (TypeError, ValueError) as error:
    raise ValueError(f'config.chain: {name}: {str(error).splitlines()[0]}') from None
  return link


def _try(link, params):
  """One update with what a training step gives: line searches need more, and are refused so."""
  link = optax.with_extra_args_support(link)
  return link.update(params, link.init(params), params, grad=params)


# Where a link may stand: what makes the gradient into a direction, the one that takes the step (the
# learning rate and its minus sign), what moves the parameters behind it, the mask.
DIRECTION, STEP, PARAMETER, MASK = range(4)
STAGES = {
  'scale_by_rprop': DIRECTION,  # its `learning_rate` only starts the sizes; the sign is still on
  'keep_params_nonnegative': PARAMETER,
  'prune': MASK,
}


def _stage(name: str) -> int:
  factory = lookup('chain link', name, _known_links())
  takes_step = 'learning_rate' in inspect.signature(factory).parameters
  return STAGES.get(name, STEP if takes_step else DIRECTION)


def check_order(chain: tuple[str, ...]) -> None:
  """Refuses a chain in which one link would undo another, in one line that says why."""
  stages = [_stage(name) for name in chain]
  for i, name in enumerate(chain):
    if name in chain[:i]:
      raise ValueError(f"config.chain={chain}: '{name}' stands twice; allowed is once")
  for before, after, stage, next_stage in zip(chain, chain[1:], stages, stages[1:], strict=False):
    if stage > next_stage:
      reason = {
        STEP: 'it would change the sign or the size of the step already taken',
        PARAMETER: 'it would move parameters that were just set',
        MASK: 'it would move pruned weights away from zero',
      }[stage]
      raise ValueError(f"config.chain={chain}: '{after}' may not stand behind '{before}': {reason}")
  if stages.count(STEP) != 1:
    raise ValueError(
      f'config.chain={chain}: {stages.count(STEP)} links take the learning rate; allowed is one'
    )


def learning_rate(chain: tuple[str, ...], blocks: Mapping[str, Any], clock: Clock):
  """Returns the learning rate as a schedule, for the metrics."""
  step = next(name for name in _unfold(chain, blocks) if _stage(name) == STEP)
  rate = (blocks.get(step) or {}).get('learning_rate')
  return rates.build(float('nan') if rate is None else rate, clock)
