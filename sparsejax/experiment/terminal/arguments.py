"""A command line of argparse whose mistakes are errors, for a command to tell in its own way."""

import argparse
import os
import pathlib
from typing import Any, NoReturn

from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import shown


class Parser(argparse.ArgumentParser):
  """An ArgumentParser that raises a ValueError of one line where argparse ends the process."""

  def error(self, message: str) -> NoReturn:
    raise ValueError(message)


def folder(flag: str, text: str, what: str = 'folder') -> pathlib.Path:
  """Returns the path of a folder to write, which need not be there yet.

  Args:
    flag: that names it, for the message.
    text: its value.
    what: it is, where it is none.

  Raises:
    UsageError: nothing on this machine can have this name.

  Example:
    >>> folder('--out', 'gs://bucket')
    Traceback (most recent call last):
    sparsejax.experiment.terminal.errors.UsageError: --out='gs://bucket' must be a folder of ...
  """
  if not text:
    raise UsageError(f'{flag}= must name a {what}')
  if '://' in text or not text.isprintable():
    raise UsageError(f'{flag}={shown(text)} must be a {what} of this machine')
  path = pathlib.Path(text)
  try:
    path.lstat()
  except FileNotFoundError:
    pass
  except OSError as error:
    raise UsageError(f'{flag}={shown(text)} must be a {what}: {error.strerror}') from None
  return path


def path_text(argument: str, value: Any, what: str) -> str:
  """Returns the text of a path that was given from Python.

  Args:
    argument: of a function, for the message.
    value: of it.
    what: it must be, where it is no path.

  Raises:
    UsageError: it is no path, or one that names nothing.

  Example:
    >>> path_text('run', None, 'the directory of a finished run')
    Traceback (most recent call last):
    sparsejax.experiment.terminal.errors.UsageError: run=None must be the directory of a ...
  """
  text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
  if not isinstance(text, str) or not text or '\0' in text:
    raise UsageError(f'{argument}={shown(value)} must be {what}')
  return text
