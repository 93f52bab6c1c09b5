"""The folder of a shipment: it appears whole, and is never written over."""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Generator, Mapping
from typing import Any

from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.errors import UsageError

SHIPPED = 'shipped.json'
EMPTY = 'it must be a new or an empty folder'


def earlier(out: pathlib.Path, shipment: Mapping[str, Any]) -> dict[str, Any] | None:
  """Returns the figures of this very shipment, if the folder holds it whole, else None.

  Args:
    out: the folder; it may be missing.
    shipment: what decides what is in it.

  Raises:
    UsageError: it cannot be written, or holds something else.
  """
  try:
    names = os.listdir(out) if out.exists() else []
    if not names:
      _check_is_writable(out)
      return None
    found = files.read_json(out / SHIPPED) if SHIPPED in names else None
  except OSError as error:
    raise UsageError(f'--out={out}: {error.strerror}; {EMPTY}') from error
  except ValueError as error:
    raise UsageError(f'--out={out}: its {SHIPPED} is damaged ({error}); {EMPTY}') from error
  if not isinstance(found, dict) or found.get('shipment') != shipment:
    what = 'holds other files' if found is None else 'holds another shipment'
    raise UsageError(f'--out={out} {what}; {EMPTY}')
  for name in sorted(_told(found)):
    if not (out / name).is_file() or files.digest(out / name) != _told(found)[name]:
      raise UsageError(f'--out={out}: its {name} is not as {SHIPPED} says; {EMPTY}')
  return found


def _told(figures: Mapping[str, Any]) -> dict[str, str]:
  """Returns the digest of every file, as shipped.json tells it; of a damaged one, its own."""
  try:
    return {name: row['sha256'] for name, row in figures['files'].items()}
  except (AttributeError, KeyError, TypeError):
    return {SHIPPED: ''}


def _check_is_writable(out: pathlib.Path) -> None:
  there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
  where = there.parent if there == out.absolute() else there  # an empty folder is replaced
  if not where.is_dir() or not os.access(where, os.W_OK | os.X_OK):
    raise UsageError(f'--out={out} must be a folder that can be written in {where}')


@contextlib.contextmanager
def made(out: pathlib.Path) -> Generator[pathlib.Path]:
  """Gives a hidden folder beside `out`, which becomes `out` when the block ends.

  A reader, or a kill, finds nothing or all of it; an error leaves nothing.
  """
  out = out.absolute()
  out.parent.mkdir(parents=True, exist_ok=True)
  hidden = out.with_name(f'.{out.name[:100]}.{uuid.uuid4().hex}.tmp')
  try:
    hidden.mkdir()
    yield hidden
    os.rename(hidden, out)
  except BaseException:
    shutil.rmtree(hidden, ignore_errors=True)
    raise


def told_files(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns the bytes and the digest of every file, by name."""
  return {
    path.name: {'bytes': path.stat().st_size, 'sha256': files.digest(path)}
    for path in sorted(folder.iterdir())
  }
