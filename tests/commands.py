"""Running the launch command as a process of its own, as a person does."""

import atexit
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

from sparsejax.experiment.metrics import TIMINGS

ROOT = pathlib.Path(__file__).resolve().parent.parent


# The commands of all processes of one session of tests share what they compile: compiling is most
# of their time. Whoever comes first makes the folder, and takes it away at the end.
_SHARED = 'SPARSEJAX_TEST_CACHES'
if _SHARED not in os.environ:
  os.environ[_SHARED] = tempfile.mkdtemp(prefix='sparsejax-tests-')
  atexit.register(shutil.rmtree, os.environ[_SHARED], ignore_errors=True)
CACHES = pathlib.Path(os.environ[_SHARED])


def environment(devices=1):
  """The environment of a command: one device unless said otherwise, caches of the tests' own."""
  return os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'SPARSEJAX_CACHE': str(CACHES / 'data'),
    'JAX_COMPILATION_CACHE_DIR': str(CACHES / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }


def start(*arguments, devices=1):
  """Starts launch.py with its output in pipes."""
  return subprocess.Popen(
    [sys.executable, 'launch.py', *arguments],
    cwd=ROOT,
    env=environment(devices),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def launch(*arguments, devices=1):
  """Runs launch.py to its end; returns (status, stdout, stderr)."""
  process = start(*arguments, devices=devices)
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
