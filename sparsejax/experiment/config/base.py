"""The defaults of an experiment, and the blocks that a chain, events and layers need.

Config files start here: `config = base.get_config(chain)`. Every field is in `fields`: those of
all runs in `fields.common`, the blocks of links and events in `fields.blocks`, and what is special
to `prune` and `straight_through` in `fields.pruning_blocks`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.experiment.config import fields
from sparsejax.experiment.config.fields import SGD, Field
from sparsejax.experiment.config.setting_kinds import ByLayer, Integer, Optional, Text
from sparsejax.internal.needs import needed
from sparsejax.posterior.layers import DETERMINISTIC

with needed('experiments'):
  from ml_collections import ConfigDict
  from ml_collections.config_dict import FieldReference, placeholder

__all__ = [
  'EVENT_DEFAULTS',
  'LAYER_DEFAULTS',
  'LINK_DEFAULTS',
  'SGD',
  'VERSION',
  'complete',
  'defaults',
  'get_config',
]

# This must rise whenever a default changes: a run's directory is named after its differences from
# the defaults, and the same differences from other defaults are another experiment.
VERSION = 3

LINK_DEFAULTS, EVENT_DEFAULTS, LAYER_DEFAULTS = (
  {name: fields.values(block) for name, block in blocks.items()}
  for blocks in (fields.LINKS, fields.EVENTS, fields.LAYERS)
)


def get_config(
  chain: Sequence[str] = SGD, events: Sequence[str] = (), layers: str = DETERMINISTIC
) -> ConfigDict:
  """Returns the defaults, with a block of settings for each link, each event and the layers."""
  config = ConfigDict()
  for name, field in fields.FIELDS.items():
    config[name] = _default(field) if isinstance(field, Field) else _block(field)
  config.chain, config.events, config.layers = tuple(chain), tuple(events), layers
  return complete(config)


def _block(block) -> ConfigDict:
  return ConfigDict({name: _default(field) for name, field in block.items()})


def _default(field: Field) -> Any:
  """A field's default, which may be replaced by any value that the field may have.

  A ConfigDict fixes a field's type by its first value. A placeholder admits None and values of its
  type, and a FieldReference of type object admits anything.
  """
  if field.default is None and isinstance(field.kind, Optional):
    types = {Text: str, Integer: int}
    return placeholder(types.get(type(field.kind.kind), float))
  if isinstance(field.kind, ByLayer):  # a number or a string
    return FieldReference(field.default, field_type=object)
  return copy.deepcopy(field.default)


def defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the default settings for a config's chain and events, as nested dicts.

  The run directory is named after the differences from them.
  """
  # `layers` keeps its default, so that another family differs from it and is hashed.
  return get_config(settings['chain'], settings['events']).to_dict()


def links(config) -> list[str]:
  """Returns the names of all links: those of the chain, and those that run inside another."""
  names = list(config['chain'])
  for name in names:
    inner = (config.get(name) or {}).get('inner', ())
    names.extend(link for link in inner if link not in names)
  return names


def complete(config: ConfigDict) -> ConfigDict:
  """Gives every link and event a block of its default settings, and drops unused blocks."""
  used = {*links(config), *config.events, config.layers}
  with config.unlocked():
    for name, block in fields.BLOCKS.items():
      if name in used and name not in config:
        config[name] = _block(block)
      if name not in used and name in config:
        del config[name]
  return config
