"""Checkpoints: Orbax writes the arrays, masks as bits; a manifest of digests completes them.

Beside the arrays are notes.json (the checkpoint's owner, the arrays' shapes, and the run's own
notes: its seconds and phases) and the lines of metrics up to its step. A checkpoint is written
under a hidden name and gets its own name when it is whole, so that a kill leaves a whole one or
none.

Nothing that a person may still need is deleted because it cannot be read. A folder whose files
disagree with the manifest's digests is damaged: it is renamed, and the checkpoint before it is
used. An error of the disk says nothing about the files, and ends the run.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from sparsejax.experiment.machine import files, parallel
from sparsejax.experiment.machine.transfer import from_host, shaped_as_on_host, to_host
from sparsejax.experiment.terminal.errors import UnreadableError, in_one_line
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.packing import pack_masks, unpack_masks

MANIFEST = 'manifest.json'
ARRAYS = 'arrays'
NOTES = 'notes.json'
STEP = re.compile(r'\d{9}')  # the name of a step's folder
HIDDEN = '.'  # the first character of the name of anything being written or removed
BEST = 'best'  # the folder, beside the steps', of the network that a finished run delivers
POSTERIOR = 'posterior'  # the folder of the posterior that a variational network was deployed from


class Owner(NamedTuple):
  """The run that a checkpoint belongs to: its experiment's hash and its seed."""

  hash: str
  seed: int

  @classmethod
  def named_in(cls, record: Mapping[str, Any]) -> 'Owner':
    """Returns the run that a config, a summary or a checkpoint's notes name as theirs.

    Raises:
      KeyError: they lack the hash or the seed.
    """
    return cls(record['hash'], record['seed'])

  def __str__(self):
    return f'{self.hash}, seed {self.seed}'


def common_owner(config: Mapping[str, Any], summary: Mapping[str, Any]) -> Owner:
  """Returns the run that the config and the summary in one directory both name as theirs.

  Raises:
    ValueError: they name two runs.
    KeyError: one lacks the hash of the experiment or the seed.
  """
  owner, summary_owner = Owner.named_in(config), Owner.named_in(summary)
  if owner != summary_owner:
    raise ValueError(
      f'its {files.CONFIG} is of the run {owner}, its {files.SUMMARY} of {summary_owner}'
    )
  return owner


class Restored(NamedTuple):
  """A checkpoint read back."""

  step: int
  state: Any
  notes: dict[str, Any]


def save(
  root: pathlib.Path,
  owner: Owner,
  step: int,
  state: Any,
  notes: dict[str, Any],
  *,
  keep: int,
  metrics: str = '',
) -> None:
  """Commits the state of a step, then removes all but the newest `keep` (at least 1).

  A step that is already committed stays as it is, since its state can only be the same. The step is
  noted beside `root`, so that a run whose checkpoints are gone does not silently begin again.

  Args:
    root: the folder of checkpoints.
    owner: the run.
    step: the number of updates made.
    state: any pytree.
    notes: the seconds trained so far and the figures of each phase.
    keep: the number of checkpoints to keep.
    metrics: the text of metrics.jsonl up to this step.

  Raises:
    OSError: ENOSPC on a full disk; existing checkpoints are untouched.
  """
  folder = root / f'{step:09d}'
  if not (folder / MANIFEST).exists():
    write(folder, owner, state, notes, metrics)
  files.write_json(root.with_name(files.PROGRESS), {**owner._asdict(), 'saved_step': step})
  for old in committed(root)[: -max(keep, 1)]:
    _remove(old)


