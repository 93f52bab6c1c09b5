"""Builds the Optax chain from `config.chain`, a tuple of names; a senseless order is refused."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.experiment.chain import foreign, links, proximal_links, pruning_links, rates
from sparsejax.experiment.chain.durations import Clock, convert_to_steps
from sparsejax.experiment.config import fields
from sparsejax.experiment.config.setting_kinds import is_number
from sparsejax.internal.lookup import lookup
from sparsejax.posterior import weight_variances
from sparsejax.sparsity.counting.costs import Costs
from sparsejax.transforms.bounding import bound_variances
from sparsejax.transforms.holding import hold
from sparsejax.transforms.kl_gradients import add_kl_gradients


def _no_costs(unit: str) -> Costs:
  raise ValueError(f"prune.density_of='{unit}': what the network costs is not known here")


def build(
  chain: tuple[str, ...],
  blocks: Mapping[str, Any],
  clock: Clock,
  costs: Callable[[str], Costs] = _no_costs,
):
  """Returns the transformation that `chain` names, each link with the settings of its block.

  Args:
    chain: names of links, Optax's or ours, in the order in which updates pass through them.
    blocks: settings by link name; a link without a block takes its own defaults.
    clock: turns the settings' durations into steps.
    costs: the network's costs in 'weights' or 'macs', for a density that is a share of these.

  Returns:
    An `optax.GradientTransformationExtraArgs`.

  Raises:
    ValueError: a link or a setting is unknown, or one link would undo another.

  Example:
    >>> clock = Clock(examples=100, batch_size=10, epochs=1)
    >>> chain = build(('trace', 'scale_by_learning_rate'), {
    ...   'trace': {'decay': 0.9}, 'scale_by_learning_rate': {'learning_rate': 0.1}}, clock)
    >>> chain.update(1.0, chain.init(0.0))[0].tolist()
    -0.1...
  """
  unfolded = links.unfold(chain, blocks)
  links.check_masks(chain, blocks)
  links.check_order(unfolded)
  _check_growth(chain, blocks)
  built = [_build_link(name, blocks, clock, costs, unfolded) for name in chain]
  _check_dense(chain, built)
  return optax.with_extra_args_support(optax.chain(*built))


def _check_growth(chain, blocks):
  """Refuses links that spoil regrowth: momentum before the update rule, and held zeros."""
  grows = pruning_links.grows(blocks.get('prune') or {})
  ahead = [
    link for link in chain if link in proximal_links.MOMENTUM or link in proximal_links.METRICS
  ]
  if 'prune' in chain and grows and ahead:
    raise ValueError(
      f"config.chain={chain}: '{ahead[0]}' keeps momentum for weights that prune.update_rule "
      'regrows; put it in prune.inner'
    )
  if 'prune' in chain and grows and 'hold' in chain:
    raise ValueError(
      f"config.chain={chain}: 'hold' keeps weights at zero that prune.update_rule regrows; "
      'leave it out'
    )


def _check_dense(chain, built):
  """Refuses links that would read the masked parameters in place of the dense weights."""
  if 'straight_through' not in chain:
    return
  params = {'kernel': jnp.zeros((2, 2))}
  for name, link in zip(chain[: chain.index('straight_through')], built, strict=False):
    try:
      jax.eval_shape(functools.partial(_try, link, None), params)
    except Exception:  # which one it is depends on the link
      raise ValueError(
        f"config.chain={chain}: '{name}' reads parameters, which are zero outside the masks; put "
        'it, and what comes after it, in straight_through.inner, where it gets the dense weights'
      ) from None


def _build_link(
  name: str,
  blocks: Mapping[str, Any],
  clock: Clock,
  costs: Callable[[str], Costs],
  unfolded: tuple[str, ...],
):
  """Returns the transformation of one link, with what runs inside it.

  Args:
    name: the link.
    blocks: settings by link name.
    clock: turns the settings' durations into steps.
    costs: the network's costs, as for `build`.
    unfolded: all links of the chain, each inner one before the link that it runs inside.
  """
  block = dict(blocks.get(name) or {})
  if name == 'add_kl_gradients':
    return _build_kl(block, clock)
  if name == 'bound_variances':
    return _build_bound(block)
  if name == 'rewind':
    return pruning_links.build_rewind(block, blocks.get('prune'), clock)
  if name not in links.OURS:
    return _build_optax(name, block, clock)
  inside = [
    _build_link(link, blocks, clock, costs, unfolded) for link in links.inside(name, blocks)
  ]
  inner = optax.chain(*inside) if inside else None
  if name in links.PROXIMAL:
    return proximal_links.build(name, blocks, clock, inner, unfolded)
  if name == 'hold':
    return hold(inner=inner, **_choice(links.chosen(name, blocks)))
  seed = blocks.get('seed', 0)
  return pruning_links.build(block, clock, seed=seed, inner=inner, costs=costs, link=name)


def _build_optax(name: str, block: dict[str, Any], clock: Clock):
  """Returns a link of Optax, or a registered one; its signature says which settings it takes."""
  factory = lookup('link of chain or inner', name, links.known())
  known = foreign.checked_parameters(name, factory, block)
  scheduled = {
    key: rates.build(value, clock, f'{name}.{key}')
    for key, value in block.items()
    if rates.is_schedule(value)
  }
  takes_schedule = all('Callable' in str(known[key].annotation) for key in scheduled)
  if scheduled and not takes_schedule:
    # A setting that is not a schedule stays a Python number, because some factories branch on it.
    factory = optax.inject_hyperparams(factory, static_args=set(known) - set(scheduled))
  try:
    link = factory(**(block | scheduled))
    # Tried once here, so that its errors come before training.
    jax.eval_shape(lambda params: _try(link, params, params), {'kernel': jnp.zeros((2, 2))})
  except (TypeError, ValueError) as error:
    raise ValueError(f'config.chain: {name}: {str(error).splitlines()[0]}') from None
  return link


def _choice(settings: Mapping[str, Any]) -> dict[str, Any]:
  return {key: settings[key] for key in ('parameters', 'exclude')}


def _build_kl(block, clock):
  """The KL over the number of labels that an epoch really trains on, with a warmed-up weight."""
  for key in block:
    lookup('setting', f'add_kl_gradients.{key}', {'add_kl_gradients.weight': None})
  weight = block.get('weight', 1.0)
  if rates.is_schedule(weight):
    end = convert_to_steps(weight, clock).get('end', 0)
    if end is not None and end >= clock.total_steps:
      raise ValueError(
        f'add_kl_gradients.weight: its warm-up ends at step {end} (epoch '
        f'{end / clock.steps_per_epoch:g}), but the run has {clock.total_steps} steps; give an '
        'earlier end'
      )
  elif not is_number(weight):
    raise ValueError(f"add_kl_gradients.weight={weight!r} must be a number or a schedule's block")
  weight = rates.build(weight, clock, 'add_kl_gradients.weight')
  ends = [float(weight(step)) for step in (0, clock.total_steps - 1)]
  if not all(0 <= end < math.inf for end in ends):
    raise ValueError(
      f'add_kl_gradients.weight goes from {ends[0]} to {ends[1]}: it must be 0 or more'
    )
  return add_kl_gradients(clock.labels, weight)


BOUND_SETTINGS = tuple(fields.LINKS['bound_variances'])


def _build_bound(block):
  for key in block:
    known = {f'bound_variances.{setting}': None for setting in BOUND_SETTINGS}
    lookup('setting', f'bound_variances.{key}', known)
  maximum, where = block.get('maximum', 0.04), block.get('where', '')
  if not is_number(maximum):
    raise ValueError(f'bound_variances.maximum={maximum!r} must be a variance above 0')
  try:
    return bound_variances(maximum, parameters=weight_variances(where))
  except ValueError as error:
    raise ValueError(f'bound_variances.{error}'.replace('.exclude=', '.where=')) from None


def _try(link, params, grad):
  """Makes one update with what a training step gives; line searches need more, and so fail here."""
  link = optax.with_extra_args_support(link)
  return link.update(grad, link.init(grad), params, grad=grad)
