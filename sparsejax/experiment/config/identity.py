"""The identity of an experiment: its settings by name, and the hash that names its runs."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Fields that do not change the experiment: the seed (a separate level of the path), labels, how it
# is logged, and where the data lie.
NOT_HASHED = ('seed', 'name', 'method', 'data.dir')
LOGGING = 'log.'
# The defaults have the same chain and events, so these two never differ from them.
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


def at(settings: Mapping[str, Any], name: str) -> Any:
  """Returns the value of nested settings at a dotted name, or None.

  Example:
    >>> at({'model': {'name': 'vgg16'}}, 'model.name'), at({'seed': 0}, 'seed.of')
    ('vgg16', None)
  """
  held: Any = settings
  for key in name.split('.'):
    held = held.get(key) if isinstance(held, Mapping) else None
  return held


def experiment_of(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns, by dotted name, the settings that make an experiment, without seed, labels or logging.

  They are in JSON's types, so that a tuple equals the list that is read back from config.json.

  Example:
    >>> experiment_of({'chain': ('sgd',), 'seed': 3, 'log': {'every_steps': 5}})
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
  """Returns the hash that names an experiment: of its chain, its events and its other changes.

  Args:
    config: the resolved settings.
    defaults: the settings of `base.py` for the same chain and events.
    version: the version of the defaults, which rises when one changes.
    digests: by field name, digests of contents that a path alone does not determine: a user's own
      arrays, a run to start from.

  Example:
    >>> hash8({'epochs': 1, 'seed': 3}, {'epochs': 1, 'seed': 0}, 1) == hash8({}, {}, 1)
    True
  """
  mine, default = experiment_of(config), experiment_of(defaults)
  changed = {
    name: [mine[name]] if name in mine else []
    for name in {*mine, *default}
    if name in ALWAYS_HASHED or (name in mine) != (name in default) or mine[name] != default[name]
  }
  changed |= digests or {}
  text = json.dumps([version, changed], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
