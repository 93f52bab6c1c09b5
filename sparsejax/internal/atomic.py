"""A file that is replaced whole: a reader, or a kill, finds the old one or the new one."""

import contextlib
import os
import pathlib
import re
import uuid
from collections.abc import Generator

TEMPORARY = re.compile(r'\..+\.[0-9a-f]{32}\.tmp')  # what `replacing` calls a file


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Generator[pathlib.Path]:
  """Gives a temporary file beside `path`, which takes its place once it is written.

  A reader, or a kill, finds either the old file or the new one.
  """
  # tempfile is no help: only the owner may read the files that it makes.
  # The name is random because containers that share a folder can have the same process numbers.
  # A long name is cut, so that the temporary one stays within the 255 bytes that a name may have.
  name = os.fsencode(path.name)[:200].decode(errors='ignore')
  temporary = path.with_name(f'.{name}.{uuid.uuid4().hex}.tmp')
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def write_synced(path: pathlib.Path, data: bytes | bytearray) -> None:
  """Writes a file and waits until the disk holds it."""
  with path.open('wb') as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
