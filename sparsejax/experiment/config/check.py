"""Checks settings: each must exist, have a possible value, and be read by something.

Each setting is defined once, by a `fields.Field`: its default, its kind (the values that it may
have), its meaning, and when it is read, a function of the whole config. The end of its name is its
unit: `_epochs`, `_steps` or `_examples`, in any of which a duration may be given.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sparsejax.experiment.config import fields
from sparsejax.experiment.config.fields import Field
from sparsejax.experiment.config.setting_kinds import (
  ByLayer,
  Integer,
  Kind,
  Number,
  Optional,
  Period,
  Scheduled,
  WrongError,
  hint,
  is_number,
)
from sparsejax.experiment.terminal.say import shown
from sparsejax.internal.lookup import lookup


def check(settings: Mapping[str, Any], *, all_read: bool = True) -> dict[str, Any]:
  """Returns the settings, each value in its field's own type.

  Args:
    settings: the complete settings of an experiment, nested and plain.
    all_read: whether to refuse a value that nothing reads.

  Raises:
    ValueError: names in one line the first field that is unknown, missing, never read, or has an
      impossible value.

  Example:
    >>> from sparsejax.experiment.config import base
    >>> settings = base.get_config().to_dict()
    >>> check(settings | {'epochs': 3})['epochs']
    3.0
    >>> check(settings | {'batchsize': 64})
    Traceback (most recent call last):
    ValueError: unknown field 'batchsize': did you mean 'batch_size'?
  """
  for name in ('chain', 'events', 'layers'):  # these decide which blocks exist
    if name in settings:
      _checked(name, settings[name], settings)
  for name, block in fields.BLOCKS.items():  # so do links with other links inside
    if 'inner' in block and name in settings and name in used_blocks(settings):
      _check_inner(name, settings)
  checked = {name: _checked(name, value, settings) for name, value in settings.items()}
  for name, field in fields.FIELDS.items():
    if name not in settings:
      raise ValueError(f'{name} is missing: it must be {_requirement(field)}')
  if all_read:
    _check_all_read(checked)
  return checked


def _check_inner(name: str, settings: Mapping[str, Any]) -> None:
  """Refuses a value that is not a block, or whose inner names are not links, before its use."""
  block = settings[name]
  if not isinstance(block, Mapping) or 'inner' not in block:
    _checked(name, block, settings)
  else:
    convert(f'{name}.inner', block['inner'], fields.BLOCKS[name]['inner'].kind)


def _requirement(field: Field | Mapping[str, Field]) -> str:
  return field.kind.requirement if isinstance(field, Field) else f'a block of {", ".join(field)}'


def _checked(name: str, value: Any, settings: Mapping[str, Any]) -> Any:
  """The checked value of one top-level field or of one block."""
  field = fields.FIELDS.get(name)
  if isinstance(field, Field):
    return convert(name, value, field.kind)
  used = used_blocks(settings)
  block = field if field is not None else fields.BLOCKS.get(name)
  if name not in fields.FIELDS and name not in used:
    if name in fields.BLOCKS:
      raise ValueError(f"{name} is set, but '{name}' is not in chain, events or layers")
    raise ValueError(unknown(name, [*fields.FIELDS, *used]))
  if not isinstance(value, Mapping):
    requirement = 'its settings' if block is None else _requirement(block)
    raise ValueError(f'{name}={shown(value)} must be a block of settings: {requirement}')
  if block is None:  # an Optax link, whose signature has its settings
    return {key: _plain(f'{name}.{key}', one) for key, one in value.items()}
  return checked_block(name, value, block)


def used_blocks(settings: Mapping[str, Any]) -> set[str]:
  """Returns the names of the links, events and layers that the settings name."""
  names = [name for key in ('chain', 'events') for name in _texts(settings.get(key))]
  for name in names:
    block = settings.get(name)
    inner = _texts(block.get('inner')) if isinstance(block, Mapping) else []
    names.extend(link for link in inner if link not in names)
  return {*names, *_texts((settings.get('layers'),))}


def _texts(names: Any) -> list[str]:
  """The strings among `names`, or none if it is not a tuple or list."""
  return (
    [name for name in names if isinstance(name, str)] if isinstance(names, tuple | list) else []
  )


def checked_block(
  name: str, block: Mapping[str, Any], known: Mapping[str, Field]
) -> dict[str, Any]:
  """Returns the settings of one block, each in its field's own type, checked as in `check`."""
  found = {}
  for key, value in block.items():
    field = fields.find(known, key)
    if field is None:
      raise ValueError(unknown(f'{name}.{key}', [f'{name}.{k}' for k in known]))
    found[key] = convert(f'{name}.{key}', value, field.kind)
  given = [fields.strip_unit(key) for key in block]
  for key, field in known.items():
    if given.count(fields.strip_unit(key)) > 1:
      raise ValueError(f'{name}.{key} is given in two units: it must be given in only one')
    if fields.strip_unit(key) not in given:
      raise ValueError(f'{name}.{key} is missing: it must be {field.kind.requirement}')
  return found


