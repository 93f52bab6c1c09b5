"""A persistent cache of compiled programs, since these models take 20 to 60 s to compile."""

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
  """Keeps compiled programs in the user's cache folder, unless JAX was given another one.

  A program compiled for one processor may use instructions that another lacks, so every model of
  processor has its own folder.
  """
  if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  machine = hashlib.sha256(f'{processor()} {cpuinfo("flags", "Features")}'.encode()).hexdigest()[
    :12
  ]
  folder = pathlib.Path(platformdirs.user_cache_dir('sparsejax'), 'compiled', machine)
  jax.config.update('jax_compilation_cache_dir', str(folder))


@contextlib.contextmanager
def cache_disabled() -> Generator[None]:
  """Makes programs in the block compile instead of being looked up, so that this can be timed."""
  config: Any = jax.config  # JAX adds its flags at import, where ty does not see them
  enabled = config.jax_enable_compilation_cache
  try:
    jax.config.update('jax_enable_compilation_cache', False)
    forget_compiled_programs()  # JAX looks only once whether there is a cache
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', enabled)
    forget_compiled_programs()
