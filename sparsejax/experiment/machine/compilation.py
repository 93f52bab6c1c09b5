"""A persistent cache of compiled programs: these models take 20 to 60 s to compile."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Generator
from typing import Any

import jax
import platformdirs

from sparsejax.experiment.machine.provenance import cpuinfo, processor
from sparsejax.internal.private import forget_compiled_programs


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


@contextlib.contextmanager
def without_cache() -> Generator[None]:
  """While the block runs, programs are compiled and not looked up: for timing it."""
  config: Any = jax.config  # whose flags are set as JAX is imported
  enabled = config.jax_enable_compilation_cache
  try:
    jax.config.update('jax_enable_compilation_cache', False)
    forget_compiled_programs()  # JAX asks once whether there is one
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', enabled)
    forget_compiled_programs()
