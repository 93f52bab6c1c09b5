"""A persistent cache of compiled programs: these models take 20 to 60 s to compile."""

import hashlib
import os
import pathlib

import jax
import platformdirs

from sparsejax.experiment.runs import processor


def use_cache() -> None:
  """Keeps compiled programs in the user's cache folder, unless JAX was given another.

  A program compiled for a processor may use instructions that another lacks, so every model of
  processor has a folder of its own.
  """
  if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  machine = hashlib.sha256(f'{processor()} {_cpu_flags()}'.encode()).hexdigest()[:12]
  folder = pathlib.Path(platformdirs.user_cache_dir('sparsejax'), 'compiled', machine)
  jax.config.update('jax_compilation_cache_dir', str(folder))


def _cpu_flags() -> str:
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return ''
  return next((line for line in lines if line.startswith(('flags', 'Features'))), '')