def write(
  folder: pathlib.Path, owner: Owner, state: Any, notes: dict[str, Any], metrics: str = ''
) -> None:
  """Writes one checkpoint whole, replacing any of the same name."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  hidden = folder.with_name(f'{HIDDEN}{folder.name}.writing')
  shutil.rmtree(hidden, ignore_errors=True)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  try:
    with files.naming_full_disk(folder.parent, needed=size):
      hidden.mkdir()
      with _checkpointer() as checkpointer:
        checkpointer.save((hidden / ARRAYS).absolute(), to_host(pack_masks(state)))
      content = {**owner._asdict(), 'shapes': _shapes(state), 'host': notes}
      files.write_json(hidden / NOTES, content)
      files.write_atomically(hidden / files.METRICS, metrics)
      files.write_json(hidden / MANIFEST, _digests(hidden))
  except BaseException:
    shutil.rmtree(hidden, ignore_errors=True)
    raise
  if folder.exists():
    _remove(folder)
  hidden.rename(folder)


def restore_newest(root: pathlib.Path, owner: Owner, like: Any) -> Restored | None:
  """Returns the newest whole checkpoint, or None if there is none.

  Damaged ones are renamed and kept.

  Args:
    root: the folder of checkpoints.
    owner: the run that they must belong to.
    like: a state of the same structure, shapes and dtypes.

  Raises:
    ForeignError: a whole checkpoint belongs to another run.
    UnreadableError: the disk gave an error; nothing was changed.
    ValueError: a whole checkpoint has another structure.
  """
  with _disk_errors_as_unreadable(root):
    for hidden in root.glob(f'{HIDDEN}*'):  # left by a process that was killed while writing
      shutil.rmtree(hidden, ignore_errors=True)
    for folder in reversed(_folders(root)):
      if not (folder / MANIFEST).exists():
        kept = files.set_aside(folder, 'unfinished')
        logging.warning('checkpoint %s has no %s; it is now %s', folder, MANIFEST, kept.name)
        continue
      try:
        state, notes = read(folder, like, owner)
      except DamagedError as error:
        kept = files.set_aside(folder, 'damaged')
        logging.warning('%s; it is now %s, and the one before it is used', error, kept.name)
        continue
      return Restored(int(folder.name), state, notes)
  return None


def read_metrics(root: pathlib.Path, step: int) -> str:
  """Returns the text of metrics.jsonl in the checkpoint of a step, or '' if it has none."""
  file = root / f'{step:09d}' / files.METRICS
  return file.read_text() if file.exists() else ''


class DamagedError(ValueError):
  """A checkpoint has other files than those that were committed."""


class ForeignError(ValueError):
  """A checkpoint belongs to another run, or does not say to which."""


MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def read(
  folder: pathlib.Path, like: Any, owner: Owner | None = None, *, is_finished: bool = False
) -> tuple[Any, dict[str, Any]]:
  """Returns the state, replicated over the devices, and the notes saved with it.

  Args:
    folder: the folder of the checkpoint.
    like: a state of the same structure, shapes and dtypes.
    owner: the run that it must belong to; None takes any run's.
    is_finished: whether it comes from a finished run; its notes may then lack the owner, so that
      only `owner` names it.

  Raises:
    DamagedError: a file is missing, cut short or changed.
    ForeignError: the checkpoint is whole, but belongs to another run.
    UnreadableError: the disk gave an error.
    ValueError: the checkpoint is whole, but has another structure.
  """
  with _disk_errors_as_unreadable(folder):
    content = _checked_notes(folder)
    if owner is not None:
      found = _parse_owner(content, folder, default=owner if is_finished else None)
      if found != owner:
        raise ForeignError(f'checkpoint {folder} is of the run {found}, and this run is {owner}')
    _check_shapes(folder, content['shapes'], _shapes(like))
    packed = jax.eval_shape(pack_masks, like)
    try:
      with _checkpointer() as checkpointer:
        arrays = checkpointer.restore((folder / ARRAYS).absolute(), shaped_as_on_host(packed))
    except Exception as error:  # the digests matched above, so this is the disk, not damage
      raise UnreadableError(
        f'checkpoint {folder} could not be read: {in_one_line(error)}'
      ) from error
  state = unpack_masks(from_host(arrays, packed), like)
  return parallel.replicate(state), content['host']


def _checked_notes(folder: pathlib.Path) -> dict[str, Any]:
  """The notes of a checkpoint, if all its files are as they were committed."""
  try:
    manifest = dict(files.read_json(folder / MANIFEST))
    wrong = [f for f in {*manifest, NOTES} if files.digest(folder / f) != manifest.get(f)]
    if not wrong:
      return files.read_json(folder / NOTES)
  except (*MISSING, ValueError, TypeError) as error:
    raise DamagedError(f'checkpoint {folder} is damaged ({error})') from None
  raise DamagedError(f'checkpoint {folder} is damaged ({wrong[0]} is not as it was written)')


def read_owner(folder: pathlib.Path, known: Owner | None = None) -> Owner:
  """Returns the run that a checkpoint belongs to, from its notes.

  Args:
    folder: the folder of the checkpoint.
    known: the run that a finished run's other files name, used if the checkpoint says nothing.

  Raises:
    DamagedError: a file is missing, cut short or changed.
    ForeignError: the checkpoint does not say.
    UnreadableError: the disk gave an error.
  """
  with _disk_errors_as_unreadable(folder):
    return _parse_owner(_checked_notes(folder), folder, known)


def _parse_owner(
  notes: dict[str, Any], folder: pathlib.Path, default: Owner | None = None
) -> Owner:
  """Returns the run that a checkpoint's notes name, or `default` if they are too old to name it."""
  if default is not None and not notes.keys() & set(Owner._fields):
    logging.warning(
      'checkpoint %s is too old to name its run; according to %s it is of the run %s',
      folder,
      files.SUMMARY,
      default,
    )
    return default
  try:
    return Owner.named_in(notes)
  except KeyError:
    raise ForeignError(f'checkpoint {folder} does not say which run it is of') from None