def convert_type_only(field: str, value: Any, kind: Kind) -> Any:
  """Returns the value in the field's own type; unlike `convert`, accepts a number out of range."""
  bare = kind.kind if isinstance(kind, Scheduled | Optional | ByLayer) else kind
  if isinstance(bare, Number) and is_number(value):
    return value if isinstance(bare, Period) else float(value)
  if isinstance(bare, Integer) and isinstance(value, int) and not isinstance(value, bool):
    return value
  return convert(field, value, kind)


def convert(field: str, value: Any, kind: Kind) -> Any:
  """Returns the value in the field's own type; a ValueError names the field and the value."""
  try:
    converted = kind.convert(value)  # as float, tuple, ...; an error says what it must be
  except WrongError as error:
    raise ValueError(f'{field}={shown(value)} must be {error}') from None
  bare = kind.kind if isinstance(kind, Optional) else kind
  if isinstance(bare, Scheduled) and isinstance(converted, Mapping):
    return _schedule(field, converted, bare.kind)
  return converted


FIELD_VALUES = ('value', 'initial', 'final')  # a schedule's settings that are values of its field


def _schedule(field: str, block: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
  """A schedule's checked block, whose values must be values that the field may have."""
  name = block.get('schedule')
  known = lookup(f'{field}.schedule', str(name), fields.SCHEDULES)
  found = {'schedule': name}
  for key, value in block.items():
    base = fields.strip_unit(key)
    if key == 'schedule':
      continue
    if base not in known and base != 'warmup':
      names = [f'{field}.{k}' for k in (*known, 'warmup', 'schedule')]
      raise ValueError(unknown(f'{field}.{key}', names))
    own = kind if base in FIELD_VALUES else known.get(base, fields.NOT_NEGATIVE)
    if base in ('begin', 'end') and value is None:
      found[key] = None
    else:
      found[key] = convert(f'{field}.{key}', value, own)
  return found


def _plain(field: str, value: Any) -> Any:
  """A setting of an Optax link: a finite number, a flag, a string, or a schedule's block."""
  if isinstance(value, Mapping):
    return _schedule(field, value, Number())
  if isinstance(value, bool | str | None):
    return value
  if isinstance(value, tuple | list):
    return tuple(_plain(field, one) for one in value)
  if isinstance(value, int):
    return convert(field, value, Integer(-(2**53), 2**53))
  return convert(field, value, Number())


def _check_all_read(settings: Mapping[str, Any]) -> None:
  """Refuses a value other than the default for a field that nothing reads."""
  for name, field in named_fields(settings):
    if field.read is None or field.read.when(settings):
      continue
    block, _, key = name.partition('.')
    value = settings[block][key]
    if value != field.default:
      raise ValueError(
        f'{name}={shown(value)} is never read: it is read only with {field.read.words}'
      )


def named_fields(settings: Mapping[str, Any]) -> Iterable[tuple[str, Field]]:
  """Yields the dotted name and the field of every setting of this package's own."""
  for name, value in settings.items():
    field = fields.FIELDS.get(name)
    if isinstance(field, Field):
      yield name, field
    elif (block := field or fields.BLOCKS.get(name)) is not None:
      for key in value:
        if (own := fields.find(block, key)) is not None:
          yield f'{name}.{key}', own


def unmet_condition(settings: Mapping[str, Any], field: str) -> str:
  """Returns the condition for a field to be read if the settings do not meet it, else ''.

  Args:
    settings: the resolved settings.
    field: the dotted name of the field.

  Example:
    >>> unmet_condition({'prune': {'schedule': 'one_shot'}}, 'prune.every_steps')
    "the prune.schedule 'cubic', 'periodic' or 'iterative'"
    >>> unmet_condition({'prune': {'schedule': 'cubic'}}, 'prune.every_steps')
    ''
  """
  name, _, key = field.partition('.')
  block = fields.FIELDS.get(name) or fields.BLOCKS.get(name)
  found = fields.find(block, key) if isinstance(block, Mapping) else None
  if found is None or found.read is None or found.read.when(settings):
    return ''
  return found.read.words


def unknown(name: str, known: Iterable[str]) -> str:
  """Returns a message that there is no such field, with the nearest field."""
  known = list(known)
  found = hint(name, known) or f' it must be one of {", ".join(sorted(known))}'
  return f"unknown field '{name}':{found}"
