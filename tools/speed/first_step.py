"""Trains like launch.py until the first step is done, then prints the time.

python tools/speed/first_step.py --config=configs/quickstart.py --workdir=DIR ...
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import jax

from sparsejax import launch
from sparsejax.experiment.machine import parallel

train_calls = parallel.train_calls


def until_first_step(step, *, convolutional):
  """Replaces `parallel.train_calls`; the function that it returns makes one step and exits."""
  run = train_calls(step, convolutional=convolutional)

  def run_once(state, data, order, count):
    del count
    jax.block_until_ready(next(run(state, data, order, 1)))
    print(time.time(), flush=True)
    os._exit(0)  # an orderly end is not part of a start

  return run_once


parallel.train_calls = until_first_step

if __name__ == '__main__':
  sys.exit(launch.main(sys.argv))
