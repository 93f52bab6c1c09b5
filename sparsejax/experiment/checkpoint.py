"""Checkpoints: Orbax writes the arrays, a manifest written last makes them count.

The manifest lists the sha256 of every file and carries what the host knows (phases, seconds). A
folder without one was cut short and never existed; a folder whose files disagree with it is
refused, and the checkpoint before it is used.
"""

import hashlib
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
from absl import logging

from sparsejax.experiment import files, parallel

MANIFEST = 'manifest.json'
ARRAYS = 'arrays'
BEST = 'best'  # the folder, beside those of the steps, of the network that a finished run delivers


class Restored(NamedTuple):
  """A checkpoint read back."""

  step: int
  state: Any
  host: dict[str, Any]


def save(root: pathlib.Path, step: int, state: Any, host: dict[str, Any], *, keep: int) -> None:
  """Commits the state of a step, then removes all but the newest `keep`.

  Raises:
    OSError: ENOSPC on a full disk; the checkpoints that were there are untouched.
  """
  folder = root / f'{step:09d}'
  write(folder, state, host)
  for old in committed(root)[:-keep]:
    _remove(old)


def write(folder: pathlib.Path, state: Any, host: dict[str, Any]) -> None:
  """Writes one checkpoint: arrays, then the manifest that commits it."""
  import orbax.checkpoint as ocp

  folder.parent.mkdir(parents=True, exist_ok=True)
  _remove(folder)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  try:
    with files.naming_full_disk(folder.parent, needed=size):
      folder.mkdir()
      with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / ARRAYS).absolute(), state)
      files.write_json(folder / MANIFEST, {'host': host, 'sha256': _digests(folder)})
  except BaseException:
    _remove(folder)
    raise


def restore_newest(root: pathlib.Path, like: Any) -> Restored | None:
  """Returns the newest checkpoint that is whole, or None where there is none.

  Args:
    root: the folder of checkpoints.
    like: a state of the same structure, shapes and dtypes.
  """
  for folder in sorted(root.glob('[0-9]*')) if root.exists() else []:
    if not (folder / MANIFEST).exists():
      _remove(folder)
  for folder in reversed(committed(root)):
    try:
      state, host = read(folder, like)
    except DamagedError as error:
      logging.warning('%s; using the one before it', error)
      _remove(folder)
      continue
    return Restored(int(folder.name), state, host)
  return None


class DamagedError(ValueError):
  """A checkpoint whose files are not the ones that were committed."""


def read(folder: pathlib.Path, like: Any) -> tuple[Any, dict[str, Any]]:
  """Returns the state, replicated over the devices, and what the host had noted.

  Raises:
    DamagedError: a file is missing, cut short or changed.
    ValueError: the checkpoint is whole, but of another structure.
  """
  import orbax.checkpoint as ocp

  try:
    manifest = json.loads((folder / MANIFEST).read_text())
    wrong = [f for f, digest in manifest['sha256'].items() if _digest(folder / f) != digest]
  except (OSError, ValueError, KeyError) as error:
    raise DamagedError(f'checkpoint {folder} is damaged ({error})') from None
  if wrong:
    raise DamagedError(f'checkpoint {folder} is damaged ({wrong[0]} is not as it was written)')
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  with ocp.StandardCheckpointer() as checkpointer:
    state = checkpointer.restore((folder / ARRAYS).absolute(), abstract)
  return parallel.replicate(state), manifest['host']


def check_source(run: str | None) -> None:
  """Raises a ValueError unless `run`, if given, is the directory of a finished run."""
  if run is not None and not (source_of(run) / MANIFEST).exists():
    raise ValueError(f'init_from={run}: allowed is the directory of a finished run')


def source_of(run: str) -> pathlib.Path:
  """Returns the folder with the network that a finished run delivers."""
  return pathlib.Path(run) / 'checkpoints' / BEST


def committed(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the committed checkpoints of steps, oldest first."""
  return sorted(f for f in root.glob('[0-9]*') if (f / MANIFEST).exists())


def _remove(folder: pathlib.Path) -> None:
  """Removes a checkpoint, its manifest first: half a removal must not look like a damaged one."""
  (folder / MANIFEST).unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)


def _digests(folder: pathlib.Path) -> dict[str, str]:
  found = sorted(path for path in folder.rglob('*') if path.is_file())
  return {str(path.relative_to(folder)): _digest(path) for path in found}


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
