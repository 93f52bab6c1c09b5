"""Every test runs on four CPU devices, with warnings as errors and no silent rank promotion.

With SPARSEJAX_TEST_PLATFORM=cuda on what GPUs there are, where a test of several devices has fewer.
"""

import os

os.environ['JAX_PLATFORMS'] = os.environ.get('SPARSEJAX_TEST_PLATFORM', 'cpu')
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'
os.environ['NPROC'] = '8'  # two threads for each, as the commands ask for: experiment/threads.py

import commands
import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='module')
def compiling_is_quick():
  """For files whose time goes into compiling programs that then run for a millisecond."""
  jax.config.update('jax_disable_most_optimizations', jax.default_backend() == 'cpu')
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture
def _from_the_root(monkeypatch, tmp_path):
  """A command in this process, with its caches away from the user's."""
  monkeypatch.setenv('SPARSEJAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path / 'compiled'))
  monkeypatch.chdir(commands.ROOT)
