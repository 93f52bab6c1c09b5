"""The environment of a run, on which its results also depend: machine, versions, commit."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from sparsejax.experiment.machine import parallel

# The paths whose changes matter to a run; results that are measured again change no code.
CODE = ('--', ':(top)', ':(top,exclude)results')
VECTORS = {'avx512f': 'AVX-512', 'avx2': 'AVX2'}  # by Linux's flag, the widest first
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'sparsejax')


def environment() -> dict[str, Any]:
  """Returns versions, devices, commit and machine, as in environment.json."""
  return {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'devices': parallel.device_kinds(),
    'backend': jax.default_backend(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'processor': processor(),
    'cpus': os.cpu_count(),
    **_commit(),
  }


def processor() -> str:
  """Returns the processor's model name and its widest vectors, if the system names them.

  Virtual machines give one name to all processors of a maker, though their rates differ threefold.
  """
  name = cpuinfo('model name') or platform.processor()
  flags = cpuinfo('flags').split()
  vectors = next((text for flag, text in VECTORS.items() if flag in flags), '')
  return f'{name} with {vectors}' if vectors else name


def cpuinfo(*fields: str) -> str:
  """Returns the first value that Linux gives for any of the fields, or '' if it gives none."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return ''
  return next((line.partition(':')[2].strip() for line in lines if line.startswith(fields)), '')


def _commit() -> dict[str, Any]:
  """The commit of this code, if its repository holds it; an installed copy may be in another."""
  if not _git('ls-files', pathlib.Path(__file__).name):
    return {'git_commit': None, 'git_dirty': False}
  return {
    'git_commit': _git('rev-parse', 'HEAD'),
    'git_dirty': bool(_git('status', '--porcelain', '--untracked-files=no', *CODE)),
  }


def _git(*arguments: str) -> str | None:
  folder = pathlib.Path(__file__).parent
  try:
    command = ['git', '-C', str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