@contextlib.contextmanager
def _disk_errors_as_unreadable(place: pathlib.Path) -> Generator[None]:
  """Turns an error of the disk into one that says where it happened and that nothing was lost."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or in_one_line(error)
    raise UnreadableError(
      f'{error.filename or place} could not be read: {reason}; nothing was changed; give the same '
      'command again once it can be read'
    ) from error


def _checkpointer():
  """Orbax's checkpointer; of several processes only the first comes here, and waits for none."""
  import orbax.checkpoint as ocp

  own = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
  return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _shapes(state: Any) -> dict[str, str]:
  """The dtype and shape of every leaf, as text by path."""
  return {path: f'{x.dtype}{list(x.shape)}' for path, x in tree.named_leaves(state).items()}


def read_shapes(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the shapes in a checkpoint of nested dicts, from its notes."""
  found: dict[str, Any] = {}
  for path, text in files.read_json(folder / NOTES)['shapes'].items():
    dtype, _, sides = text.partition('[')
    *parents, last = path.split('/')
    block = found
    for parent in parents:
      block = block.setdefault(parent, {})
    block[last] = jax.ShapeDtypeStruct(tuple(json.loads(f'[{sides}')), dtype)
  return found


def _check_shapes(folder: pathlib.Path, there: dict[str, str], here: dict[str, str]) -> None:
  """Raises a ValueError of one line if they differ; Orbax would cast, or use fifty lines."""
  for path in {**there, **here}:
    if there.get(path) != here.get(path):
      raise ValueError(
        f'checkpoint {folder}: {path} is {there.get(path, "missing")} there, but must be '
        f'{here.get(path, "absent")}'
      )


def check_source(run: str | None) -> None:
  """Raises a ValueError unless `run`, if given, is the directory of a whole finished run."""
  if run is None:
    return
  folder, summary = best_folder(run), pathlib.Path(run) / files.SUMMARY
  if not (folder / MANIFEST).exists() or not summary.exists():
    raise ValueError(f'init_from={run} must be the directory of a finished run')
  try:
    owner = Owner.named_in(files.read_json(summary))
    found = read_owner(folder, owner)
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f'init_from={run}: {in_one_line(error)}') from None
  if found != owner:
    raise ValueError(
      f'init_from={run}: its {files.SUMMARY} is of the run {owner}, but its network is of the run '
      f'{found}; both must be of the same run'
    )


def source_digest(run: str | None) -> str | None:
  """Returns the sha256 of the manifest of the network that a run delivered; None without a run."""
  return None if run is None else files.digest(best_folder(run) / MANIFEST)


def best_folder(run: str) -> pathlib.Path:
  """Returns the folder with the network that a finished run delivers."""
  return pathlib.Path(run) / files.CHECKPOINTS / BEST


def committed(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the committed checkpoints of steps, oldest first."""
  return [folder for folder in _folders(root) if (folder / MANIFEST).exists()]


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
  """The folders of steps, oldest first. `Path.glob` would take an unreadable folder for empty."""
  try:
    names = os.listdir(root)
  except FileNotFoundError:
    return []
  return [root / name for name in sorted(names) if STEP.fullmatch(name)]


def _remove(folder: pathlib.Path) -> None:
  """Removes a checkpoint under a hidden name, since half a removal must not look like damage."""
  hidden = folder.with_name(f'{HIDDEN}{folder.name}.removing')
  shutil.rmtree(hidden, ignore_errors=True)
  folder.rename(hidden)
  shutil.rmtree(hidden, ignore_errors=True)


def _digests(folder: pathlib.Path) -> dict[str, str]:
  found = sorted(path for path in folder.rglob('*') if path.is_file())
  return {str(path.relative_to(folder)): files.digest(path) for path in found}
