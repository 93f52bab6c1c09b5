"""Changes that a command line makes to a config: --config.FIELD=VALUE."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sparsejax.experiment.config import base, check, fields
from sparsejax.experiment.config.fields import Field
from sparsejax.experiment.config.setting_kinds import Kind, Table, WrongError, hint, literal
from sparsejax.experiment.terminal import say
from sparsejax.experiment.terminal.errors import UsageError

Convert = Callable[[str, Any, Kind], Any]
FLAG = re.compile(r'--config(?:\.(?P<field>[^=]+))?(?:=(?P<value>.*))?', re.DOTALL)


class ConfigArguments(NamedTuple):
  """A command line's arguments, sorted into the config file, its overrides and the others.

  Attributes:
    file: the config file, as NAME.py or NAME.py:ARGUMENT; None if `--config` is missing.
    overrides: the unparsed value of each `--config.FIELD` flag, by dotted field name.
    others: the remaining arguments, in order.
  """

  file: str | None
  overrides: Mapping[str, str]
  others: Sequence[str]


def parse_config_flags(argv: Sequence[str]) -> ConfigArguments:
  """Separates the flags `--config` and `--config.FIELD` from a command line's other arguments.

  A flag's value is given as `--flag=VALUE` or as `--flag VALUE`; in the second form it must not
  begin with `--`. If a field is given more than once, the last value counts.

  Args:
    argv: the arguments, without the command's name.

  Returns:
    The config file, the fields' values as strings, and the arguments that are not config flags.

  Raises:
    UsageError: a config flag has no value, or `--config` is given twice.

  Example:
    >>> parse_config_flags(['--config=a.py:1', '--config.seed', '3', '--out=x'])
    ConfigArguments(file='a.py:1', overrides={'seed': '3'}, others=['--out=x'])
  """
  file = None
  overrides = {}
  others = []
  remaining = list(argv)
  while remaining:
    argument = remaining.pop(0)
    match = FLAG.fullmatch(argument)
    if match is None:
      others.append(argument)
      continue
    field, value = match['field'], match['value']
    if value is None:
      if not remaining or remaining[0].startswith('--'):
        raise UsageError(f'{argument} needs a value: {argument}=VALUE')
      value = remaining.pop(0)
    if field is not None:
      overrides[field] = value
    elif file is not None:
      raise UsageError(f'--config is given twice, as {file} and {value}: give only one file')
    else:
      file = value
  return ConfigArguments(file, overrides, others)


def apply_overrides(config: ConfigDict, changes: Mapping[str, str]) -> dict[str, Any]:
  """Returns a config's settings with some fields overridden, and the blocks that these need.

  Args:
    config: the config as its file makes it; it is not changed.
    changes: unparsed values by dotted field.

  Raises:
    ValueError: a field is unknown, or it cannot have the value that is given.
  """
  config = copy.deepcopy(config)
  _refuse_two_units(changes)
  for decides in (_names_blocks, _names_links):  # the chain first, then its inner links
    for name, text in changes.items():
      if decides(name):
        _decide(config, name, text)
    _complete(config)
  settings = config.to_dict()
  for name, text in changes.items():
    if not _names_blocks(name) and not _names_links(name):
      set_field(settings, name, text, _parse_value)
  return settings


def _refuse_two_units(changes: Mapping[str, str]) -> None:
  by_base: dict[str, str] = {}
  for name in changes:
    before = by_base.setdefault(fields.strip_unit(name), name)
    if before != name:
      raise ValueError(f'{before} and {name} are one duration: give it in only one unit')


def _names_blocks(name: str) -> bool:
  return name in ('chain', 'events', 'layers')


def _names_links(name: str) -> bool:
  return name.endswith('.inner')


def _decide(config: ConfigDict, name: str, text: str) -> None:
  """Sets a field that decides which blocks exist."""
  block, _, key = name.rpartition('.')
  field = fields.FIELDS[key] if not block else fields.find(fields.BLOCKS.get(block, {}), key)
  if not isinstance(field, Field) or (block and block not in config):
    raise ValueError(_unknown(config.to_dict(), name))
  with config.unlocked():
    (config[block] if block else config)[key] = _parse_value(name, text, field.kind)


def _complete(config: ConfigDict) -> None:
  try:
    base.complete(config)
  except (AttributeError, KeyError, TypeError):  # `check` will say what is missing or no tuple
    return


def set_field(
  settings: dict[str, Any], name: str, value: Any, convert: Convert = check.convert
) -> None:
  """Sets one field, in place.

  Args:
    settings: nested and plain; the blocks along the name must be the caller's own.
    name: the dotted name of one of these:
      a field, `prune.density`, or a duration in any unit, `prune.begin_steps`;
      an entry of a table, `model.widths.fc1`;
      a setting of a schedule that stands where a number may,
      `scale_by_learning_rate.learning_rate.factor` (a number may replace a schedule's block);
      a setting of an Optax link that has no fields here, `adam.b1`.
    value: the value that `convert` receives.
    convert: (name, value, kind) -> the value in the field's own type.

  Raises:
    ValueError: the field is unknown, or it cannot have this value.
  """
  known = dict(_known_fields(settings))
  field = known.get(name) or _field_of_any_unit(settings, name)
  block, key = _place(settings, name)
  if field is not None and block is not None:
    _set(block, key, convert(name, value, field.kind))
    return
  kind = _kind_of_table(name)
  is_setting_of_link = name.partition('.')[0] in check.used_blocks(settings) and _is_foreign(name)
  if block is None or not (kind or key in block or is_setting_of_link or 'schedule' in block):
    raise ValueError(_unknown(settings, name))
  _set(block, key, convert(name, value, kind or Kind()))


def _set(block: dict[str, Any], key: str, value: Any) -> None:
  """Sets a value; a duration replaces the same duration in another unit."""
  base = fields.strip_unit(key)
  for other in [name for name in block if name != key and fields.strip_unit(name) == base != name]:
    del block[other]
  block[key] = value


def _is_foreign(name: str) -> bool:
  """Returns whether a dotted name begins with an Optax link that has no fields here."""
  return name.partition('.')[0] not in {**fields.FIELDS, **fields.BLOCKS}


def _parse_value(name: str, text: str, kind: Kind) -> Any:
  try:
    value = kind.parse(text)
  except WrongError as error:
    raise ValueError(f'{name}={say.shown(literal(text))} must be {error}') from None
  return check.convert(name, value, kind)


def _known_fields(settings: Mapping[str, Any]) -> list[tuple[str, Field]]:
  """The fields of these settings, by dotted name."""
  with_fields = {
    name: value
    for name, value in settings.items()
    if isinstance(fields.FIELDS.get(name), Field) or isinstance(value, Mapping)
  }
  return list(check.named_fields(with_fields))


def _field_of_any_unit(settings: Mapping[str, Any], name: str) -> Field | None:
  block, _, key = name.partition('.')
  table = fields.FIELDS.get(block) or fields.BLOCKS.get(block)
  is_there = isinstance(table, Mapping) and block in settings and '.' not in key
  return fields.find(table, key) if is_there else None


def _kind_of_table(name: str) -> Kind | None:
  """The kind of the entries of the table that a dotted name of three or more parts is in.

  It is None for any other name.
  """
  block, _, rest = name.partition('.')
  table, _, entry = rest.partition('.')
  field = fields.find(fields.BLOCKS.get(block, {}), table)
  return field.kind.kind if entry and field and isinstance(field.kind, Table) else None


def _place(settings: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, str]:
  """The block that a dotted name is in, and the name's key there.

  The block is None if a part of the name before its key is missing or is not a block.
  """
  *parents, key = name.split('.')
  if _kind_of_table(name):
    parents = parents[:2]
    key = '.'.join(name.split('.')[2:])
  block: Any = settings
  for i, parent in enumerate(parents):
    if not isinstance(block, dict):
      return None, key
    if parent not in block and i == 0 and parent in check.used_blocks(settings):
      block[parent] = {}  # an Optax link, whose settings are its own arguments
    block = block.get(parent)
  return (block if isinstance(block, dict) else None), key


def _unknown(settings: Mapping[str, Any], name: str) -> str:
  """A message that there is no such field, with the nearest, or that its block is not in use."""
  block = name.partition('.')[0]
  if block in fields.BLOCKS and block not in settings:
    return f"config.{name} is set, but '{block}' is not in chain, events or layers"
  known = [n for n, _ in _known_fields(settings)]
  near = hint(name, [*known, *(n.partition('.')[0] for n in known)])
  more = '' if near else f' `--help` lists all {len(known)}'
  return f"unknown field 'config.{name}':{near}{more}"
