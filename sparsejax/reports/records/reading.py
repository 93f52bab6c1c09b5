"""Reads untrusted JSON: bounded in size and depth, with every string made printable."""

import json
import os
import pathlib
import sys
from typing import Any

from sparsejax.experiment.terminal.say import printable

MOST_BYTES = 32 << 20  # bytes of a file that is read as a whole
DEEPEST = 24  # levels of nesting
LONGEST = 64  # a string of at most this many characters is held once for all runs


class ReadingError(ValueError):
  """A file cannot be read; the message says why in plain words."""


def read(path: pathlib.Path) -> Any:
  """Returns the content of a JSON file.

  Raises:
    FileNotFoundError: the file does not exist.
    ReadingError: the file cannot be read, is too large or too deep, or is not JSON.
  """
  return parse(content(path))


def content(path: pathlib.Path) -> bytes:
  """Returns the bytes of a file.

  Raises:
    FileNotFoundError: the file does not exist.
    ReadingError: the file cannot be read, or is too large.
  """
  try:
    with path.open('rb') as file:
      found = file.read(MOST_BYTES + 1)
  except FileNotFoundError:
    raise
  except OSError as error:
    raise ReadingError(error.strerror or type(error).__name__) from error
  if len(found) > MOST_BYTES:
    size = os.stat(path).st_size
    raise ReadingError(f'it has {size:,} bytes; at most {MOST_BYTES:,} are read')
  return found


def parse(content: bytes) -> Any:
  """Returns the content of a JSON text.

  Raises:
    ReadingError: the text is not JSON, or is nested too deep.
  """
  try:
    return cleaned(json.loads(content))
  except RecursionError:
    raise ReadingError(_too_deep()) from None
  except ValueError as error:
    raise ReadingError(printable(error)) from error


def _too_deep() -> str:
  return f'it is nested more than {DEEPEST} levels deep'


def cleaned(content: Any, depth: int = DEEPEST) -> Any:
  """Returns the content of JSON with every string printable, and short ones held once.

  Raises:
    ReadingError: it is nested too deep.
  """
  if isinstance(content, str):
    text = printable(content)
    return sys.intern(text) if len(text) <= LONGEST else text
  if not isinstance(content, dict | list):
    return content
  if depth == 0:
    raise ReadingError(_too_deep())
  if isinstance(content, list):
    return [cleaned(value, depth - 1) for value in content]
  return {cleaned(key): cleaned(value, depth - 1) for key, value in content.items()}
