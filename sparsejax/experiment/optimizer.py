"""From `config.chain`, a tuple of names, to the Optax chain; an order without sense is refused."""

import inspect
from collections.abc import Mapping
from typing import Any

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


def pruning_schedule(settings: Mapping[str, Any], clock: Clock) -> schedules.Schedule:
  """Returns the mask steps and targets of the block `prune`."""
  steps = in_steps(settings, clock)
  target, begin, kind = steps['target'], steps['begin'], steps['schedule']
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
  lookup('pruning schedule', kind, {'one_shot': None, 'cubic': None})
  if steps['end'] >= clock.total_steps:
    raise ValueError(
      f'prune.end is step {steps["end"]}, but the run has {clock.total_steps}; allowed is earlier'
    )
  initial = 0.0 if is_threshold else 1.0
  return schedules.cubic(begin, steps['end'], target, initial=initial, every=steps['every'])


def _build_prune(settings, clock, inner):
  return prune(
    pruning_schedule(settings, clock),
    criterion=lookup('prune.criterion', settings['criterion'], CRITERIA),
    granularity=lookup('prune.granularity', settings['granularity'], GRANULARITIES)(),
    allocation=lookup('prune.allocation', settings['allocation'], ALLOCATIONS)(),
    update_rule=lookup('prune.update_rule', settings['update_rule'], UPDATE_RULES),
    parameters=settings['parameters'],
    exclude=settings['exclude'],
    floor=settings['floor'],
    inner=inner,
  )


OURS = {'prune': _build_prune}


def _optax_links() -> dict[str, Any]:
  """Every factory of a transformation that Optax offers, by name."""
  named = {name: getattr(optax, name) for name in dir(optax) if not name.startswith('_')}
  functions = {name: f for name, f in named.items() if inspect.isfunction(f)}
  return {
    name: f
    for name, f in functions.items()
    if 'GradientTransformation' in str(inspect.signature(f).return_annotation)
  }


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
  inner = tuple(blocks['prune'].get('inner', ())) if 'prune' in chain else ()
  check_order((*chain[:-1], *inner, chain[-1]) if inner else chain)
  links = [_build_link(name, blocks, clock, inner) for name in chain]
  return optax.with_extra_args_support(optax.chain(*links))


def _build_link(name, blocks, clock, inner=()):
  block = dict(blocks.get(name) or {})
  if name == 'prune':
    inside = [_build_link(link, blocks, clock) for link in inner]
    return _build_prune(block, clock, optax.chain(*inside) if inside else None)
  factory = lookup('chain link', name, OURS | _optax_links())
  known = inspect.signature(factory).parameters
  for key in block:
    if key not in known:
      raise ValueError(f'{name}.{key}: no such setting of optax.{name}; known: {", ".join(known)}')
  scheduled = {
    key: rates.build(value, clock) for key, value in block.items() if rates.is_schedule(value)
  }
  takes_schedule = all('Callable' in str(known[key].annotation) for key in scheduled)
  if scheduled and not takes_schedule:
    factory = optax.inject_hyperparams(factory)
  try:
    return factory(**(block | scheduled))
  except TypeError as error:
    raise ValueError(f'config.chain: {name}: {error}') from None


# Where a link may stand: what makes the gradient into a direction, the one that takes the step (the
# learning rate and its minus sign), what moves the parameters behind it, the mask.
DIRECTION, STEP, PARAMETER, MASK = range(4)
STAGES = {'keep_params_nonnegative': PARAMETER, 'prune': MASK}


def _stage(name: str) -> int:
  factory = lookup('chain link', name, OURS | _optax_links())
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
  inner = tuple(blocks['prune'].get('inner', ())) if 'prune' in chain else ()
  step = next(name for name in (*chain, *inner) if _stage(name) == STEP)
  return rates.build((blocks.get(step) or {}).get('learning_rate', float('nan')), clock)
