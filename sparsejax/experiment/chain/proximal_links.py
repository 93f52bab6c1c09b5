"""Builds a proximal link from its block, with the chain's learning rate and momentum."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import optax

from sparsejax.experiment.chain import links, pruning_links, rates
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.chain.links import PROXIMAL
from sparsejax.experiment.config import fields
from sparsejax.internal.lookup import lookup
from sparsejax.transforms.preconditioners import adam_metric, amsgrad_metric, rms_metric

# Links that may come before a proximal link: those under which a constant unit gradient gives a
# step of the learning rate, or of the learning rate over 1 - momentum. Inside it may run a link
# that divides this by second moments.
MOMENTUM = {'trace': 'decay', 'sgd': 'momentum', 'rmsprop': 'momentum'}
UNIT_GAIN = (
  *('identity', 'add_decayed_weights', 'add_noise', 'centralize', 'ema', 'zero_nans'),
  *('clip', 'clip_by_block_rms', 'clip_by_global_norm', 'adaptive_grad_clip'),
  *('trace', 'sgd', 'scale_by_learning_rate', 'keep_params_nonnegative', 'rewind'),
  'proximal_l1',  # before the group form it makes the sparse group lasso
)
METRICS = {
  **dict.fromkeys(('adam', 'adamw', 'scale_by_adam', 'yogi'), adam_metric),
  **dict.fromkeys(('rmsprop', 'scale_by_rms'), rms_metric),
  **dict.fromkeys(('amsgrad', 'scale_by_amsgrad'), amsgrad_metric),
}
GROUPED = {name: pruning_links.GRANULARITIES[name] for name in fields.GROUPED}


def build(
  name: str,
  blocks: Mapping[str, Any],
  clock: Clock,
  inner: optax.GradientTransformation | None,
  unfolded: tuple[str, ...],
):
  """A proximal link, with the learning rate and momentum of the links that updates pass through.

  Args:
    name: the link.
    blocks: settings by link name.
    clock: turns the settings' durations into steps.
    inner: the transformation to run inside; None runs nothing inside.
    unfolded: all links of the chain, each inner one before the link that it runs inside.
  """
  settings = links.chosen(name, blocks)
  ahead = unfolded[: unfolded.index(name)]
  metric = _metric(name, ahead, blocks)
  strength = settings['strength']
  if rates.is_schedule(strength):
    strength = rates.build(strength, clock, f'{name}.strength')
    ends = [float(strength(step)) for step in (0, clock.total_steps)]
    if not all(0 <= end < math.inf for end in ends):
      raise ValueError(f'{name}.strength goes from {ends[0]} to {ends[1]}: it must be 0 or more')
  rate, momentum = links.learning_rate(ahead, blocks, clock), _momentum(name, ahead, blocks)
  parts = {'parameters': settings['parameters'], 'exclude': settings['exclude']}
  try:
    if name == 'proximal_group_l1':
      make = lookup('granularity', settings['granularity'], GROUPED)
      parts |= {'granularity': make(settings), 'group_weight': settings['group_weight']}
    return PROXIMAL[name](strength, rate, momentum, inner=inner, metric=metric, **parts)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{name}: {error}') from None


def _metric(name: str, ahead: tuple[str, ...], blocks: Mapping[str, Any]):
  """The divisor of the one adaptive link inside, with its settings; None without links inside."""
  inside = links.unfold(links.inside(name, blocks), blocks, (name,))
  for link in ahead:
    if link in METRICS and link not in inside:
      raise ValueError(
        f"config.chain: '{link}' divides by second moments, and so must the threshold of '{name}'; "
        f'put {link} and the links after it in {name}.inner'
      )
    if link not in UNIT_GAIN and link not in METRICS:
      raise ValueError(
        f"config.chain: no threshold of '{name}' is right after '{link}'; before it put only "
        f'{", ".join(UNIT_GAIN)}, or put one of {", ".join(METRICS)} in {name}.inner'
      )
  adaptive = [link for link in inside if link in METRICS]
  if not inside:
    return None
  if len(adaptive) != 1:
    raise ValueError(
      f'{name}.inner={inside}: {len(adaptive)} of them divide by second moments; exactly one must. '
      f"Links without any belong before '{name}'"
    )
  [link] = adaptive
  block = dict(blocks.get(link) or {})
  defaults = inspect.signature(links.known()[link]).parameters
  settings = {
    key: block.get(key, defaults[key].default)
    for key in inspect.signature(METRICS[link]).parameters
    if key in defaults
  }
  for key, value in settings.items():
    if rates.is_schedule(value):
      raise ValueError(f'{link}.{key} is a schedule, but inside {name} it must be a number')
  if block.get('bias_correction') or block.get('centered'):
    raise ValueError(
      f"{link}: leave out bias_correction and centered, which '{name}' does not support"
    )
  return METRICS[link](**settings)


def _momentum(name: str, ahead: tuple[str, ...], blocks: Mapping[str, Any]) -> float:
  """The decay with the gain of all earlier momenta together: the gains 1 / (1 - decay) multiply."""
  decays = [(blocks.get(link) or {}).get(MOMENTUM[link]) for link in ahead if link in MOMENTUM]
  if any(rates.is_schedule(decay) for decay in decays):
    raise ValueError(f"the momentum before '{name}' is a schedule, but it must be a number")
  return 1 - math.prod(1 - (decay or 0.0) for decay in decays)
