"""Running the launch command: in this process, or as one of its own where one is tested."""

import atexit
import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import numpy as np

from sparsejax import launch as command
from sparsejax.experiment.machine import allocator
from sparsejax.experiment.rundir.metrics import TIMINGS

ROOT = pathlib.Path(__file__).resolve().parents[2]


# All processes of one session of tests share what they compile: compiling is most of their time.
# Whoever comes first makes the folder, and takes it away at the end.
_SHARED = 'SPARSEJAX_TEST_CACHES'
if _SHARED not in os.environ:
  os.environ[_SHARED] = tempfile.mkdtemp(prefix='sparsejax-tests-')
  atexit.register(shutil.rmtree, os.environ[_SHARED], ignore_errors=True)
CACHES = pathlib.Path(os.environ[_SHARED])
OF_CACHES = {
  'SPARSEJAX_CACHE': str(CACHES / 'data'),
  'JAX_COMPILATION_CACHE_DIR': str(CACHES / 'compiled'),
}


def environment(devices=1):
  """The environment of a process: one device unless said otherwise, caches of the tests' own.

  Compiling is quick in it, as in conftest.py.
  """
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    **OF_CACHES,
  }


@contextlib.contextmanager
def on_devices(count):
  """Within it this process trains on this many of its devices."""
  some = jax.local_devices()[:count]
  with mock.patch.multiple(
    jax,
    local_devices=lambda *_, **__: some,
    local_device_count=lambda *_, **__: count,
    device_count=lambda *_, **__: count,
  ):
    yield


def launch(*arguments, devices=1):
  """Runs the command in this process, from its flags on; returns (status, stdout, stderr)."""
  stdout, stderr = io.StringIO(), io.StringIO()
  with (
    on_devices(devices),
    contextlib.chdir(ROOT),
    contextlib.redirect_stdout(stdout),
    contextlib.redirect_stderr(stderr),
    mock.patch.object(allocator, 'keep_freed_memory'),  # which would be for good
  ):
    status = command.main(['launch.py', *arguments])
  return status, stdout.getvalue(), stderr.getvalue()


def start(*arguments, devices=1):
  """Starts launch.py as a process of its own, with its output in pipes."""
  return subprocess.Popen(
    [sys.executable, 'launch.py', *arguments],
    cwd=ROOT,
    env=environment(devices),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def launch_apart(*arguments):
  """Runs launch.py to its end in a process of its own; returns (status, stdout, stderr)."""
  process = start(*arguments)
  stdout, stderr = process.communicate()
  return process.returncode, stdout, stderr


def metrics(workdir):
  """The lines of a run's metrics, without what differs between two equal runs."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def summary(workdir):
  """A run's summary, likewise."""
  figures = json.loads((workdir / 'summary.json').read_text())
  return {k: v for k, v in figures.items() if k not in TIMINGS}


def write_npz(path, examples=96, size=16, channels=3, classes=4):
  """A person's own arrays: images whose brightness by quadrant tells their class."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, classes, 2 * examples)
  images = rng.integers(0, 100, (2 * examples, size, size, channels)).astype(np.uint8)
  half = size // 2
  for image, label in zip(images, labels, strict=True):
    row, column = divmod(int(label), 2)
    image[row * half : (row + 1) * half, column * half : (column + 1) * half] += 100
  np.savez(
    path,
    x_train=images[:examples],
    y_train=labels[:examples],
    x_test=images[examples:],
    y_test=labels[examples:],
  )
  return f'npz:{path}'
