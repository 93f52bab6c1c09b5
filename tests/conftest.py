"""Every test runs on four CPU devices, with warnings as errors and no silent rank promotion.

With SPARSEJAX_TEST_PLATFORM=cuda on what GPUs there are, where a test of several devices has fewer.
"""

import os
import pathlib
import signal

os.environ['JAX_PLATFORMS'] = os.environ.get('SPARSEJAX_TEST_PLATFORM', 'cpu')
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'
os.environ['NPROC'] = '8'  # two threads for each, as the commands ask for: machine/threads.py

import commands
import jax
import pytest

# Under nohup, or in a shell's background, signals are ignored, by all that a test starts as well.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ |= commands.OF_CACHES
jax.config.update('jax_compilation_cache_dir', commands.OF_CACHES['JAX_COMPILATION_CACHE_DIR'])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)  # of less, looking up is more
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='module')
def compiling_is_quick():
  """For files whose time goes into compiling programs that then run for a millisecond."""
  jax.config.update('jax_disable_most_optimizations', jax.default_backend() == 'cpu')
  yield
  jax.config.update('jax_disable_most_optimizations', False)


MOST_MAPPINGS = 20_000  # of the 65,530 that Linux lets a process have, beyond which XLA crashes


@pytest.fixture(scope='module', autouse=True)
def _programs_go():
  """Lets compiled programs go before their memory is in more pieces than a process may have."""
  yield
  mappings = pathlib.Path('/proc/self/maps')
  if mappings.exists() and mappings.read_bytes().count(b'\n') > MOST_MAPPINGS:
    jax.clear_caches()


@pytest.fixture
def _from_the_root(monkeypatch):
  """A command in this process, where its configs are found."""
  monkeypatch.chdir(commands.ROOT)


@pytest.fixture(scope='module')
def one_device():
  """For files whose runs are as good on one device as on four, which wait for each other."""
  with commands.on_devices(1):
    yield
