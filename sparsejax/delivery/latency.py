"""Latency of the dense and the shipped network, timed in alternating rounds."""

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from sparsejax.internal import timing

BATCH_SIZES = (1, 128)
BLOCK_SECONDS = 0.2  # how long each network is timed in a round
DENSE, SHIPPED = 'dense', 'shipped'
Predict = Callable[[np.ndarray], Any]  # from a batch of images to logits


def measure_latency(
  engines: Mapping[str, Mapping[str, Predict]], image_shape: tuple[int, ...], *, rounds: int
) -> dict[str, dict[str, Any]]:
  """Returns the seconds of one call and the speed-up, by engine and batch size.

  Every network is timed in every round, so that other load on the machine affects all equally.

  Args:
    engines: {engine: {'dense': function, 'shipped': function}}, as from `make_engines`.
    image_shape: (height, width, channels).
    rounds: the number of rounds.

  Returns:
    {engine: {batch size as text: summary}}, as in shipped.json.
  """
  random = np.random.default_rng(0)
  timed = {}
  for size in BATCH_SIZES:
    images = random.normal(size=(size, *image_shape)).astype(np.float32)
    for engine, networks in engines.items():
      for which, predict in networks.items():
        timed[f'{engine} {size} {which}'] = timing.repeated(partial(predict, images))
  times = timing.alternate(timed, rounds=rounds, seconds=BLOCK_SECONDS)
  return {
    engine: {
      str(size): _summarize(times[f'{engine} {size} {DENSE}'], times[f'{engine} {size} {SHIPPED}'])
      for size in BATCH_SIZES
    }
    for engine in engines
  }


def _summarize(dense: list[float], shipped: list[float]) -> dict[str, Any]:
  """Returns the medians of the rounds' seconds and speed-ups, with their least and largest."""
  ratios = [before / after for before, after in zip(dense, shipped, strict=True)]
  return {
    'dense_seconds': statistics.median(dense),
    'shipped_seconds': statistics.median(shipped),
    'speedup': statistics.median(ratios),
    'spread': {
      name: [min(values), max(values)]
      for name, values in ((DENSE, dense), (SHIPPED, shipped), ('speedup', ratios))
    },
  }
