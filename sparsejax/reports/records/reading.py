"""JSON that anybody may have written: bounded in size and in depth, and all its texts printable."""

import json
import os
import pathlib
import sys
from typing import Any

from sparsejax.experiment.terminal.say import printable

MOST_BYTES = 32 << 20  # of a file that is read as a whole
DEEPEST = 24  # levels
LONGEST = 64  # letters of a text that many runs may share, and hold once


class ReadingError(ValueError):
  """A file that can't be read; the message says why, in plain words."""


def read(path: pathlib.Path) -> Any:
  """Returns what a JSON file holds.

  Raises:
    FileNotFoundError: there is none.
    ReadingError: it can't be read, is too large or too deep, or no JSON.
  """
  try:
    with path.open('rb') as file:
      content = file.read(MOST_BYTES + 1)
  except FileNotFoundError:
    raise
  except OSError as error:
    raise ReadingError(error.strerror or type(error).__name__) from error
  if len(content) > MOST_BYTES:
    size = os.stat(path).st_size
    raise ReadingError(f'{size:,} bytes, {MOST_BYTES:,} at most are read')
  return parse(content)


def parse(content: bytes) -> Any:
  """Returns what a JSON text holds.

  Raises:
    ReadingError: it is no JSON, or too deep.
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
  """Returns JSON's content with every text printable, and the short ones held once.

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
