"""What runs the dense network and the shipped one: JAX and, of a model in ONNX, its runtimes."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.delivery.latency import DENSE, SHIPPED, Answer
from sparsejax.delivery.network import Network
from sparsejax.shipping import export
from sparsejax.shipping.export.onnx import session


def engines(
  networks: Mapping[str, Network],
  image_shape: tuple[int, ...],
  model: pathlib.Path,
  scratch: pathlib.Path,
) -> dict[str, dict[str, Answer]]:
  """Returns, for each engine that is here, what answers for the `dense` and the `shipped` network.

  Args:
    networks: both.
    image_shape: (height, width, channels).
    model: the shipped network in ONNX, which may be missing: JAX is then the only engine.
    scratch: a folder for the dense one.
  """
  found = {'jax': {which: _compiled(network) for which, network in networks.items()}}
  if not model.exists():
    return found
  dense = scratch / 'dense.onnx'
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  export.onnx(dense, networks[DENSE], networks[DENSE].variables, images)
  places = {DENSE: dense, SHIPPED: model}
  found['onnxruntime'] = {which: session(path) for which, path in places.items()}
  if importlib.util.find_spec('openvino'):
    found['openvino'] = {which: _openvino(path) for which, path in places.items()}
  return found


def _compiled(network: Network) -> Answer:
  compiled = jax.jit(lambda variables, images: network(variables, images))
  return lambda images: compiled(network.variables, images)


def _openvino(path: pathlib.Path) -> Answer:
  openvino: Any = importlib.import_module('openvino')  # no extra installs it
  compiled = openvino.Core().compile_model(str(path), 'CPU')
  return lambda images: compiled([images])
