"""The folder of a shipment: created atomically and never overwritten."""

import contextlib
import fcntl
import glob
import os
import pathlib
import shutil
import uuid
from collections.abc import Generator, Mapping
from typing import Any

from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import digests
from sparsejax.experiment.terminal.errors import UsageError

EMPTY = 'it must be a new or an empty folder'


def read_existing(out: pathlib.Path, shipment: Mapping[str, Any]) -> dict[str, Any] | None:
  """Returns the measurements of the same shipment from its folder, or None if it is empty.

  Args:
    out: the folder, which need not exist.
    shipment: what identifies the shipment, as in shipped.json.

  Raises:
    UsageError: the folder cannot be written, holds something else, or its files are damaged.
  """
  try:
    names = os.listdir(out) if out.exists() else []
    if not names:
      _check_is_writable(out)
      return None
    measurements = files.read_json(out / files.SHIPPED) if files.SHIPPED in names else None
  except OSError as error:
    raise UsageError(f'--out={out}: {error.strerror}; {EMPTY}') from error
  except ValueError as error:
    raise UsageError(f'--out={out}: its {files.SHIPPED} is damaged ({error}); {EMPTY}') from error
  if not isinstance(measurements, dict) or measurements.get('shipment') != shipment:
    what = 'holds other files' if measurements is None else 'holds another shipment'
    raise UsageError(f'--out={out} {what}; {EMPTY}')
  found = digests.of_content(measurements)
  if measurements.get(digests.KEY, found) != found:  # older shipments have no digest
    raise UsageError(f'--out={out}: its {files.SHIPPED} is not as it was written; {EMPTY}')
  for name, written in sorted(_digests(measurements).items()):
    if not (out / name).is_file() or files.digest(out / name) != written:
      raise UsageError(f'--out={out}: its {name} is not as {files.SHIPPED} says; {EMPTY}')
  return measurements


def _digests(measurements: Mapping[str, Any]) -> dict[str, str]:
  """Returns the digest of every file in shipped.json.

  If shipped.json has none, the result is a wrong digest of itself, so that it counts as damaged.
  """
  try:
    return {name: row['sha256'] for name, row in measurements['files'].items()}
  except (AttributeError, KeyError, TypeError):
    return {files.SHIPPED: ''}


def _check_is_writable(out: pathlib.Path) -> None:
  """Raises a UsageError unless the folder can be created, or replaced if it exists and is empty."""
  out = out.resolve()
  if os.path.ismount(out):
    raise UsageError(f'--out={out} must be a folder in a mounted disk, not the mounted disk itself')
  existing = next(path for path in (out, *out.parents) if path.exists())
  parent = existing.parent if existing == out else existing
  if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
    raise UsageError(f'--out={out} must be a folder that can be written in {parent}')


@contextlib.contextmanager
def create_atomically(out: pathlib.Path) -> Generator[pathlib.Path]:
  """Context manager of a hidden folder beside `out`, which is renamed to `out` at the end.

  `out` therefore never exists with only some of its files. An error removes the hidden folder,
  unless only the renaming failed. A hidden folder that a killed process left is removed, unless it
  is complete.

  Raises:
    UsageError: the finished folder cannot be renamed to `out`; the message says where it is.
  """
  out = out.resolve()
  out.parent.mkdir(parents=True, exist_ok=True)
  _remove_abandoned(out)
  hidden, lock = _make_hidden(out)
  try:
    yield hidden
  except BaseException:
    shutil.rmtree(hidden, ignore_errors=True)
    raise
  finally:
    os.close(lock)
  try:
    os.rename(hidden, out)
  except OSError as error:
    raise UsageError(f'--out={out}: {error.strerror}; the finished shipment is {hidden}') from error


def _make_hidden(out: pathlib.Path) -> tuple[pathlib.Path, int]:
  """Creates a hidden folder beside `out`; returns it, and a lock that ends with this process."""
  while True:
    hidden = out.with_name(f'.{out.name[:100]}.{uuid.uuid4().hex}.tmp')
    hidden.mkdir()
    try:
      lock = os.open(hidden, os.O_RDONLY)
    except FileNotFoundError:  # another process took it for abandoned before it was locked
      continue
    with contextlib.suppress(OSError):  # some disks have no locks
      fcntl.flock(lock, fcntl.LOCK_EX)
    if hidden.exists():
      return hidden, lock
    os.close(lock)


def _remove_abandoned(out: pathlib.Path) -> None:
  """Removes the hidden folders beside `out` that no process holds, but not a whole shipment."""
  pattern = f'.{glob.escape(out.name[:100])}.{"[0-9a-f]" * 32}.tmp'
  for path in out.parent.glob(pattern):
    with contextlib.suppress(OSError):  # another process holds it
      lock = os.open(path, os.O_RDONLY)
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (path / files.SHIPPED).exists():
          shutil.rmtree(path, ignore_errors=True)
      finally:
        os.close(lock)


def describe_files(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns {name of a file: {'bytes': its size, 'sha256': its digest}}."""
  return {
    path.name: {'bytes': path.stat().st_size, 'sha256': files.digest(path)}
    for path in sorted(folder.iterdir())
  }
