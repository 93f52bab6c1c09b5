"""The identity of an experiment: its settings by name, and the hash that names its runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Settings that do not change the experiment: the seed (a separate level of the path), the names of
# the run and of its method, what is logged, and where the data are.
NOT_HASHED = ('seed', 'name', 'method', 'data.dir')
LOGGING = 'log.'
# `defaults` is made for the config's own chain and events, so that these two never differ from it.
ALWAYS_HASHED = ('chain', 'events')


def flatten(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns nested settings by dotted name.

  Example:
    >>> flatten({'model': {'name': 'vgg16'}, 'seed': 0})
    {'model.name': 'vgg16', 'seed': 0}
  """
  flat = {}
  for key, value in settings.items():
    nested = isinstance(value, Mapping)
    flat |= flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value}
  return flat


def get_by_path(settings: Mapping[str, Any], name: str) -> Any:
  """Returns the value of nested settings at a dotted name, or None if there is none.

  Example:
    >>> settings = {'model': {'name': 'vgg16'}, 'seed': 0}
    >>> get_by_path(settings, 'model.name'), get_by_path(settings, 'seed.name')
    ('vgg16', None)
  """
  value: Any = settings
  for key in name.split('.'):
    value = value.get(key) if isinstance(value, Mapping) else None
  return value


def hashed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns, by dotted name, the settings that identify an experiment.

  These are all settings but `seed`, `name`, `method`, `data.dir` and the block `log`. Their values
  have JSON's types, so that a tuple equals the list that is read back from config.json.

  Args:
    settings: the resolved settings, nested.

  Example:
    >>> hashed_settings({'chain': ('sgd',), 'seed': 3, 'log': {'every_steps': 5}})
    {'chain': ['sgd']}
  """
  flat = json.loads(json.dumps(flatten(settings)))
  return {
    name: value
    for name, value in flat.items()
    if name not in NOT_HASHED and not name.startswith(LOGGING)
  }


def short_name(name: str) -> str:
  """Returns the last two words of a field, or the name of the setting that a schedule replaces.

  Example:
    >>> short_name('scale_by_learning_rate.learning_rate.value'), short_name('prune.density')
    ('learning_rate', 'prune.density')
  """
  parts = name.split('.')
  if parts[-1] == 'value' and len(parts) > 1:
    return parts[-2]
  return '.'.join(parts[-2:])


def short_value(value: Any) -> str:
  """Returns a setting or a figure with at most four digits.

  Example:
    >>> short_value(0.123456), short_value(32)
    ('0.1235', '32')
  """
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def hash8(config: Mapping, defaults: Mapping, version: int, digests: Mapping | None = None) -> str:
  """Returns eight hexadecimal digits that identify an experiment, the same for every seed.

  They are the beginning of the SHA-256 of the version, the chain, the events and every other hashed
  setting that differs from its default, so that a new setting with a default changes no hash.

  Args:
    config: the resolved settings.
    defaults: the settings of `base.py` for the same chain and events.
    version: the version of the defaults, `base.VERSION`, which rises when a default changes.
    digests: by field name, a digest of the files that the field's path leads to, such as a user's
      own arrays or the run to start from; it is hashed too, because a path does not determine its
      content.

  Example:
    >>> hash8({'epochs': 1, 'seed': 3}, {'epochs': 1, 'seed': 0}, 1) == hash8({}, {}, 1)
    True
  """
  settings, default_settings = hashed_settings(config), hashed_settings(defaults)
  changed = {}
  for name in {*settings, *default_settings}:
    # An empty list stands for a setting that is missing, as a duration in another unit is.
    value = [settings[name]] if name in settings else []
    default = [default_settings[name]] if name in default_settings else []
    if name in ALWAYS_HASHED or value != default:
      changed[name] = value
  changed |= digests or {}
  text = json.dumps([version, changed], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
