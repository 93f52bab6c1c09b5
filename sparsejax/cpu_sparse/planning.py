"""Which way each layer takes: measured once, in turns, on this machine."""

import functools
import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sparsejax.cpu_sparse import compiling, kernel
from sparsejax.cpu_sparse.layers import BCSR, DENSE, KERNEL, WAYS, Layer, Value

FORCED = 'SPARSEJAX_CPU_SPARSE'
SPARSE_ENOUGH = 0.3  # below it nothing is faster than dense on any machine, and nothing is timed
BATCH_OF_BCSR = 64  # below it JAX's own sparse products are slower than dense
ROUNDS, SECONDS = 7, 0.03  # a way is timed so often, for at least so long in all
SLOWER = 1.05  # than dense, which a whole function must not be


class Choice(NamedTuple):
  """What a layer takes.

  Attributes:
    name: the path of its kernel, or its equation.
    shape: its kernel's (outputs, channels, height, width).
    image: the (channels, height, width, batch) that it was timed for.
    sparsity: the share of zeros.
    way: 'kernel', 'bcsr' or 'dense'.
    seconds: of each way that was timed; empty if none was.
  """

  name: str
  shape: tuple[int, ...]
  image: tuple[int, ...]
  sparsity: float
  way: str
  seconds: Mapping[str, float]


def forced() -> str | None:
  """Returns the way that the environment asks for.

  Raises:
    ValueError: it asks for none that there is.
  """
  way = os.environ.get(FORCED) or None
  if way not in (None, *WAYS):
    raise ValueError(f'{FORCED}={way} must be kernel, bcsr or dense: correct it, or unset it')
  return way


def available() -> bool:
  """Returns whether there is a kernel; one line of the log says why not, and what is used then."""
  if jax.default_backend() != 'cpu':
    _say_once(f'sparse_apply is for CPU, not {jax.default_backend()}: layers stay dense')
    return False
  try:
    kernel.register()
  except compiling.Unavailable as error:
    _say_once(f'sparse kernels fall back to BCSR, or dense where that is faster: {error}')
    return False
  return True


@functools.cache
def _say_once(message: str) -> None:
  logging.getLogger(__name__).warning(message)


def choices(layers: Sequence[Layer]) -> list[Choice]:
  """Returns the way of each layer.

  Raises:
    ValueError: the environment forces a way that there is not.
  """
  way = forced()
  if way == KERNEL:
    try:
      kernel.register()
    except compiling.Unavailable as error:
      raise ValueError(f'{FORCED}=kernel needs the kernel: {error}') from None
  if way is not None:
    return [_choice(layer, way if way in layer.ways else DENSE, {}) for layer in layers]
  usable = [KERNEL] if available() else [BCSR] if jax.default_backend() == 'cpu' else []
  timed: dict = {}  # layers that are alike are timed once
  return [_fastest(layer, usable, timed) for layer in layers]


def _choice(layer, way, seconds):
  return Choice(layer.name, layer.matrix.shape, layer.product.image, layer.sparsity, way, seconds)


def _fastest(layer: Layer, usable: Sequence[str], timed: dict) -> Choice:
  ways = [way for way in usable if way in layer.ways]
  if BCSR in ways and layer.product.image[3] < BATCH_OF_BCSR:
    ways.remove(BCSR)
  if not ways or layer.sparsity < SPARSE_ENOUGH:
    return _choice(layer, DENSE, {})
  key = (layer.product, layer.relu, round(layer.sparsity, 2))
  if key not in timed:
    timed[key] = measure({way: _call(layer, way) for way in (*ways, DENSE)})
  seconds = timed[key]
  return _choice(layer, min(seconds, key=seconds.__getitem__), seconds)


def _call(layer: Layer, way: str) -> Callable[[], jax.Array]:
  """Computes a layer in one way, of numbers that lie as this way has them."""
  order = layer.product.data_order
  shape = layer.eqn.in_shapes[layer.product.data]
  lies = order if way != DENSE else tuple(range(len(order)))
  x = np.random.default_rng(0).normal(size=[shape[i] for i in lies]).astype(np.float32)
  x = jax.numpy.asarray(x)
  function = jax.jit(lambda x: layer(Value(x, lies), way).array)
  return lambda: function(x)


def measure(calls: Mapping[str, Callable[[], jax.Array]]) -> dict[str, float]:
  """Returns the median seconds of each call, all of them timed in turns."""
  counts = {}
  for name, call in calls.items():
    jax.block_until_ready(call())
    once = min(_timed(call, 1) for _ in range(3))
    counts[name] = max(1, int(SECONDS / ROUNDS / once))
  found: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(ROUNDS):
    for name, call in calls.items():
      found[name].append(_timed(call, counts[name]))
  return {name: statistics.median(seconds) for name, seconds in found.items()}


def _timed(call: Callable[[], jax.Array], count: int) -> float:
  begun = time.perf_counter()
  for _ in range(count):
    jax.block_until_ready(call())
  return (time.perf_counter() - begun) / count
