"""A persistent cache of compiled programs: these models take 20 to 60 s to compile."""

import hashlib
import os
import pathlib

import jax
import platformdirs

from sparsejax.experiment.runs import cpuinfo, processor


def use_cache() -> None:
  """Keeps compiled programs in the user's cache folder, unless JAX was given another.

  A program compiled for a processor may use instructions that another lacks, so every model of
  processor has a folder of its own.
  """
  if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  machine = hashlib.sha256(f'{processor()} {cpuinfo("flags", "Features")}'.encode()).hexdigest()[
    :12
  ]
  folder = pathlib.Path(platformdirs.user_cache_dir('sparsejax'), 'compiled', machine)
  jax.config.update('jax_compilation_cache_dir', str(folder))
