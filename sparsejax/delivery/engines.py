"""The engines that run both networks: JAX, its sparse products, the installed ONNX runtimes."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax import cpu_sparse
from sparsejax.delivery.latency import BATCH_SIZES, DENSE, SHIPPED, Predict
from sparsejax.delivery.shipped_network import Network
from sparsejax.experiment.terminal.errors import in_one_line
from sparsejax.experiment.terminal.say import say
from sparsejax.shipping import export
from sparsejax.shipping.export.onnx import session


def make_engines(
  networks: Mapping[str, Network],
  image_shape: tuple[int, ...],
  model: pathlib.Path,
  scratch: pathlib.Path,
) -> dict[str, dict[str, Predict]]:
  """Returns {engine: {'dense': function, 'shipped': function}}, functions from images to logits.

  Args:
    networks: the two networks, 'dense' and 'shipped'.
    image_shape: (height, width, channels).
    model: the shipped network in ONNX; if the file does not exist, JAX is the only engine.
    scratch: a folder in which the dense network is written in ONNX.
  """
  functions = {'jax': {which: _compiled(network) for which, network in networks.items()}}
  if jax.default_backend() == 'cpu':
    functions |= _sparse_on_cpu(networks[SHIPPED], image_shape, functions['jax'][DENSE])
  if not model.exists():
    return functions
  dense = scratch / 'dense.onnx'
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  makers = {'onnxruntime': session}
  if importlib.util.find_spec('openvino'):
    makers['openvino'] = _openvino
  try:
    export.onnx(dense, networks[DENSE], networks[DENSE].variables, images)
  except (OSError, ValueError) as error:
    say(f'the dense network is not timed in ONNX: {in_one_line(error)}')
    return functions
  for engine, make in makers.items():
    try:
      functions[engine] = {DENSE: make(dense), SHIPPED: make(model)}
    except Exception as error:  # each engine raises its own kinds of errors
      say(f'{engine} is not timed: {in_one_line(error)}')
  return functions


def _compiled(network: Network) -> Predict:
  """Returns a network compiled by JAX."""
  compiled = jax.jit(lambda variables, images: network(variables, images))
  return lambda images: compiled(network.variables, images)


def _sparse_on_cpu(
  network: Network, image_shape: tuple[int, ...], dense: Predict
) -> dict[str, dict[str, Predict]]:
  """Returns the engine that skips zero weights, beside JAX's dense network; {} if it cannot.

  Args:
    network: the shipped network.
    image_shape: (height, width, channels).
    dense: the dense network in JAX.
  """
  random = np.random.default_rng(0)
  by_size = {}

  for size in BATCH_SIZES:
    images = random.normal(size=(size, *image_shape)).astype(np.float32)
    try:
      by_size[size] = cpu_sparse.sparse_apply(network, network.variables, images)
    except Exception as error:  # each engine raises its own kinds of errors
      say(f'sparse products on CPU are not timed: {in_one_line(error)}')
      return {}
  return {'cpu_sparse': {DENSE: dense, SHIPPED: lambda images: by_size[len(images)](images)}}


def _openvino(path: pathlib.Path) -> Predict:
  """Returns an ONNX model compiled by OpenVINO."""
  openvino: Any = importlib.import_module('openvino')  # optional, and in none of the extras
  compiled = openvino.Core().compile_model(str(path), 'CPU')
  return lambda images: compiled([images])
