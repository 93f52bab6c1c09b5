"""Measures the time to import the library, and the time to a run's first step."""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from sparsejax.experiment.machine import provenance, threads
from tools import ROOT

CONFIG = 'configs/quickstart.py'
IMPORT = """import time
begun = time.perf_counter()
import sparsejax
print(time.perf_counter() - begun)"""


def measure(rounds: int) -> dict[str, Any]:
  """Returns the medians over rounds of fresh processes, with their extremes.

  An extra first round does not count, since it reads the files from disk and writes bytecode.
  """
  times = [one_round() for _ in range(rounds + 1)][1:]
  by_name = {name: [row[name] for row in times] for name in times[0]}
  return {name: statistics.median(values) for name, values in by_name.items()} | {
    'spread': {name: [min(values), max(values)] for name, values in by_name.items()},
    'config': CONFIG,
    'rounds': rounds,
    'environment': provenance.environment() | {'threads': threads.available()},
  }


def one_round() -> dict[str, float]:
  """Returns the seconds of an import, and of a start without and with a compilation cache."""
  with tempfile.TemporaryDirectory() as folder:
    return {
      'import_seconds': float(_last_line(['-c', IMPORT])),
      'first_step_cold_seconds': to_first_step(pathlib.Path(folder, 'cold'), folder),
      'first_step_warm_seconds': to_first_step(pathlib.Path(folder, 'warm'), folder),
    }


def to_first_step(workdir: pathlib.Path, cache: str) -> float:
  """Returns the seconds from the start of a process to the end of its run's first step.

  Args:
    workdir: a new run directory.
    cache: the folder of compiled programs.
  """
  command = ['tools/speed/first_step.py', f'--config={CONFIG}', f'--workdir={workdir}']
  begun = time.time()  # the same clock as in the other process
  return float(_last_line(command, JAX_COMPILATION_CACHE_DIR=cache)) - begun


def _last_line(command: list[str], **variables: str) -> str:
  """The last line that another Python prints."""
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'} | variables
  done = subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()[-1]
