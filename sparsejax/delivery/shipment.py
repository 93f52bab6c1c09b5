"""A shipment, from its run to its folder: made smaller, written, read back and measured."""

import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax import models, shipping
from sparsejax.delivery import centroids, engines, folder, latency
from sparsejax.delivery import network as networks
from sparsejax.delivery.network import Network
from sparsejax.delivery.request import FILE, NAMES, Request
from sparsejax.delivery.source import COUNTS, Source
from sparsejax.experiment.machine import files, provenance, threads
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import say
from sparsejax.shipping import export
from sparsejax.sparsity.counting import measure

ACCURACIES = ('validation_accuracy', 'test_accuracy')


def shipment_of(source: Source, request: Request) -> dict[str, Any]:
  """Returns what identifies a shipment: its run, and the options that change the files."""
  run = {'hash': source.hash, 'seed': source.experiment.config['seed'], 'network': source.digest}
  return run | request.of_shipment


def ship(source: Source, request: Request, shipment: Mapping[str, Any]) -> dict[str, Any]:
  """Makes a shipment; returns the content of its shipped.json.

  Args:
    source: the finished run.
    request: the options; the folder is empty or does not exist.
    shipment: the result of `shipment_of`.

  Raises:
    UsageError: if the bits or a format are impossible for this network; nothing is written.
    OSError: if a file cannot be written, or answers differently when read back.
  """
  experiment = source.experiment
  network = Network(source.model, source.variables)
  network = networks.without_dead_weights(network, experiment.image_shape)
  evaluate = networks.evaluation(experiment, network.model)
  variables, bits = centroids.shared(network.variables, request, evaluate)
  if request.epochs:
    shared = Network(network.model, variables)
    variables = centroids.train(experiment, shared, request, evaluate)
  # Last, since a unit's constant that went into BatchNorm's averages would not follow training.
  network = networks.shrunk(Network(network.model, variables), experiment.image_shape)
  evaluate = networks.evaluation(experiment, network.model)
  with folder.made(request.out) as hidden, files.naming_full_disk(request.out.absolute().parent):
    network = _write(hidden, source, network, bits, request)
    say('what was written is read back and measured')
    figures = _figures(hidden, source, network, bits, request, evaluate)
    figures = {'name': experiment.config['name'], 'shipment': shipment, **figures}
    files.write_json(hidden / folder.SHIPPED, figures)
  return figures


def _write(hidden: pathlib.Path, source: Source, network: Network, bits: Any, request: Request):
  """Writes every format; returns the network that the model file gives back."""
  config = source.experiment.config
  settings = {
    'num_classes': source.experiment.dataset.num_classes,
    'width': config['model']['width'],
    'dtype': config['model']['dtype'],
    'widths': dict(getattr(network.model, 'widths', {})),
  }
  origin = {
    'name': config['name'],
    'hash': source.hash,
    'seed': config['seed'],
    'network': source.digest,
    'bits': bits,
    'epochs': request.epochs,
  }
  shipping.save(
    hidden / NAMES[FILE],
    network.variables,
    model=config['model']['name'],
    settings=settings,
    scaling=_scaling(source),
    provenance=origin,
  )
  read = shipping.load(hidden / NAMES[FILE], like=network.variables, max_bytes=2**40)
  network = Network(network.model, jax.tree.map(jnp.asarray, read.params))
  told = {'model': config['model']['name'], 'settings': settings, 'scaling': _scaling(source)}
  images = jax.ShapeDtypeStruct((1, *source.experiment.image_shape), jnp.float32)
  for name in request.formats:
    if name != FILE:
      say(f'writing {NAMES[name]}')
      try:
        EXPORTS[name](hidden / NAMES[name], network, images, told | {'provenance': origin})
      except ValueError as error:
        raise UsageError(f'--format={name}: {error}') from error
  return network


def _stablehlo(path, network, images, told):
  export.stablehlo(path, network, network.variables, images)


def _onnx(path, network, images, told):
  export.onnx(path, network, network.variables, images)


def _safetensors(path, network, images, told):
  export.safetensors(path, network.variables, told)


EXPORTS: dict[str, Callable[[pathlib.Path, Network, Any, Mapping[str, Any]], None]] = {
  'onnx': _onnx,
  'stablehlo': _stablehlo,
  'safetensors': _safetensors,
}


def _scaling(source: Source) -> dict[str, Any]:
  """Returns the mean and deviation by which pixels from 0 to 1 are scaled."""
  scaling = source.experiment.preprocessing
  moments = {'mean': scaling.mean, 'std': scaling.std}
  return {name: np.asarray(value, np.float64).tolist() for name, value in moments.items()}


def _figures(hidden, source, network, bits, request, evaluate) -> dict[str, Any]:
  """Returns what is measured on the network read back; only here is the test split read."""
  experiment, model_file = source.experiment, hidden / NAMES[FILE]
  before = networks.dense(source.model, experiment.image_shape)
  return {
    'bits': bits,
    **evaluate(network.variables, 'validation'),
    **evaluate(network.variables, 'test'),
    'before': {name: source.summary.get(name) for name in ACCURACIES},
    'bytes': model_file.stat().st_size,
    'dense_bytes': sum(leaf.nbytes for leaf in jax.tree.leaves(before.variables)),
    'bytes_by_part': shipping.sizes(model_file),
    'files': folder.told_files(hidden),
    'theoretical': _theoretical(source, network),
    'latency': _latency(hidden, before, network, experiment.image_shape, request.rounds),
    'rounds': request.rounds,
    'scaling': _scaling(source),
    'environment': {
      **provenance.environment(),
      'threads': threads.available(),
      'load_average': os.getloadavg()[0],
    },
  }


def _theoretical(source: Source, network: Network) -> dict[str, Any]:
  """Returns the counts of the dense network, those of the shipped one, and their ratios."""
  positions = models.positions(network.model, source.experiment.image_shape)
  left = measure.report(network.variables['params'], positions)
  dense = {name: source.summary[name] for name in COUNTS}
  active = {f'active_{name}': left[f'active_{name}'] for name in dense}
  return {
    **dense,
    **active,
    'compression': _ratio(dense['weights'], active['active_weights']),
    'speedup': _ratio(dense['macs'], active['active_macs']),
  }


def _ratio(whole: float, part: float) -> float | None:
  return whole / part if part else None


def _latency(hidden, before, network, image_shape, rounds: int) -> dict[str, Any]:
  both = {latency.DENSE: before, latency.SHIPPED: network}
  with tempfile.TemporaryDirectory() as scratch:
    found = engines.engines(both, image_shape, hidden / NAMES['onnx'], pathlib.Path(scratch))
    return latency.measured(found, image_shape, rounds=rounds)
