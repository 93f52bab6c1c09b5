"""From `config.chain`, a tuple of names, to the Optax chain; an order without sense is refused."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.experiment import pruning, rates
from sparsejax.experiment.durations import Clock
from sparsejax.lookup import lookup
from sparsejax.sparsity import tree
from sparsejax.sparsity.costs import Costs
from sparsejax.transforms import proximal

PROXIMAL = {f.__name__: f for f in (proximal.proximal_l1, proximal.proximal_group_l1)}
OURS = {'prune': pruning.build, 'rewind': pruning.build_rewind} | PROXIMAL


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


def _no_costs(unit: str) -> Costs:
  raise ValueError(f"prune.unit='{unit}': what the network costs is not known here")


def build(
  chain: tuple[str, ...],
  blocks: Mapping[str, Any],
  clock: Clock,
  costs: Callable[[str], Costs] = _no_costs,
):
  """Returns the transformation that `chain` names, each link with the settings of its block.

  Args:
    chain: names of links, Optax's or ours, in the order in which updates pass them.
    blocks: settings by link name; a link without a block takes its own defaults.
    clock: turns the settings' durations into steps.
    costs: the network's costs in 'weights' or 'macs', for a pruning target in these.

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
  unfolded = _unfold(chain, blocks)
  check_order(unfolded)
  _check_growth(chain, blocks)
  links = [_build_link(name, blocks, clock, costs, unfolded) for name in chain]
  return optax.with_extra_args_support(optax.chain(*links))


def _check_growth(chain, blocks):
  """Refuses momentum ahead of a rule that lets weights come back: it would push them at once."""
  grows = (blocks.get('prune') or {}).get('update_rule', 'nested') != 'nested'
  ahead = [link for link in chain if link in MOMENTUM or link in METRICS]
  if 'prune' in chain and grows and ahead:
    raise ValueError(
      f"config.chain={chain}: '{ahead[0]}' keeps momentum of weights that prune.update_rule brings "
      'back; allowed is to have it in prune.inner'
    )


def _inner(name: str, blocks: Mapping[str, Any]) -> tuple[str, ...]:
  return tuple((blocks.get(name) or {}).get('inner', ())) if name in OURS else ()


def _unfold(
  chain: tuple[str, ...], blocks: Mapping[str, Any], around: tuple[str, ...] = ()
) -> tuple[str, ...]:
  """The chain with the links inside others in the place where updates pass them: before these."""
  unfolded = ()
  for name in chain:
    inner = () if name in around else _inner(name, blocks)  # one inside itself: stands twice
    unfolded += (*_unfold(inner, blocks, (*around, name)), name)
  return unfolded


def _build_link(name, blocks, clock, costs, unfolded):
  block = dict(blocks.get(name) or {})
  if name in ('prune', *PROXIMAL):
    inside = [_build_link(link, blocks, clock, costs, unfolded) for link in _inner(name, blocks)]
    inner = optax.chain(*inside) if inside else None
    if name in PROXIMAL:
      return _build_proximal(name, blocks, clock, inner, unfolded)
    return pruning.build(block, clock, seed=blocks.get('seed', 0), inner=inner, costs=costs)
  if name == 'rewind':
    return pruning.build_rewind(block, blocks.get('prune'), clock)
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


# What a proximal link may have ahead of it: what gives a constant unit gradient the step of the
# learning rate, or that over 1 - momentum; and inside it, what divides this by second moments.
MOMENTUM = {'trace': 'decay', 'sgd': 'momentum', 'rmsprop': 'momentum'}
OF_UNIT_GAIN = (
  *('identity', 'add_decayed_weights', 'add_noise', 'centralize', 'ema', 'zero_nans'),
  *('clip', 'clip_by_block_rms', 'clip_by_global_norm', 'adaptive_grad_clip'),
  *('trace', 'sgd', 'scale_by_learning_rate', 'keep_params_nonnegative', 'rewind'),
  'proximal_l1',  # ahead of the group form: the sparse group lasso
)
METRICS = {
  **dict.fromkeys(('adam', 'adamw', 'scale_by_adam', 'yogi'), proximal.adam_metric),
  **dict.fromkeys(('rmsprop', 'scale_by_rms'), proximal.rms_metric),
  **dict.fromkeys(('amsgrad', 'scale_by_amsgrad'), proximal.amsgrad_metric),
}
GROUPED = {name: pruning.GRANULARITIES[name] for name in ('filters', 'input_channels', 'blocks')}
PROXIMAL_SETTINGS = {
  'proximal_l1': ('strength', 'parameters', 'exclude', 'inner'),
  'proximal_group_l1': (
    *('strength', 'granularity', 'block', 'group_weight', 'parameters', 'exclude', 'inner'),
  ),
}


