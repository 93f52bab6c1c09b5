"""The values that settings of Optax's own links may have, read from the links' signatures."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from sparsejax.experiment.config import check as config_check
from sparsejax.experiment.config.setting_kinds import (
  Choice,
  Flag,
  Integer,
  Kind,
  Number,
  Optional,
  Scheduled,
  Text,
)
from sparsejax.internal.lookup import lookup

# A signature says that a setting is a number; the setting's name says which numbers it may be.
DECAY, NOT_NEGATIVE, POSITIVE = Number(0.0, 1.0, below=True), Number(0.0), Number(0.0, above=True)
SIGNED = ('alpha', 'beta', 'decay_offset', 'f_min', 'gamma', 'optimism', 'scale_factor')
NUMBERS: dict[str, Kind] = {
  **dict.fromkeys(('b1', 'b2', 'b3', 'decay', 'momentum', 'rho'), DECAY),
  **dict.fromkeys(('max_delta', 'max_norm', 'clipping', 'clipping_threshold'), POSITIVE),
  **dict.fromkeys((*SIGNED, 'global_scale', 'step_size'), Number()),
  'k': Integer(1),
  'key': Integer(0, 2**32 - 1),
}
DTYPES = Choice(('float32', 'bfloat16', 'float16'))


def checked_parameters(
  name: str, factory: Callable[..., Any], block: Mapping[str, Any]
) -> Mapping[str, inspect.Parameter]:
  """Returns the parameters of a link's factory, after checking the settings that are given.

  Args:
    name: the link's name.
    factory: the function that makes it.
    block: its settings.

  Raises:
    ValueError: names in one line a setting that is unknown, missing, or has an impossible value.

  Example:
    >>> import optax
    >>> list(checked_parameters('trace', optax.trace, {'decay': 0.9}))
    ['decay', 'nesterov', 'accumulator_dtype']
    >>> checked_parameters('adam', optax.adam, {'learning_rate': 0.1, 'b1': 1.5})
    Traceback (most recent call last):
    ValueError: adam.b1=1.5 must be a number of 0 or more and below 1, or a schedule's block
  """
  known = inspect.signature(factory).parameters
  for key in block:
    lookup('setting', f'{name}.{key}', {f'{name}.{setting}': None for setting in known})
  if not _is_optax(factory):
    return known
  kinds = {key: kind for key, one in known.items() if (kind := parameter_kind(one)) is not None}
  for key, value in block.items():
    if key in kinds:
      config_check.convert(f'{name}.{key}', value, kinds[key])
  for key, kind in kinds.items():
    if known[key].default is inspect.Parameter.empty and key not in block:
      raise ValueError(f'{name}.{key} is missing: it must be {kind.requirement}')
  return known


def _is_optax(factory: Callable[..., Any]) -> bool:
  return (getattr(factory, '__module__', None) or '').partition('.')[0] == 'optax'


def parameter_kind(parameter: inspect.Parameter) -> Kind | None:
  """Returns the kind of values that a parameter takes, or None if its signature does not say."""
  name, default, annotation = parameter.name, parameter.default, parameter.annotation
  said = str(annotation)
  kind = None
  if name.endswith('dtype') or name.startswith('dtype'):
    kind = DTYPES
  elif isinstance(default, bool) or annotation is bool or name.endswith('mask'):
    kind = Flag()
  elif get_origin(annotation) is Literal:
    kind = Choice(get_args(annotation))
  elif annotation is str:
    kind = Text()
  elif name in ('seed', 'key'):
    kind = NUMBERS['key']
  elif annotation is int:
    kind = Integer(1)
  elif 'number' in said or 'float' in said or isinstance(default, int | float):
    kind = _number(name, default)
  if kind is None:
    return None
  return Optional(kind) if default is None or 'None' in said else kind


def _number(name: str, default: Any) -> Kind:
  kind = NUMBERS.get(name, NOT_NEGATIVE)
  if kind is DECAY and default == 1:  # the decay of a sum instead of a mean
    kind = Number(0.0, 1.0)
  return kind if isinstance(kind, Integer) else Scheduled(kind)
