"""The run directory: where it is, whose it is, and that one process at a time is in it."""

import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import weakref
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging

from sparsejax.experiment import checkpoint, digests, files, parallel
from sparsejax.experiment.errors import BusyError, UsageError

# Fields that leave the experiment what it is: its seed (a level of its own in the path), labels,
# how it is logged, and where the data lie.
NOT_HASHED = ('seed', 'name', 'method', 'data.dir')
LOGGING = 'log.'
BEFORE = 'before-restart'  # begins the name of a folder of what a run had made before
# The defaults are those of the same chain and events, so these never differ from them.
ALWAYS_HASHED = ('chain', 'events')
# What a commit has to say about a run: results that are measured anew change no code.
CODE = ('--', ':(top)', ':(top,exclude)results/*.json', ':(top,exclude)results/*/*')
VECTORS = {'avx512f': 'AVX-512', 'avx2': 'AVX2'}  # by Linux's flag, the widest first
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'sparsejax')


def flatten(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns nested settings by dotted name.

  Example:
    >>> flatten({'model': {'name': 'vgg16'}, 'seed': 0})
    {'model.name': 'vgg16', 'seed': 0}
  """
  flat = {}
  for key, value in settings.items():
    nested = isinstance(value, Mapping)
    flat |= flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value}
  return flat


def at(settings: Mapping[str, Any], name: str) -> Any:
  """Returns what nested settings hold at a dotted name, or None.

  Example:
    >>> at({'model': {'name': 'vgg16'}}, 'model.name'), at({'seed': 0}, 'seed.of')
    ('vgg16', None)
  """
  held: Any = settings
  for key in name.split('.'):
    held = held.get(key) if isinstance(held, Mapping) else None
  return held


def experiment_of(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns by dotted name the settings that make an experiment: not its seed, labels or logging.

  They are as JSON has them, in which a tuple and the list read back from config.json are the same.

  Example:
    >>> experiment_of({'chain': ('sgd',), 'seed': 3, 'log': {'every_steps': 5}})
    {'chain': ['sgd']}
  """
  flat = json.loads(json.dumps(flatten(settings)))
  return {
    name: value
    for name, value in flat.items()
    if name not in NOT_HASHED and not name.startswith(LOGGING)
  }


def short_name(name: str) -> str:
  """Returns the last two words of a field, or of a schedule's value what it is a schedule of.

  Example:
    >>> short_name('scale_by_learning_rate.learning_rate.value'), short_name('prune.target')
    ('learning_rate', 'prune.target')
  """
  parts = name.split('.')
  if parts[-1] == 'value' and len(parts) > 1:
    return parts[-2]
  return '.'.join(parts[-2:])


def short_value(value: Any) -> str:
  """Returns a setting or a figure with four digits at most.

  Example:
    >>> short_value(0.123456), short_value(32)
    ('0.1235', '32')
  """
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def hash8(config: Mapping, defaults: Mapping, version: int, digests: Mapping | None = None) -> str:
  """Returns the name of an experiment: a hash of its chain, its events and what else it changes.

  Args:
    config: the resolved settings.
    defaults: the settings of `base.py` for the same chain and events.
    version: raised when a default changes.
    digests: by field name, of the content of what the field's path says nothing about: a person's
      own arrays, a run to start from.

  Example:
    >>> hash8({'epochs': 1, 'seed': 3}, {'epochs': 1, 'seed': 0}, 1) == hash8({}, {}, 1)
    True
  """
  mine, default = experiment_of(config), experiment_of(defaults)
  changed = {
    name: [mine[name]] if name in mine else []
    for name in {*mine, *default}
    if name in ALWAYS_HASHED or (name in mine) != (name in default) or mine[name] != default[name]
  }
  changed |= digests or {}
  text = json.dumps([version, changed], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


class RunDirectory:
  """A run directory held by this object: until `close`, or the end of the process however it ends.

  Raises:
    UsageError: another process is in it, it belongs to another experiment or seed, or it can't be
      made or written.
  """

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any], experiment_hash: str):
    self.path, self.owner = path, checkpoint.Owner(experiment_hash, config['seed'])
    try:
      if not (path / '.lock').exists():  # a folder that is not ours is left as it is
        self._is_new()
      path.mkdir(parents=True, exist_ok=True)
      lock = os.open(path / '.lock', os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
      if error.errno in files.FULL_DISK:
        raise
      raise UsageError(f'workdir={path}: {error.strerror}; allowed is a folder to write') from error
    # The operating system drops the lock with the process: a killed one leaves none behind.
    self.close = weakref.finalize(self, os.close, lock)
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if self._is_new():
        files.write_json(path / files.CONFIG, {'hash': experiment_hash} | dict(config))
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
    """Returns whether nobody's run is here yet; raises where it is not this experiment's."""
    file = self.path / files.CONFIG
    allowed = 'allowed is an empty directory or the same experiment'
    if not file.exists():
      there = self.path.iterdir() if self.path.is_dir() else ()
      if others := sorted(entry.name for entry in there if entry.name[0] != '.'):
        raise UsageError(f'workdir={self.path}: it holds {others[0]}, but no run; {allowed}')
      return True
    self._check_owner(self._read(file), 'it holds a run', allowed)
    return False

  def _check_owner(self, found: Any, what: str, allowed: str) -> None:
    """Refuses what says that it is of another run."""
    for field, mine in self.owner._asdict().items():
      if found.get(field) != mine:
        raise UsageError(
          f'workdir={self.path}: {what} with {field} {found.get(field)}, this one has {mine}; '
          f'{allowed}'
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
    """The summary of a finished run, or None.

    Raises:
      UsageError: it is damaged, or of another run.
    """
    file = self.path / files.SUMMARY
    if not file.exists():
      return None
    found = self._read(file)
    allowed = f'{files.SUMMARY} must be the one that this run wrote'
    self._check_owner(found, f'its {files.SUMMARY} is of a run', allowed)
    digests.warn(self.path)
    return found

  @property
  def saved_step(self) -> int | None:
    """The newest step that was saved here, or None where none was."""
    file = self.path / files.PROGRESS
    return self._read(file).get('saved_step', -1) if file.exists() else None

  def set_aside(self) -> None:
    """Moves all that the run has made to a folder of its own, so that it begins at step 0."""
    stays = (files.CONFIG, files.ENVIRONMENT, '.lock')
    made = [p for p in self.path.iterdir() if p.name not in stays and BEFORE not in p.name]
    if not made:
      return
    place = files.numbered(self.path / BEFORE, 1)
    place.mkdir()
    for path in made:
      path.rename(place / path.name)
    logging.warning('what the run had made is in %s now', place)

  def note_start(self) -> None:
    """Adds this start to environment.json, and warns when the code or XLA's flags are others."""
    file = self.path / files.ENVIRONMENT
    starts = self._read(file, list) if file.exists() else []
    if not all(isinstance(start, dict) for start in starts):
      raise UsageError(f'workdir={self.path}: its {files.ENVIRONMENT} is damaged')
    now = environment()
    before = now | starts[-1] if starts else now  # of a field that is newer nothing is known
    for field in ('git_commit', 'git_dirty', 'versions', 'xla_flags'):
      if before[field] != now[field]:
        logging.warning('going on under another %s: %s, then %s', field, before[field], now[field])
    files.write_json(file, [*starts, now])


def environment() -> dict[str, Any]:
  """Returns what a result depends on besides its config: versions, devices, commit, machine."""
  return {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'devices': parallel.device_kinds(),
    'backend': jax.default_backend(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'processor': processor(),
    'cpus': os.cpu_count(),
    'git_commit': _git('rev-parse', 'HEAD'),
    'git_dirty': bool(_git('status', '--porcelain', '--untracked-files=no', *CODE)),
  }


def processor() -> str:
  """Returns the processor's model name and its widest vectors, where the system tells.

  Virtual machines call processors of one maker by one name, though their rates differ threefold.
  """
  name = cpuinfo('model name') or platform.processor()
  flags = cpuinfo('flags').split()
  vectors = next((text for flag, text in VECTORS.items() if flag in flags), '')
  return f'{name} with {vectors}' if vectors else name


def cpuinfo(*fields: str) -> str:
  """Returns the first value that Linux gives for one of the fields, '' where it gives none."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return ''
  return next((line.partition(':')[2].strip() for line in lines if line.startswith(fields)), '')


def _git(*arguments: str) -> str | None:
  folder = pathlib.Path(__file__).parent
  try:
    command = ['git', '-C', str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
