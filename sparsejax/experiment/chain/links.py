"""The links of a chain: their names, the links that run inside them, and where they may stand."""

import functools
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import optax

from sparsejax.experiment.chain import rates
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config import fields
from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.leaves import tree
from sparsejax.transforms.bounding import bound_variances
from sparsejax.transforms.holding import hold
from sparsejax.transforms.kl_gradients import add_kl_gradients
from sparsejax.transforms.proximal import proximal_group_l1, proximal_l1
from sparsejax.transforms.pruning import prune
from sparsejax.transforms.rewinding import rewind
from sparsejax.transforms.straight_through import straight_through

PROXIMAL = {f.__name__: f for f in (proximal_l1, proximal_group_l1)}
OURS = PROXIMAL | {
  f.__name__: f for f in (prune, straight_through, hold, rewind, add_kl_gradients, bound_variances)
}


@functools.cache
def known() -> dict[str, Any]:
  """Returns every link by name: ours, and those that Optax makes from plain settings."""
  named = {name: getattr(optax, name) for name in dir(optax) if not name.startswith('_')}
  functions = {name: f for name, f in named.items() if inspect.isfunction(f)}
  return OURS | {name: f for name, f in functions.items() if _is_link(inspect.signature(f))}


def _is_link(signature: inspect.Signature) -> bool:
  """Returns whether a factory makes a transformation from plain settings alone."""
  required = [p for p in signature.parameters.values() if p.default is p.empty]
  kinds = ' '.join(str(p.annotation) for p in required)
  needs_more = any(word in kinds for word in ('GradientTransformation', 'ArrayTree', 'ConditionFn'))
  return 'GradientTransformation' in str(signature.return_annotation) and not needs_more


def inside(name: str, blocks: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the names of the links that run inside this one."""
  return tuple((blocks.get(name) or {}).get('inner', ())) if name in OURS else ()


def chosen(name: str, blocks: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the whole block of a link of ours that acts on a choice of the parameters.

  Raises:
    ValueError: a setting is unknown or missing, or the choice is impossible.
  """
  settings = dict(blocks.get(name) or {})
  known = tuple(fields.LINKS[name])
  for key in settings:
    lookup('setting', f'{name}.{key}', {f'{name}.{setting}': None for setting in known})
  missing = [setting for setting in known if setting not in settings]
  if missing:
    raise ValueError(f'{name}.{missing[0]} is missing; {name} needs {", ".join(known)}')
  lookup(f'{name}.parameters', settings['parameters'], dict.fromkeys(tree.CHOICES))
  try:
    tree.patterns(settings['exclude'])
  except ValueError as error:
    raise ValueError(f'{name}.{error}') from None
  return settings


def unfold(
  chain: tuple[str, ...], blocks: Mapping[str, Any], around: tuple[str, ...] = ()
) -> tuple[str, ...]:
  """Returns the chain with every link that runs inside another placed just before that one."""
  unfolded = ()
  for name in chain:
    held = () if name in around else inside(name, blocks)  # a link inside itself will stand twice
    unfolded += (*unfold(held, blocks, (*around, name)), name)
  return unfolded


# The order of links: first those that make the gradient into a direction, then the one that takes
# the step (the learning rate and its minus sign), then those that move the parameters, last the
# mask.
DIRECTION, STEP, PARAMETER, MASK = range(4)
STAGES = {
  'scale_by_rprop': DIRECTION,  # its `learning_rate` only sets initial sizes and keeps the sign
  'keep_params_nonnegative': PARAMETER,
  'rewind': PARAMETER,
  'bound_variances': PARAMETER,
  **dict.fromkeys(PROXIMAL, PARAMETER),
  'prune': MASK,
  'straight_through': MASK,
  'hold': MASK,
}


# Links that leave the size of the gradient as it is.
SCALE_PRESERVING = ('add_decayed_weights', 'add_noise', 'zero_nans')


def stage(name: str) -> int:
  """Returns DIRECTION, STEP, PARAMETER or MASK."""
  factory = lookup('link of chain or inner', name, known())
  takes_step = 'learning_rate' in inspect.signature(factory).parameters
  return STAGES.get(name, STEP if takes_step else DIRECTION)


def check_order(chain: tuple[str, ...]) -> None:
  """Refuses a chain that repeats a link or puts one where it would undo another.

  Raises:
    ValueError: a link stands twice or after one of a later stage, a link that rescales gradients
      comes before the KL's, or not exactly one link takes the learning rate.
  """
  stages = [stage(name) for name in chain]
  for i, name in enumerate(chain):
    if name in chain[:i]:
      raise ValueError(f"config.chain={chain}: '{name}' stands twice; it must stand only once")
  for (before, its_stage), (after, next_stage) in itertools.pairwise(
    zip(chain, stages, strict=True)
  ):
    if its_stage > next_stage:
      reason = {
        STEP: 'it would change the sign or the size of the step already taken',
        PARAMETER: 'it would move parameters that were just set',
        MASK: 'it would move pruned weights away from zero',
      }[its_stage]
      raise ValueError(f"config.chain={chain}: '{after}' must not stand after '{before}': {reason}")
  ahead = chain[: chain.index('add_kl_gradients')] if 'add_kl_gradients' in chain else ()
  rescaling = [name for name in ahead if name not in SCALE_PRESERVING]
  if rescaling:
    raise ValueError(
      f"config.chain={chain}: after '{rescaling[0]}' the gradient no longer has the scale of the "
      f"KL's; before 'add_kl_gradients' put only {', '.join(SCALE_PRESERVING)}"
    )
  if stages.count(STEP) != 1:
    raise ValueError(
      f'config.chain={chain}: {stages.count(STEP)} links take the learning rate; exactly one must'
    )


# Links that have no place beside `straight_through`, and why.
NOT_STRAIGHT_THROUGH = {
  'prune': 'would make masks of its own',
  'hold': "keeps weights at zero that 'straight_through' brings back",
  'rewind': 'would reset weights before they are ranked',
}


def check_masks(chain: tuple[str, ...], blocks: Mapping[str, Any]) -> None:
  """Refuses masks inside another link, whose cuts no run would know, and two kinds of masks.

  Raises:
    ValueError: `prune` or `straight_through` is inside another link, or the latter stands beside a
      link that does not work with it.
  """
  unfolded = unfold(chain, blocks)
  for name in fields.PRUNING_SCHEDULES:
    if name in unfolded and name not in chain:
      raise ValueError(f"config.chain={chain}: '{name}' must stand in it, not inside another link")
  if 'straight_through' not in chain:
    return
  for name, reason in NOT_STRAIGHT_THROUGH.items():
    if name in unfolded:
      raise ValueError(
        f"config.chain={chain}: '{name}' does not go with 'straight_through', since it {reason}; "
        'leave one of them out'
      )


def learning_rate(chain: tuple[str, ...], blocks: Mapping[str, Any], clock: Clock):
  """Returns the learning rate as a schedule, for the metrics."""
  step = next(name for name in unfold(chain, blocks) if stage(name) == STEP)
  rate = (blocks.get(step) or {}).get('learning_rate')
  return rates.build(float('nan') if rate is None else rate, clock, f'{step}.learning_rate')
