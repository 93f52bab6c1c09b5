"""Loads config files: Python with a function get_config(); errors name their line."""

import hashlib
import importlib.util
import os
import pathlib
import sys
import traceback
import types

from ml_collections import ConfigDict

from sparsejax.experiment.config import argument
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import printable, shown
from sparsejax.internal.lookup import nearest


def load(file: str) -> ConfigDict:
  """Returns the config that NAME.py:ARGUMENT makes, before any overrides.

  If there is no file NETWORK_METHOD.py, METHOD.py is taken, with NETWORK before its argument.

  Raises:
    UsageError: says in one line what is wrong, with the line of the file if the file is at fault.
  """
  path, _, text = file.partition(':')
  if not path:
    raise UsageError(f'config={shown(file)} must name a file, NAME.py[:ARGUMENT]')
  named = place = pathlib.Path(path)
  if file.endswith(':'):
    raise UsageError(f'config={printable(file)} must have an argument after its colon, or no colon')
  network, underscore, method = place.name.partition('_')
  if underscore and not os.path.isfile(place):  # isfile never raises, whatever the name
    place = place.parent / method
    text = f'{network},{text}' if text else network
  if not os.path.isfile(place):
    raise UsageError(no_config(named))
  module = execute(place, 'config')
  make = getattr(module, 'get_config', None)
  if not callable(make):
    raise UsageError(
      f'config={printable(path)} is not a config: it must have a function get_config()'
    )
  try:
    values = argument.read(make, text)  # [] without an argument, so that its defaults stand
  except ValueError as error:
    what = file if place == named else f'{file}: there is no such file, so it is {place}:{text}'
    raise UsageError(f'config={printable(what)}: {error}') from None
  with LocatedErrors(place):
    config = make(*values)
  if not isinstance(config, ConfigDict):
    raise UsageError(f'config={printable(file)}: get_config() must return a ConfigDict')
  return config


def execute(place: pathlib.Path, field: str = 'parts') -> types.ModuleType:
  """Runs a Python file and returns its module; parts that it registers are then known.

  Args:
    place: the path of the file.
    field: the field that names it, for the message.

  Raises:
    UsageError: says in one line what is wrong, with the line of the file if the file is at fault.
  """
  spec = importlib.util.spec_from_file_location(_name_of_module(place), place)
  if spec is None or spec.loader is None or not os.path.isfile(place):
    raise UsageError(f'{field}={shown(str(place))} must be a file of Python, NAME.py')
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # dataclasses and inspect look here for the file of a class
  # A config imports its neighbours by their folder's name, whatever the current directory is.
  here, around = str(pathlib.Path.cwd()), str(place.resolve().parent.parent)
  sys.path[:0] = [here] if here not in sys.path else []
  sys.path += [around] if around not in sys.path else []
  with LocatedErrors(place):
    spec.loader.exec_module(module)
  return module


def _name_of_module(place: pathlib.Path) -> str:
  folder = hashlib.sha256(str(place.resolve().parent).encode()).hexdigest()[:8]
  return f'sparsejax_config_{place.stem}_{folder}'


class LocatedErrors:
  """Turns whatever a config file raises into a UsageError that names its line."""

  def __init__(self, place: pathlib.Path):
    self.place = place

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace) -> None:
    if error is None or not isinstance(error, Exception):
      return
    where = printable(self._where(error, trace))
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = said[-1] if said else ''
    if isinstance(error, KeyError | AttributeError) and len(said) > 1:
      text = said[0]
    named = text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'
    raise UsageError(f'{where}: {named}') from error

  def _where(self, error, trace) -> str:
    """FILE:LINE of the file as it was named, or of an imported file with a syntax error."""
    if isinstance(error, SyntaxError) and error.filename:
      found = [(error.filename, error.lineno)]
    else:
      found = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(trace)]
      found = [(file, line) for file, line in found if self._is_it(file)]
    file, line = found[-1] if found else ('', None)
    place = self.place if not file or self._is_it(file) else file
    return f'{place}:{line}' if line else str(place)

  def _is_it(self, file: str) -> bool:
    return os.path.abspath(file) == os.path.abspath(self.place)


def no_config(path: pathlib.Path) -> str:
  """Returns a message that a config does not exist, with the configs that its folder has."""
  folder = path.parent if os.path.isdir(path.parent) else pathlib.Path('configs')
  files = sorted(folder.glob('*.py')) if folder.is_dir() else []
  known = [file.stem for file in files if 'def get_config' in file.read_text(errors='replace')]
  names = ', '.join(known) if 0 < len(known) < 30 else f'{len(known)} configs'
  there = f'{nearest(path.stem, known)} {folder} has {names}' if known else ' it must be NAME.py'
  return f'config={printable(path)}: there is no such file;{there}'
