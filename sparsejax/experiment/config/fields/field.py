"""A field: its default, the values it may have, its meaning, and when it is read.

A duration carries its unit in its name: `_epochs` of the training split, `_steps` or `_examples`;
it may be given in any of them. A schedule's block may replace a number where the field says so:
dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.config.setting_kinds import Flag, Integer, Kind, Number, Period, Text

UNITS = ('epochs', 'steps', 'examples')
NOT_NEGATIVE, POSITIVE = Number(0.0), Number(0.0, above=True)
SHARE, FRACTION = Number(0.0, 1.0), Number(0.0, 1.0, above=True)
DECAY = Number(0.0, 1.0, below=True)  # the decay of a running mean
STEPS = Period()


class Read(NamedTuple):
  """When a field is read.

  Attributes:
    words: the settings with which it is read.
    when: a function from the resolved settings to whether it is read.
  """

  words: str
  when: Callable[[Mapping[str, Any]], bool]


class Field(NamedTuple):
  """One setting.

  Attributes:
    default: its value unless another is given.
    kind: the values it may have.
    meaning: what it means.
    read: when it is read; None means always.
  """

  default: Any
  kind: Kind
  meaning: str
  read: Read | None = None


def read_when(field: str, *values: Any) -> Read:
  """Returns the condition that another field has one of these values."""
  block, _, name = field.partition('.')
  *first, last = map(repr, values)
  words = f'{", ".join(first)} or {last}' if first else last
  return Read(f'the {field} {words}', lambda config: config[block][name] in values)


def strip_unit(name: str) -> str:
  """Returns a duration's name without its unit, or another setting's name as it is.

  Example:
    >>> strip_unit('begin_epochs'), strip_unit('batch_size')
    ('begin', 'batch_size')
  """
  base, _, unit = name.rpartition('_')
  return base if base and unit in UNITS else name


def find(block: Mapping[str, Field], name: str) -> Field | None:
  """Returns a block's field by its name (a duration's in any unit), or None if it has none."""
  if name in block:
    return block[name]
  base = strip_unit(name)
  if base == name:
    return None
  return next((field for key, field in block.items() if key != strip_unit(key) == base), None)


def values(block: Mapping[str, Field]) -> dict[str, Any]:
  """Returns the defaults of a block."""
  return {name: field.default for name, field in block.items()}


def own_fields(name: str, settings: Mapping[str, Any]) -> dict[str, Field]:
  """Returns the fields of a user's own part, from its settings and their defaults."""
  kinds = {bool: Flag(), int: Integer(), float: Number(), str: Text()}
  for key, value in settings.items():
    if type(value) not in kinds:
      raise ValueError(f"its setting '{key}' is {value!r}: it must be a number, a string or a flag")
  return {k: Field(v, kinds[type(v)], f'a setting of {name}') for k, v in settings.items()}
