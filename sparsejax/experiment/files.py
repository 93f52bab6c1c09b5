"""Files that are whole or not there, and the one way in which a full disk shows."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a text file so that a reader, or a kill, finds either the old one or the new one."""
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
  try:
    with os.fdopen(handle, 'w') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes JSON atomically, one key a line."""
  write_atomically(path, json.dumps(content, indent=2) + '\n')


@contextlib.contextmanager
def naming_full_disk(path: pathlib.Path, needed: int = 0) -> Iterator[None]:
  """Turns whatever a writer raises on a full disk into the OSError that it is.

  Args:
    path: where is being written.
    needed: bytes that writing takes; too few free bytes are refused before anything is written.
  """

  def full(cause=None):
    raise OSError(errno.ENOSPC, 'no space left on the disk', str(path)) from cause

  if shutil.disk_usage(path).free < needed:
    full()
  try:
    yield
  except OSError:
    raise
  except Exception as error:
    if 'No space left' in str(error) or shutil.disk_usage(path).free < needed:
      full(error)
    raise
