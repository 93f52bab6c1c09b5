"""Chooses the fastest implementation of each layer by timing them on this machine."""

import functools
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from sparsejax.cpu_sparse import compiling, kernel
from sparsejax.cpu_sparse.feature_major import Product
from sparsejax.cpu_sparse.fused_layers import BCSR, DENSE, IMPLEMENTATIONS, KERNEL, Layer, Value
from sparsejax.internal import timing

VARIABLE = 'SPARSEJAX_CPU_SPARSE'  # the environment variable that forces an implementation
MIN_SPARSITY = 0.3  # below it nothing is timed, and a layer stays dense
MIN_BCSR_BATCH = 64  # below it JAX's BCSR product is not timed
ROUNDS = 7  # every candidate is timed once in each round
BLOCK_SECONDS = 0.004  # how long each candidate is timed in a round
MAX_SLOWDOWN = 1.05  # a whole function this much slower than dense stays dense


class Choice(NamedTuple):
  """The implementation chosen for a layer.

  Attributes:
    name: the path of the kernel's parameter, or the name of the equation.
    shape: the kernel's (outputs, channels, height, width).
    image: the input's (channels, height, width, batch) for which the layer was timed.
    sparsity: the share of zero weights.
    implementation: 'kernel', 'bcsr' or 'dense'.
    seconds: {implementation: seconds of one call} of those that were timed; empty if none was.
  """

  name: str
  shape: tuple[int, ...]
  image: tuple[int, ...]
  sparsity: float
  implementation: str
  seconds: Mapping[str, float]


def forced_implementation() -> str | None:
  """Returns the implementation that the environment forces, or None if it forces none.

  Raises:
    ValueError: the environment names an unknown implementation.
  """
  name = os.environ.get(VARIABLE) or None
  if name not in (None, *IMPLEMENTATIONS):
    raise ValueError(f'{VARIABLE}={name} must be kernel, bcsr or dense: correct it, or unset it')
  return name


def is_kernel_available() -> bool:
  """Returns whether the C++ kernel can be used; if it cannot, logs the reason once."""
  if jax.default_backend() != 'cpu':
    _warn_once(f'sparse_apply is for CPU, not {jax.default_backend()}: layers stay dense')
    return False
  try:
    kernel.register()
  except compiling.Unavailable as error:
    _warn_once(f'sparse kernels fall back to BCSR, or dense where that is faster: {error}')
    return False
  return True


@functools.cache
def _warn_once(message: str) -> None:
  """Logs a warning that was not logged before in this process."""
  logging.getLogger(__name__).warning(message)


def choose_implementations(layers: Sequence[Layer]) -> list[Choice]:
  """Returns the implementation of each layer: the forced one, or else the fastest.

  An implementation that the environment forces is used for every layer that has it, untimed. A
  layer that lacks it becomes dense without a warning: BCSR computes no convolutions with windows.

  Raises:
    ValueError: the environment forces an unknown implementation, or the kernel where it cannot be
      compiled.
  """
  forced = forced_implementation()
  if forced == KERNEL:
    try:
      kernel.register()
    except compiling.Unavailable as error:
      raise ValueError(f'{VARIABLE}=kernel needs the kernel: {error}') from None
  if forced is not None:
    return [
      _choice(layer, forced if forced in layer.implementations else DENSE, {}) for layer in layers
    ]
  candidates = _sparse_candidates()
  timings: dict[tuple[Product, bool, float], dict[str, float]] = {}
  return [_choose_fastest(layer, candidates, timings) for layer in layers]


def _sparse_candidates() -> tuple[str, ...]:
  """Returns the sparse implementations to time against dense on this machine."""
  if is_kernel_available():
    return (KERNEL,)
  if jax.default_backend() == 'cpu':
    return (BCSR,)
  return ()


def _choice(layer: Layer, implementation: str, seconds: Mapping[str, float]) -> Choice:
  """Returns the record of the implementation chosen for a layer."""
  return Choice(
    name=layer.name,
    shape=layer.weights.shape,
    image=layer.product.image,
    sparsity=layer.sparsity,
    implementation=implementation,
    seconds=seconds,
  )


def _choose_fastest(
  layer: Layer,
  candidates: Sequence[str],
  timings: dict[tuple[Product, bool, float], dict[str, float]],
) -> Choice:
  """Times a layer's implementations and returns the choice of the fastest.

  Args:
    layer: the layer.
    candidates: the sparse implementations to time against dense.
    timings: {(product, ReLU, sparsity): seconds} of the layers so far; layers that agree in all
      three are timed once.
  """
  *_, batch = layer.product.image
  names = [name for name in candidates if name in layer.implementations]
  if BCSR in names and batch < MIN_BCSR_BATCH:
    names.remove(BCSR)
  if not names or layer.sparsity < MIN_SPARSITY:
    return _choice(layer, DENSE, {})
  key = (layer.product, layer.relu, round(layer.sparsity, 2))
  if key not in timings:
    timings[key] = measure({name: _benchmark(layer, name) for name in (*names, DENSE)})
  seconds = timings[key]
  return _choice(layer, min(seconds, key=seconds.__getitem__), seconds)


def _benchmark(layer: Layer, implementation: str) -> Callable[[], jax.Array]:
  """Returns a call of a layer on random numbers, in the layout that the implementation reads.

  That is feature-major for the sparse implementations, and the program's own order for dense.
  """
  data_order = layer.product.data_order
  shape = layer.eqn.in_shapes[layer.product.data]
  order = data_order if implementation != DENSE else tuple(range(len(data_order)))
  random = np.random.default_rng(0)
  x = jax.numpy.asarray(random.normal(size=[shape[axis] for axis in order]).astype(np.float32))
  function = jax.jit(lambda x: layer(Value(x, order), implementation).array)
  return lambda: function(x)


def measure(calls: Mapping[str, Callable[[], jax.Array]]) -> dict[str, float]:
  """Returns the median seconds of each call, timed in turns."""
  timed = {name: timing.repeated(call) for name, call in calls.items()}
  seconds = timing.alternate(timed, rounds=ROUNDS, seconds=BLOCK_SECONDS)
  return {name: statistics.median(of_rounds) for name, of_rounds in seconds.items()}
