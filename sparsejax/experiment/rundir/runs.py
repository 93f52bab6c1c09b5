"""The run directory: its place, its owner, and the lock that admits one process at a time."""

import fcntl
import os
import pathlib
import weakref
from collections.abc import Mapping
from typing import Any

from absl import logging

from sparsejax.experiment.config.identity import hashed_settings
from sparsejax.experiment.machine import files, provenance
from sparsejax.experiment.rundir import checkpoint, digests
from sparsejax.experiment.terminal.errors import BusyError, UsageError
from sparsejax.experiment.terminal.say import shown

BEFORE = 'before-restart'  # the beginning of the name of a folder for a run's earlier files


class RunDirectory:
  """A run directory that this object locks until `close` or the end of the process.

  Training writes `config.json`, `environment.json`, `metrics.jsonl`, `progress.json` and
  `checkpoints/`; the end of a run adds `trace.png`, `digests.json` and, last, `summary.json`.

  Raises:
    UsageError: another process uses it, it belongs to another experiment or seed, or it cannot be
      created or written.
  """

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any], experiment_hash: str):
    self.path = path
    self.owner = checkpoint.Owner(experiment_hash, config['seed'])
    try:
      if not (path / '.lock').exists():  # another owner's folder is left as it is
        self._is_new()
      path.mkdir(parents=True, exist_ok=True)
      lock = os.open(path / '.lock', os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
      if error.errno in files.FULL_DISK:
        raise
      raise UsageError(f'workdir={path}: {error.strerror}; it must be a writable folder') from error
    # The operating system drops the lock with the process, so a killed one leaves none behind.
    self.close = weakref.finalize(self, os.close, lock)
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if self._is_new():
        files.write_json(path / files.CONFIG, {'hash': experiment_hash} | dict(config))
      else:
        self._check_settings(config)
      files.drop_temporary(path)
    except BlockingIOError:
      self.close()
      raise BusyError(f'workdir={path}: another process is training there') from None
    except BaseException:
      self.close()
      raise

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()

  def _is_new(self) -> bool:
    """Returns whether there is no run here yet; refuses the run of another experiment."""
    file = self.path / files.CONFIG
    advice = 'give an empty directory or the same experiment'
    if not file.exists():
      there = self.path.iterdir() if self.path.is_dir() else ()
      if others := sorted(entry.name for entry in there if entry.name[0] != '.'):
        raise UsageError(f'workdir={self.path}: it holds {others[0]}, but no run; {advice}')
      return True
    self._check_owner(self._read(file), 'it holds a run', advice)
    return False

  def _check_owner(self, found: Any, what: str, advice: str) -> None:
    """Refuses a file that says that it belongs to another run."""
    for field, mine in self.owner._asdict().items():
      if found.get(field) != mine:
        raise UsageError(
          f'workdir={self.path}: {what} with {field} {found.get(field)}, this one has {mine}; '
          f'{advice}'
        )

  def _check_settings(self, config: Mapping[str, Any]) -> None:
    """Refuses an edited config.json, because later readers of the run would believe it."""
    kept = hashed_settings(self._read(self.path / files.CONFIG))
    for field, mine in hashed_settings(config).items():
      if field in kept and kept[field] != mine:  # a field newer than the run is absent
        raise UsageError(
          f'workdir={self.path}: its {files.CONFIG} has {field}={shown(kept[field])}, but the run '
          f'with its hash has {shown(mine)}; {files.CONFIG} must be as the run wrote it'
        )

  def _read(self, file: pathlib.Path, kind: type = dict) -> Any:
    try:
      found = files.read_json(file)
    except (IsADirectoryError, ValueError) as error:
      raise UsageError(f'workdir={self.path}: its {file.name} is damaged ({error})') from None
    if not isinstance(found, kind):
      raise UsageError(f'workdir={self.path}: its {file.name} is damaged (no {kind.__name__})')
    return found

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / files.CHECKPOINTS

  @property
  def summary(self) -> dict[str, Any] | None:
    """The summary, or None until the run is finished.

    Raises:
      UsageError: the summary is damaged, or belongs to another run.
    """
    file = self.path / files.SUMMARY
    if not file.exists():
      return None
    found = self._read(file)
    advice = f'{files.SUMMARY} must be the one that this run wrote'
    self._check_owner(found, f'its {files.SUMMARY} is of a run', advice)
    digests.warn(self.path)
    return found

  @property
  def saved_step(self) -> int | None:
    """The newest step saved here; -1 if the step is unknown, None if none was saved."""
    file = self.path / files.PROGRESS
    if not file.exists():
      return None
    step = self._read(file).get('saved_step')
    return step if isinstance(step, int) else -1

  def set_aside(self) -> None:
    """Moves all the run's files to a folder of their own, so that it begins at step 0."""
    stays = (files.CONFIG, files.ENVIRONMENT, '.lock')
    made = [p for p in self.path.iterdir() if p.name not in stays and BEFORE not in p.name]
    if not made:
      return
    place = files.numbered(self.path / BEFORE, 1)
    place.mkdir()
    for path in made:
      path.rename(place / path.name)
    logging.warning('the earlier files of the run are now in %s', place)

  def note_start(self) -> None:
    """Adds this start to environment.json, and warns if the code or XLA's flags have changed."""
    file = self.path / files.ENVIRONMENT
    starts = self._read(file, list) if file.exists() else []
    if not all(isinstance(start, dict) for start in starts):
      raise UsageError(f'workdir={self.path}: its {files.ENVIRONMENT} is damaged')
    now = self.owner._asdict() | provenance.environment()
    before = now | starts[-1] if starts else now  # newer fields are unknown for earlier starts
    for field in ('git_commit', 'git_dirty', 'versions', 'xla_flags'):
      if before[field] != now[field]:
        logging.warning('resuming under another %s: %s, now %s', field, before[field], now[field])
    files.write_json(file, [*starts, now])


def num_classes(summary: Mapping[str, Any]) -> int | None:
  """Returns the number of classes in a run's summary, or None if it has none.

  In older summaries, which have no `num_classes`, it is the number of units of the last layer.

  Example:
    >>> num_classes({'layers': {'fc1': {'units': 300}, 'fc2': {'units': 10}}})
    10
  """
  units = [layer['units'] for layer in summary.get('layers', {}).values() if 'units' in layer]
  return summary.get('num_classes') or (units[-1] if units else None)
