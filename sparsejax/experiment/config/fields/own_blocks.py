"""The blocks of a user's own events and layers, added to the package's own."""

from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.config.fields.blocks import BLOCKS, EVENTS, LAYERS, layer_fields
from sparsejax.experiment.config.fields.common import FIELDS
from sparsejax.experiment.config.fields.field import NOT_NEGATIVE, Field, own_fields
from sparsejax.experiment.config.setting_kinds import WrongError
from sparsejax.posterior import Family
from sparsejax.posterior.layers import DETERMINISTIC


def add_event(name: str, settings: Mapping[str, Any]) -> None:
  """Makes a user's own event known, with its settings and their defaults."""
  _add(EVENTS, name, {'at_epochs': Field(60.0, NOT_NEGATIVE, 'when')} | own_fields(name, settings))


def add_layers(name: str, family: Family) -> None:
  """Makes layers with a user's own family of posteriors known."""
  _add(LAYERS, name, layer_fields(name, family))


def _add(blocks: dict[str, dict[str, Field]], name: str, block: dict[str, Field]) -> None:
  if name in {*FIELDS, *BLOCKS, DETERMINISTIC} - {*blocks}:
    raise ValueError('a config has something else with that name: give it another name')
  for key, field in block.items():
    try:
      field.kind.convert(field.default)
    except WrongError as error:
      raise ValueError(f'its {key} is {field.default!r}: it must be {error}') from None
  blocks[name] = BLOCKS[name] = block
