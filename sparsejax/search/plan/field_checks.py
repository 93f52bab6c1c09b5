"""Checks of each field of a search by itself, before the fields are compared with each other."""

import json
from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.config.check import convert, unknown
from sparsejax.experiment.config.fields import strip_unit
from sparsejax.experiment.config.setting_kinds import Integer
from sparsejax.experiment.terminal.say import shown
from sparsejax.search.plan import base

SEED = Integer(0, 2**32 - 1)
INTEGERS = {'sampler_seed': SEED, 'trials': Integer(1, 2**16), 'deaths': Integer(0, 2**16)}


def check(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of a search in JSON's types, as the workers will read them.

  Raises:
    ValueError: names, in one line, the first field that is unknown, missing, or of the wrong type.
  """
  defaults = base.get_config().to_dict()
  if 'chain' in settings:
    raise ValueError(
      'config: this is the config of an experiment; the config of a search must have the fields of '
      'sparsejax/search/plan/base.py'
    )
  _check_names(settings, defaults)
  settings = {name: _plain(name, value) for name, value in settings.items()}
  if settings['configs'] in ([], None):
    raise ValueError('configs=() must name one config or more')
  check_overrides(settings['overrides'])
  for name, default in defaults.items():
    _check_type(name, settings[name], default)
  _check_names(settings['scheduler'], defaults['scheduler'], 'scheduler.')
  for name, kind in INTEGERS.items():
    convert(name, settings[name], kind)
  convert('scheduler.eta', settings['scheduler']['eta'], Integer(2, 2**16))
  if wrong := [config for config in settings['configs'] if not isinstance(config, str)]:
    raise ValueError(f'configs: {wrong[0]!r} must be a string such as configs/NAME.py:ARGUMENT')
  for seed in settings['seeds']:
    convert('seeds', seed, SEED)
  if not settings['seeds']:
    raise ValueError('seeds=() must have one integer or more')
  return settings


def _check_names(block: Mapping[str, Any], known: Mapping[str, Any], prefix: str = '') -> None:
  """Refuses a field that is unknown or missing."""
  names = [f'config.{prefix}{name}' for name in known]
  if wrong := [name for name in block if name not in known]:
    raise ValueError(unknown(f'config.{prefix}{wrong[0]}', names))
  if missing := [name for name in known if name not in block]:
    raise ValueError(f'{prefix}{missing[0]} is missing; the default is {known[missing[0]]!r}')


def _plain(name: str, value: Any) -> Any:
  try:
    return json.loads(json.dumps(value))
  except (TypeError, ValueError):
    raise ValueError(
      f'{name}={shown(value)} must consist of numbers, strings, tuples and dicts'
    ) from None


def _check_type(name: str, value: Any, default: Any) -> None:
  kinds = {tuple: (list, 'a tuple'), dict: (dict, f'a block such as {default!r}')}
  kind, says = kinds.get(type(default), (object, ''))
  if not isinstance(value, kind):
    raise ValueError(f'{name}={shown(value)} must be {says}')


def check_overrides(overrides: Any) -> dict[str, str]:
  """Returns the unparsed values that the overrides of a search set, by dotted field.

  Raises:
    ValueError: an entry is not an override, or the search would silently drop it.

  Example:
    >>> check_overrides(('epochs=54.0', 'prune.begin_epochs=1.0'))
    {'epochs': '54.0', 'prune.begin_epochs': '1.0'}
    >>> check_overrides(('seed=5',))
    Traceback (most recent call last):
    ValueError: overrides: 'seed=5': the seeds of a search are set by its `seeds`, as in seeds=(5,)
  """
  if not isinstance(overrides, tuple | list):
    raise ValueError(f"overrides={shown(overrides)} must be a tuple of strings 'FIELD=VALUE'")
  texts: dict[str, str] = {}
  for override in overrides:
    name, equals, text = str(override).partition('=')
    if not isinstance(override, str) or not (name and equals):
      raise ValueError(f'overrides: {shown(override)} must be FIELD=VALUE')
    if name == 'seed':
      raise ValueError(
        f"overrides: '{override}': the seeds of a search are set by its `seeds`, as in "
        f'seeds=({text},)'
      )
    if before := [other for other in texts if strip_unit(other) == strip_unit(name)]:
      raise ValueError(
        f'overrides: {name} is set twice, as {before[0]}={texts[before[0]]} and {override}; it '
        'must be set once'
      )
    texts[name] = text
  return texts
