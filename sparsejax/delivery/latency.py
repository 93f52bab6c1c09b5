"""What one answer takes: the dense network and the shipped one, timed in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from sparsejax.benchmarks import rounds as in_turns

BATCHES = (1, 128)
BLOCK_SECONDS = 0.2
DENSE, SHIPPED = 'dense', 'shipped'
Answer = Callable[[np.ndarray], Any]


def measured(
  engines: Mapping[str, Mapping[str, Answer]], image_shape: tuple[int, ...], *, rounds: int
) -> dict[str, dict[str, Any]]:
  """Returns the seconds of one call by engine and batch size, and the ratio of the two networks.

  Everything is timed in every round, so that the machine's other load falls on all alike.

  Args:
    engines: by name, such as 'jax', the `dense` and the `shipped` network.
    image_shape: (height, width, channels).
    rounds: the number of rounds.
  """
  random, timed = np.random.default_rng(0), {}
  for size in BATCHES:
    images = random.normal(size=(size, *image_shape)).astype(np.float32)
    for engine, networks in engines.items():
      for which, answer in networks.items():
        timed[f'{engine} {size} {which}'] = _timed(answer, images)
  times = in_turns.alternate(timed, rounds=rounds, seconds=BLOCK_SECONDS, note=lambda line: None)
  return {
    engine: {
      str(size): _figures(*(times[f'{engine} {size} {which}'] for which in (DENSE, SHIPPED)))
      for size in BATCHES
    }
    for engine in engines
  }


def _timed(answer: Answer, images: np.ndarray) -> in_turns.Timed:
  def run(count):
    begun = time.perf_counter()
    for _ in range(count):
      jax.block_until_ready(answer(images))
    return time.perf_counter() - begun

  return run


def _figures(dense: list[float], shipped: list[float]) -> dict[str, Any]:
  ratios = [before / after for before, after in zip(dense, shipped, strict=True)]
  return {
    'dense_seconds': statistics.median(dense),
    'shipped_seconds': statistics.median(shipped),
    'speedup': statistics.median(ratios),  # of the rounds
    'spread': {
      name: [min(values), max(values)]
      for name, values in ((DENSE, dense), (SHIPPED, shipped), ('speedup', ratios))
    },
  }
