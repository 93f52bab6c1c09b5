"""The settings of an experiment, from a command line or from Python: one parser for all commands.

--config=NAME.py[:ARGUMENT] names the config file; --config.FIELD=VALUE sets a field.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sparsejax.experiment.config import check, fields, loading, overrides
from sparsejax.experiment.config.fields import Field
from sparsejax.experiment.config.setting_kinds import is_number
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import shown


def shortened(settings: Mapping[str, Any], share: float) -> dict[str, Any]:
  """Returns the settings with every duration of the training multiplied by a share.

  Durations in `log` and `evaluation` stay as they are; steps are rounded, to at least 1.

  Example:
    >>> shortened({'epochs': 180.0, 'prune': {'begin_epochs': 60.0, 'every_steps': 100}}, 0.1)
    {'epochs': 18.0, 'prune': {'begin_epochs': 6.0, 'every_steps': 10}}
  """

  def scaled(name, value):
    if isinstance(value, Mapping):
      return {key: scaled(key, one) for key, one in value.items()}
    is_duration = fields.strip_unit(name) != name or name == 'epochs'
    if not is_duration or not is_number(value):
      return value
    # The cap keeps the number finite; `check` refuses so many steps later.
    scaled_value = share * value
    return max(1, round(min(scaled_value, 2.0**53))) if isinstance(value, int) else scaled_value

  kept = ('log', 'evaluation')
  return {name: v if name in kept else scaled(name, v) for name, v in settings.items()}


def resolve(argv: Sequence[str]) -> dict[str, Any]:
  """Returns the checked settings of an experiment from a command line of only --config flags."""
  arguments = overrides.parse_config_flags(argv)
  if arguments.others:
    raise UsageError(
      f"unexpected argument '{arguments.others[0]}': only --config flags may stand here"
    )
  return resolve_arguments(arguments)


def resolve_arguments(
  arguments: overrides.ConfigArguments, *, all_read: bool = True
) -> dict[str, Any]:
  """Returns the checked settings of an experiment as nested dicts.

  Args:
    arguments: the config file and the overrides of a command line.
    all_read: whether to refuse a value that nothing reads.

  Raises:
    UsageError: says in one line what is wrong with the file or with a field, wherever it was set.
  """
  if arguments.file is None:
    raise UsageError('--config is missing: it must be --config=NAME.py[:ARGUMENT]')
  config = loading.load(arguments.file)  # what `get_config(ARGUMENT)` in the file returns
  try:
    # A plain nested dict: the changes are set, and links that they add have their blocks.
    settings = overrides.apply_overrides(config, arguments.overrides)
    if settings.get('name') == '':
      settings['name'] = pathlib.Path(arguments.file.partition(':')[0]).stem
    # The settings in their fields' types; unknown, impossible and unused ones are refused.
    return check.check(settings, all_read=all_read)
  except ValueError as error:
    raise UsageError(_prefix_config(str(error))) from error


def _prefix_config(message: str) -> str:
  return message if message.startswith(('config', 'unknown')) else f'config.{message}'


def checked(config: ConfigDict | Mapping[str, Any], name: str = '') -> dict[str, Any]:
  """Returns the checked settings of a config made in Python.

  Args:
    config: a config such as a config file's `get_config` returns.
    name: the name of the experiment; by default the config's own.

  Raises:
    UsageError: says in one line what is wrong with a field.
  """
  try:
    settings = overrides.apply_overrides(_validated_copy(config), {})
    return check.check(settings | ({'name': name} if name else {}))
  except ValueError as error:
    raise UsageError(_prefix_config(str(error))) from error


def _validated_copy(config: ConfigDict | Mapping[str, Any]) -> ConfigDict:
  """Returns a new ConfigDict with the config's contents.

  Raises:
    ValueError: a name, at any depth, is not a string or contains a dot, which separates the names
      of nested fields.
  """
  plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)

  def check_names(block, path):
    for name, value in block.items():
      if not isinstance(name, str) or '.' in name:
        raise ValueError(f'{path}: {shown(name)} must be the name of a field')
      if isinstance(value, Mapping):
        check_names(value, f'{path}.{name}')

  check_names(plain, 'config')
  return ConfigDict(plain)


def help_text() -> str:
  """Returns the help on every field: its default, its meaning, its values, when it is read."""
  lines = []
  for title, blocks in (
    ('every experiment', fields.FIELDS),
    ('links of the chain', fields.LINKS),
    ('layers', fields.LAYERS),
    ('events', fields.EVENTS),
  ):
    lines += [f'\n{title}:']
    for name, block in blocks.items():
      own = {'': block} if isinstance(block, Field) else block
      for key, field in own.items():
        dotted = f'{name}.{key}' if key else name
        read = f' Read with {field.read.words}.' if field.read else ''
        lines.append(
          f'  --config.{dotted}={field.default}\n      {field.meaning}. It must be '
          f'{field.kind.requirement}.{read}'
        )
  return '\n'.join(lines).strip()
