"""Argparse command lines whose mistakes raise errors, which a command reports in its own way."""

import argparse
import os
import pathlib
from typing import Any, NoReturn

from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import shown


class Parser(argparse.ArgumentParser):
  """An ArgumentParser that raises a UsageError of one line instead of ending the process."""

  def error(self, message: str) -> NoReturn:
    raise UsageError(message)


def folder(flag: str, text: str, what: str = 'folder') -> pathlib.Path:
  """Returns the path of a folder to write, which need not exist yet.

  Args:
    flag: the flag that names it, for the message.
    text: the flag's value.
    what: what the value must be, for the message.

  Raises:
    UsageError: no folder on this machine can have this name.

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
    argument: the argument of the function, for the message.
    value: its value.
    what: what it must be, for the message.

  Raises:
    UsageError: the value is not a path, or is empty.

  Example:
    >>> path_text('run', None, 'the directory of a finished run')
    Traceback (most recent call last):
    sparsejax.experiment.terminal.errors.UsageError: run=None must be the directory of a ...
  """
  text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
  if not isinstance(text, str) or not text or '\0' in text:
    raise UsageError(f'{argument}={shown(value)} must be {what}')
  return text
