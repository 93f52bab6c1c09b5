"""The search space: which fields of a config vary, and over what."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import (
  BaseDistribution,
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)

from sparsejax.experiment.config import check, overrides
from sparsejax.experiment.config.setting_kinds import LARGEST, is_number
from sparsejax.internal.lookup import lookup

ARGUMENT = 'argument'  # the key of the text after the config's name
CONFIG, SEED = 'config', 'seed'
KINDS = {
  'uniform': ('low', 'high'),
  'log_uniform': ('low', 'high'),
  'integers': ('low', 'high'),
  'choices': ('choices',),
}


class Parameter(NamedTuple):
  """Something that varies: a field of the config, its argument, the config itself, or the seed."""

  key: str
  distribution: BaseDistribution

  @property
  def samples(self) -> tuple[Any, ...]:
    """Every choice, or a few values from one end of the range to the other."""
    match self.distribution:
      case CategoricalDistribution(choices=choices):
        return choices
      case IntDistribution(low=low, high=high):
        return tuple(sorted({low, (low + high) // 2, high}))
      case FloatDistribution(low=low, high=high, log=log):
        spaced = np.geomspace if log else np.linspace
        return low, *spaced(low, high, 5)[1:-1].tolist(), high
    raise TypeError(self.distribution)

  @property
  def values(self) -> Sequence[Any]:
    """All its values, or () if there are infinitely many."""
    match self.distribution:
      case CategoricalDistribution(choices=choices):
        return choices
      case IntDistribution(low=low, high=high):
        return range(low, high + 1)
    return ()


def parse(entries: Sequence[Mapping[str, Any]]) -> tuple[Parameter, ...]:
  """Returns the parameters that a sweep's `space` lists.

  Args:
    entries: each with key (a dotted field, or 'argument'), kind, and low and high, or choices.

  Raises:
    ValueError: a kind is unknown, a bound is missing or impossible, a key is named twice, or a
      parameter can have only one value.

  Example:
    >>> density = {'key': 'prune.density', 'kind': 'log_uniform', 'low': 0.01, 'high': 0.1}
    >>> parse([density])[0].distribution
    FloatDistribution(high=0.1, log=True, low=0.01, step=None)
  """
  parameters = tuple(_parameter(entry) for entry in entries)
  keys = [parameter.key for parameter in parameters]
  if twice := [key for key in keys if keys.count(key) > 1]:
    raise ValueError(f"space: '{twice[0]}' is given twice; give it only once")
  return parameters


def _parameter(entry: Mapping[str, Any]) -> Parameter:
  if not isinstance(entry, Mapping):
    raise ValueError(f'space: {entry!r} must be a dict with a key and a kind')
  key = entry.get('key')
  if not isinstance(key, str) or not key:
    raise ValueError(f'space: {dict(entry)} has no key; give a field of the config')
  kind = entry.get('kind')
  bounds = lookup(f"kind of '{key}'", str(kind), KINDS)
  if wrong := set(entry) ^ {'key', 'kind', *bounds}:
    needed = ', '.join(bounds)
    raise ValueError(f"space: '{key}' is {kind} and must have {needed}; {min(wrong)} is wrong")
  if kind == 'choices':
    return Parameter(key, _choices(key, entry['choices']))
  low, high = entry['low'], entry['high']
  most = 2**53 if kind == 'integers' else LARGEST
  if not all(is_number(bound) and abs(bound) <= most for bound in (low, high)) or low >= high:
    raise ValueError(f"space: '{key}' from {low} to {high}: low must be a number below high")
  if kind == 'log_uniform' and low <= 0:
    raise ValueError(f"space: '{key}' from {low}: low must be more than 0 on a log axis")
  if kind == 'integers':
    if not (isinstance(low, int) and isinstance(high, int)):
      raise ValueError(f"space: '{key}' from {low} to {high}: both must be integers")
    return Parameter(key, IntDistribution(low, high))
  return Parameter(key, FloatDistribution(low, high, log=kind == 'log_uniform'))


def _choices(key: str, choices: Any) -> CategoricalDistribution:
  if not isinstance(choices, tuple | list) or len(choices) < 2:
    raise ValueError(f"space: '{key}' of {choices!r} must have two choices or more")
  for choice in choices:
    if not isinstance(choice, bool | int | float | str | None):
      raise ValueError(f"space: '{key}' of {choice!r}: a choice must be a number, a string or None")
  if len({repr(choice) for choice in choices}) < len(choices):
    raise ValueError(f"space: '{key}' of {choices!r} must have each choice once")
  return CategoricalDistribution(tuple(choices))


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
  """Returns every combination of the choices, the last parameter varying fastest.

  Raises:
    ValueError: a parameter has no choices.
  """
  choices = {}
  for key, distribution in parameters:
    if not isinstance(distribution, CategoricalDistribution):
      raise ValueError(f"space: '{key}' must be of the kind 'choices' in a grid")
    choices[key] = distribution.choices
  every = itertools.product(*choices.values())
  return [dict(zip(choices, values, strict=True)) for values in every]


def apply(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings with these fields changed.

  Args:
    settings: the nested settings that a config resolves to.
    values: the new values by dotted field.

  Raises:
    ValueError: a field does not exist, or a value has another type. A value out of range is not
      refused here, because another choice may make it possible.

  Example:
    >>> apply({'prune': {'density': 0.1}}, {'prune.density': 0.02})
    {'prune': {'density': 0.02}}
  """
  changed = _copy(settings)
  for name, value in values.items():
    overrides.set_field(changed, name, value, check.convert_type_only)
  return changed


def _copy(settings):
  """The settings with every dict copied; other values are never changed in place."""
  return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in settings.items()}
