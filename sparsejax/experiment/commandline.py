"""What the commands share of their command lines: a config by its flag, and errors in one line."""

import ast
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import Any

from ml_collections import config_flags

from sparsejax.experiment import runs
from sparsejax.lookup import nearest


def value_of(text: str) -> Any:
  """Returns a setting as Python would read it, or the text itself."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def load(config: str) -> Any:
  """Returns what the config file NAME.py:ARGUMENT makes, by itself.

  Raises:
    Exception: whatever the file raises; `one_line` says it.
  """
  return config_flags.config_flags.ConfigFileFlagParser('config').parse(config)


def settings_of(argv: Sequence[str]) -> dict[str, Any]:
  """Returns the config named on a command line as it is by itself; {} where it can't be loaded."""
  config = next((arg.partition('=')[2] for arg in argv if arg.startswith('--config=')), '')
  try:
    return load(config).to_dict()
  except Exception:  # the config itself is broken: its own error is the one to show
    return {}


def explain(
  error: Exception, argv: Sequence[str], *, fields_in: str, known_too: Collection[str] = ()
) -> str:
  """Returns one line for a person: for an unknown field the nearest known, else the error's words.

  Args:
    error: that the flags or the config raised.
    argv: the command line.
    fields_in: the file that has every field.
    known_too: fields that the config by itself does not have.
  """
  settings = settings_of(argv)
  known = list(runs.flatten(settings))
  known += sorted({leaf.rpartition('.')[0] for leaf in known} - {''})
  for name in re.findall(r'--(?:no)?config\.([\w./]+)', ' '.join(argv)):
    table = name.rpartition('.')[0]
    if runs.at(settings, table) == {}:
      return f"'config.{name}': no flag fills the table 'config.{table}'; allowed is a config file"
    if known and name not in known and name not in known_too:
      return f"unknown field 'config.{name}';{nearest(name, known)} known are those of {fields_in}"
  return one_line(error)


def one_line(error: Exception) -> str:
  """Returns the last line of an error's text, with what Python says of configs in plain words.

  Example:
    >>> one_line(ValueError('two lines,\\nof which this is the point'))
    'of which this is the point'
  """
  text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
  # config_flags raises it anew, without the file's name.
  if isinstance(error, OSError) and (found := re.search(r"No such file.*: '(.+\.py)'", text)):
    return no_config(pathlib.Path(found[1]))
  if 'takes 0 positional arguments' in text:
    return 'this config takes no argument behind its name'
  if "no attribute 'get_config'" in text:
    return 'that file is no config: it has no get_config()'
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__


def no_config(path: pathlib.Path) -> str:
  """Returns that there is no such config, and which there are beside where it would be."""
  folder = path.parent if path.parent.is_dir() else pathlib.Path('configs')
  found = sorted(file.stem for file in folder.glob('*.py') if 'def get_config' in file.read_text())
  known = [name for name in found if name != 'base']  # it holds the fields
  names = ', '.join(known) if 0 < len(known) < 30 else f'{len(known)} files'
  hint = nearest(path.stem, known)
  return f'config={path}: there is no such file;{hint} allowed are those of {folder}: {names}'
