"""Checkpoints: Orbax writes the arrays, masks as bits; a manifest written last makes them count.

Beside the arrays lie the notes: the arrays' shapes, and what the host knows (phases, seconds). The
manifest holds the sha256 of every file. A folder without one was cut short and never existed; a
folder whose files disagree with it is refused, and the checkpoint before it is used.
"""

import hashlib
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
from absl import logging

from sparsejax.experiment import files, parallel
from sparsejax.experiment.state import from_host, shaped_as_on_host, to_host
from sparsejax.sparsity import tree
from sparsejax.sparsity.packing import pack_masks, unpack_masks

MANIFEST = 'manifest.json'
ARRAYS = 'arrays'
NOTES = 'notes.json'
STEPS = '[0-9]' * 9  # matches the folders of steps
BEST = 'best'  # the folder, beside those of the steps, of the network that a finished run delivers
POSTERIOR = 'posterior'  # and of what a variational one was deployed from


class Restored(NamedTuple):
  """A checkpoint read back."""

  step: int
  state: Any
  host: dict[str, Any]


def save(root: pathlib.Path, step: int, state: Any, host: dict[str, Any], *, keep: int) -> None:
  """Commits the state of a step, then removes all but the newest `keep`, which is at least 1.

  A step that is committed already stays as it is: its state could be no other.

  Raises:
    OSError: ENOSPC on a full disk; the checkpoints that were there are untouched.
  """
  folder = root / f'{step:09d}'
  if not (folder / MANIFEST).exists():
    write(folder, state, host)
  for old in committed(root)[: -max(keep, 1)]:
    _remove(old)


def write(folder: pathlib.Path, state: Any, host: dict[str, Any]) -> None:
  """Writes one checkpoint: arrays and notes, then the manifest that commits them."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  _remove(folder)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  try:
    with files.naming_full_disk(folder.parent, needed=size):
      folder.mkdir()
      with _checkpointer() as checkpointer:
        checkpointer.save((folder / ARRAYS).absolute(), to_host(pack_masks(state)))
      files.write_json(folder / NOTES, {'shapes': _shapes(state), 'host': host})
      files.write_json(folder / MANIFEST, _digests(folder))
  except BaseException:
    _remove(folder)
    raise


def restore_newest(root: pathlib.Path, like: Any) -> Restored | None:
  """Returns the newest checkpoint that is whole, or None where there is none.

  Args:
    root: the folder of checkpoints.
    like: a state of the same structure, shapes and dtypes.
  """
  for folder in root.glob(STEPS):
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
  try:
    manifest = dict(json.loads((folder / MANIFEST).read_text()))
    wrong = [f for f in {*manifest, NOTES} if _digest(folder / f) != manifest.get(f)]
  except (OSError, ValueError, TypeError) as error:
    raise DamagedError(f'checkpoint {folder} is damaged ({error})') from None
  if wrong:
    raise DamagedError(f'checkpoint {folder} is damaged ({wrong[0]} is not as it was written)')
  notes = json.loads((folder / NOTES).read_text())
  _check_shapes(folder, notes['shapes'], _shapes(like))
  packed = jax.eval_shape(pack_masks, like)
  with _checkpointer() as checkpointer:
    arrays = checkpointer.restore((folder / ARRAYS).absolute(), shaped_as_on_host(packed))
  return parallel.replicate(unpack_masks(from_host(arrays, packed), like)), notes['host']


def _checkpointer():
  """Orbax's; of several processes that train as one only the first is here, and waits for none."""
  import orbax.checkpoint as ocp

  own = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
  return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _shapes(state: Any) -> dict[str, str]:
  """Every leaf's dtype and shape by path, as text."""
  return {path: f'{x.dtype}{list(x.shape)}' for path, x in tree.named_leaves(state).items()}


def shapes_of(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the shapes of a checkpoint of nested dicts, as its notes have them."""
  found: dict[str, Any] = {}
  for path, text in json.loads((folder / NOTES).read_text())['shapes'].items():
    dtype, _, sides = text.partition('[')
    *parents, last = path.split('/')
    block = found
    for parent in parents:
      block = block.setdefault(parent, {})
    block[last] = jax.ShapeDtypeStruct(tuple(json.loads(f'[{sides}')), dtype)
  return found


def _check_shapes(folder: pathlib.Path, there: dict[str, str], here: dict[str, str]) -> None:
  """Raises a ValueError of one line where they differ: Orbax would cast, or say it in fifty."""
  for path in {**there, **here}:
    if there.get(path) != here.get(path):
      raise ValueError(
        f'checkpoint {folder}: {path} is {there.get(path, "missing")} there; needed is '
        f'{here.get(path, "nothing")}'
      )


def check_source(run: str | None) -> None:
  """Raises a ValueError unless `run`, if given, is the directory of a finished run."""
  if run is not None and not (source_of(run) / MANIFEST).exists():
    raise ValueError(f'init_from={run}: allowed is the directory of a finished run')


def source_digest(run: str | None) -> str | None:
  """Returns the sha256 of the manifest of the network that a finished run delivers."""
  return None if run is None else _digest(source_of(run) / MANIFEST)


def source_of(run: str) -> pathlib.Path:
  """Returns the folder with the network that a finished run delivers."""
  return pathlib.Path(run) / files.CHECKPOINTS / BEST


def committed(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the committed checkpoints of steps, oldest first."""
  return sorted(f for f in root.glob(STEPS) if (f / MANIFEST).exists())


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
