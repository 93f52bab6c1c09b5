"""Files that are either whole or absent, and one error for a full disk."""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
from collections.abc import Generator
from typing import Any

from sparsejax.experiment.terminal.errors import UnreadableError
from sparsejax.internal.atomic import TEMPORARY, replacing

# The files of a run directory.
CONFIG, SUMMARY, METRICS = 'config.json', 'summary.json', 'metrics.jsonl'
ENVIRONMENT, TRACEBACK, TRACE = 'environment.json', 'traceback.txt', 'trace.png'
CHECKPOINTS = 'checkpoints'
PROGRESS = 'progress.json'  # the newest saved step

SHIPPED = 'shipped.json'  # in the folder of a shipment: what it holds, and its measurements

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# The system's errors when it cannot read or write now, whatever a file holds.
BROKEN_DISK = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)  # may pass
FAILED_DISK = (*FULL_DISK, *BROKEN_DISK, errno.EROFS, errno.EACCES, errno.EPERM)


def is_system_error(error: BaseException) -> bool:
  """Returns whether an error is the system's failure to read or write, not a damaged file.

  Example:
    >>> is_system_error(OSError(errno.EIO, 'no')), is_system_error(OSError('no gzip'))
    (True, False)
  """
  return isinstance(error, OSError) and error.errno in FAILED_DISK


STAYS = 'what was saved before is kept'


def path_error(error: OSError, folder: object = None, left: str = STAYS) -> str | None:
  """Returns the message of an error about a file or a folder, or None for any other error.

  Args:
    error: what the system raised.
    folder: the path to name for a full disk, whose error may name none.
    left: what the error leaves.

  Example:
    >>> path_error(IsADirectoryError(errno.EISDIR, 'Is a directory', '.new', None, 'progress.json'))
    'Is a directory: progress.json; what was saved before is kept'
    >>> path_error(OSError('no socket')) is None
    True
  """
  # If a file was being replaced, this is its name and not that of the new file.
  path = error.filename2 or error.filename
  if path is None and error.errno in FULL_DISK:
    path = folder
  if error.errno is None or path is None:
    return None
  return f'{error.strerror}: {path}; {left}'


def drop_temporary(folder: pathlib.Path) -> None:
  """Removes the unfinished files that a kill left in a folder; no other process may write there."""
  for path in folder.glob('.*.tmp'):
    if TEMPORARY.fullmatch(path.name):
      path.unlink(missing_ok=True)


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a text file so that a reader, or a kill, finds either the old or the new content."""
  with replacing(path) as temporary, temporary.open('w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes JSON atomically, one key a line."""
  write_atomically(path, json_text(content))


def json_text(content: Any) -> str:
  """Returns the text of a JSON file, one key a line."""
  return json.dumps(finite(content), indent=2) + '\n'


def read_json(path: pathlib.Path) -> Any:
  """Returns the content of a JSON file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not JSON, or is nested deeper than anything written here.
  """
  try:
    return json.loads(path.read_text())
  except RecursionError:
    raise ValueError(f'{path.name} is nested too deeply') from None


def digest(path: pathlib.Path) -> str:
  """Returns the sha256 of a file.

  Raises:
    OSError: the file cannot be read.
  """
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def numbered(path: pathlib.Path, first: int) -> pathlib.Path:
  """Returns the first free name of NAME-first, NAME-(first + 1), ... in the same folder."""
  names = (path.with_name(f'{path.name}-{number}') for number in itertools.count(first))
  return next(name for name in names if not name.exists())


def place_beside(path: pathlib.Path, why: str) -> pathlib.Path:
  """Returns the first free name of WHY-NAME, WHY-NAME-2, ... in the same folder."""
  place = path.with_name(f'{why}-{path.name}')
  return numbered(place, 2) if place.exists() else place


def set_aside(path: pathlib.Path, why: str) -> pathlib.Path:
  """Renames an unusable file or folder to WHY-NAME beside it; returns its new path.

  Raises:
    UnreadableError: it cannot be renamed.
  """
  try:
    return path.rename(place_beside(path, why))
  except OSError as error:
    raise UnreadableError(
      f'{path} is {why}, and could not be renamed: {error.strerror}; nothing was changed; give the '
      'same command again once it can be renamed'
    ) from error


def finite(content: Any) -> Any:
  """Returns the content with None for every number that is not finite, since JSON has no NaN.

  Example:
    >>> finite({'loss': float('nan'), 'phases': [1.0, float('inf')]})
    {'loss': None, 'phases': [1.0, None]}
  """
  if isinstance(content, dict):
    return {key: finite(value) for key, value in content.items()}
  if isinstance(content, list | tuple):
    return [finite(value) for value in content]
  return None if isinstance(content, float) and not math.isfinite(content) else content


@contextlib.contextmanager
def naming_full_disk(path: pathlib.Path, needed: int = 0) -> Generator[None]:
  """Turns whatever a writer raises on a full disk into an OSError that says so.

  Args:
    path: the path that is being written.
    needed: the bytes that writing takes; if fewer are free, nothing is written.
  """

  def full(cause=None):
    raise OSError(errno.ENOSPC, 'no space left on the disk', str(path)) from cause

  if shutil.disk_usage(path).free < needed:
    full()
  try:
    yield
  except Exception as error:
    # An errno is trusted; writers in other languages give at most its words.
    if not (isinstance(error, OSError) and error.errno is not None):
      says_so = any(os.strerror(number) in str(error) for number in FULL_DISK)
      if says_so or shutil.disk_usage(path).free < needed:
        full(error)
    raise
