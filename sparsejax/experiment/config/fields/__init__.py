"""Every field of an experiment: those that all have, and the blocks that links and layers bring."""

from sparsejax.experiment.config.fields.blocks import BLOCKS, EVENTS, LAYERS, LINKS, SCHEDULES
from sparsejax.experiment.config.fields.common import FIELDS, SGD
from sparsejax.experiment.config.fields.field import (
  NOT_NEGATIVE,
  UNITS,
  Field,
  find,
  strip_unit,
  values,
)
from sparsejax.experiment.config.fields.own_blocks import add_event, add_layers
from sparsejax.experiment.config.fields.pruning_blocks import (
  DENSITY_UNITS,
  GROUPED,
  PRUNING_SCHEDULES,
)

__all__ = [
  'BLOCKS',
  'DENSITY_UNITS',
  'EVENTS',
  'FIELDS',
  'GROUPED',
  'LAYERS',
  'LINKS',
  'NOT_NEGATIVE',
  'PRUNING_SCHEDULES',
  'SCHEDULES',
  'SGD',
  'UNITS',
  'Field',
  'add_event',
  'add_layers',
  'find',
  'strip_unit',
  'values',
]
