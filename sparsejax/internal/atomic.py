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
  # Not by tempfile, whose files nobody but the owner may read.
  # Containers that share a folder can have the same process numbers.
  # Of a long name only so much that the temporary one, too, has the 255 bytes that a name may have.
  name = os.fsencode(path.name)[:200].decode(errors='ignore')
  temporary = path.with_name(f'.{name}.{uuid.uuid4().hex}.tmp')
  try:
    yield temporary
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