def _build_proximal(name, blocks, clock, inner, unfolded):
  """A proximal link, with the learning rate and the momentum of the links that updates pass."""
  settings = _proximal_settings(name, blocks)
  ahead = unfolded[: unfolded.index(name)]
  metric = _metric(name, ahead, blocks)
  strength = settings['strength']
  if rates.is_schedule(strength):
    strength = rates.build(strength, clock)
    ends = [float(strength(step)) for step in (0, clock.total_steps)]
    if not all(0 <= end < math.inf for end in ends):
      raise ValueError(f'{name}.strength goes from {ends[0]} to {ends[1]}: allowed are 0 or more')
  rate, momentum = learning_rate(ahead, blocks, clock), _momentum(name, ahead, blocks)
  parts = {'parameters': settings['parameters'], 'exclude': settings['exclude']}
  try:
    if name == 'proximal_group_l1':
      make = lookup('granularity', settings['granularity'], GROUPED)
      parts |= {'granularity': make(settings), 'group_weight': settings['group_weight']}
    return PROXIMAL[name](strength, rate, momentum, inner=inner, metric=metric, **parts)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{name}: {error}') from None


def _proximal_settings(name, blocks):
  settings, known = dict(blocks.get(name) or {}), PROXIMAL_SETTINGS[name]
  for key in settings:
    lookup('setting', f'{name}.{key}', {f'{name}.{setting}': None for setting in known})
  missing = [setting for setting in known if setting not in settings]
  if missing:
    raise ValueError(f'{name}.{missing[0]} is missing; needed are {", ".join(known)}')
  lookup(f'{name}.parameters', settings['parameters'], tree.CHOICES)
  for pattern in settings['exclude']:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(f'{name}.exclude={pattern!r}: no regular expression: {error}') from None
  return settings


def _metric(name, ahead, blocks):
  """What the one adaptive link inside divides by, with its settings; None without any inside."""
  inside = _unfold(_inner(name, blocks), blocks, (name,))
  for link in ahead:
    if link in METRICS and link not in inside:
      raise ValueError(
        f"config.chain: '{link}' divides by second moments, and so must the threshold of '{name}'; "
        f'allowed is {name}.inner with {link} and the links behind it'
      )
    if link not in OF_UNIT_GAIN and link not in METRICS:
      raise ValueError(
        f"config.chain: no threshold of '{name}' is right behind '{link}'; allowed are "
        f'{", ".join(OF_UNIT_GAIN)}, and in {name}.inner one of {", ".join(METRICS)}'
      )
  adaptive = [link for link in inside if link in METRICS]
  if not inside:
    return None
  if len(adaptive) != 1:
    raise ValueError(
      f'{name}.inner={inside}: {len(adaptive)} of them divide by second moments; allowed is one, '
      f"and without any the links stand ahead of '{name}'"
    )
  [link] = adaptive
  block, defaults = dict(blocks.get(link) or {}), inspect.signature(_known_links()[link]).parameters
  settings = {
    key: block.get(key, defaults[key].default)
    for key in inspect.signature(METRICS[link]).parameters
    if key in defaults
  }
  for key, value in settings.items():
    if rates.is_schedule(value):
      raise ValueError(f'{link}.{key} is a schedule; allowed inside {name} is a number')
  if block.get('bias_correction') or block.get('centered'):
    raise ValueError(f"{link}: bias_correction and centered are not known to '{name}'")
  return METRICS[link](**settings)


def _momentum(name, ahead, blocks):
  """The decay whose gain is that of all momenta ahead: the gains 1 / (1 - decay) multiply."""
  decays = [(blocks.get(link) or {}).get(MOMENTUM[link]) for link in ahead if link in MOMENTUM]
  if any(rates.is_schedule(decay) for decay in decays):
    raise ValueError(f"the momentum ahead of '{name}' is a schedule; allowed is a number")
  return 1 - math.prod(1 - (decay or 0.0) for decay in decays)


# Where a link may stand: what makes the gradient into a direction, the one that takes the step (the
# learning rate and its minus sign), what moves the parameters behind it, the mask.
DIRECTION, STEP, PARAMETER, MASK = range(4)
STAGES = {
  'scale_by_rprop': DIRECTION,  # its `learning_rate` only starts the sizes; the sign is still on
  'keep_params_nonnegative': PARAMETER,
  'rewind': PARAMETER,
  **dict.fromkeys(PROXIMAL, PARAMETER),
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
