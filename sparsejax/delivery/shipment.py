"""Ships a run: makes its network smaller, writes it, reads it back and measures it."""

import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax import models, shipping
from sparsejax.delivery import centroids, engines, folder, latency, shipped_network
from sparsejax.delivery import source as sources
from sparsejax.delivery.request import FILE, NAMES, POSTERIOR, Request
from sparsejax.delivery.shipped_network import Network
from sparsejax.delivery.source import COUNTS, Source
from sparsejax.experiment.machine import files, provenance, threads
from sparsejax.experiment.rundir import digests
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import say
from sparsejax.shipping import export, sharing
from sparsejax.sparsity.counting import measure

ACCURACIES = ('validation_accuracy', 'test_accuracy')
MAX_BYTES = 2**40  # no limit: the file was written by this process


def identify(source: Source, request: Request) -> dict[str, Any]:
  """Returns what identifies a shipment: its run, and the options that change the files."""
  run = {'hash': source.hash, 'seed': source.experiment.config['seed'], 'network': source.digest}
  return run | request.content_options


def ship(source: Source, request: Request, shipment: Mapping[str, Any]) -> dict[str, Any]:
  """Writes a shipment; returns the content of its shipped.json.

  Args:
    source: the finished run.
    request: the options; the folder is empty or does not exist.
    shipment: the result of `identify`.

  Raises:
    UsageError: if the bits or a format are impossible for this network; nothing is written.
    OSError: if a file cannot be written, or answers differently when read back.
  """
  experiment = source.experiment
  if request.bits == POSTERIOR:
    request = request._replace(bits=sources.posterior_bits(source))
  network = Network(source.model, source.variables)
  network = shipped_network.without_dead_weights(network, experiment.image_shape)
  evaluate = shipped_network.make_evaluation(experiment, network.model)
  variables, bits = centroids.share_weights(network.variables, request, evaluate)
  if request.epochs:
    shared = Network(network.model, variables)
    variables = centroids.train(experiment, shared, request, evaluate)
  # Last, since a unit's constant that went into BatchNorm's averages would not follow training.
  network = shipped_network.shrink(Network(network.model, variables), experiment.image_shape)
  evaluate = shipped_network.make_evaluation(experiment, network.model)
  with (
    folder.create_atomically(request.out) as hidden,
    files.naming_full_disk(request.out.absolute().parent),
  ):
    network = _write(hidden, source, network, bits, request)
    say('measuring the network in the model file')
    measurements = {
      'name': experiment.config['name'],
      'shipment': shipment,
      **_measure(hidden, source, network, bits, request, evaluate),
    }
    measurements[digests.KEY] = digests.of_content(measurements)
    files.write_json(hidden / files.SHIPPED, measurements)
  return measurements


def _write(
  hidden: pathlib.Path,
  source: Source,
  network: Network,
  bits: sharing.Bits | None,
  request: Request,
) -> Network:
  """Writes every format; returns the network as it is read back from the model file.

  Args:
    hidden: the folder to write to.
    source: the finished run.
    network: the network to ship.
    bits: the bits of its shared weights; None if they share no values.
    request: the options.

  Raises:
    UsageError: a format cannot hold this network.
  """
  config = source.experiment.config
  settings = {
    'num_classes': source.experiment.dataset.num_classes,
    'width': config['model']['width'],
    **{size: given for size in models.SIZES if (given := config['model'][size]) is not None},
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
  read = shipping.load(hidden / NAMES[FILE], like=network.variables, max_bytes=MAX_BYTES)
  network = Network(network.model, jax.tree.map(jnp.asarray, read.params))
  metadata = {
    'model': config['model']['name'],
    'settings': settings,
    'scaling': _scaling(source),
    'provenance': origin,
  }
  images = jax.ShapeDtypeStruct((1, *source.experiment.image_shape), jnp.float32)
  for name in request.formats:
    if name != FILE:
      say(f'writing {NAMES[name]}')
      try:
        EXPORTS[name](hidden / NAMES[name], network, images, metadata)
      except ValueError as error:
        raise UsageError(f'--format={name}: {error}') from error
  return network


# {format: function of (path, network, shape of the images, metadata)}
EXPORTS: dict[str, Callable[[pathlib.Path, Network, Any, Mapping[str, Any]], None]] = {
  'onnx': lambda path, network, images, _: export.onnx(path, network, network.variables, images),
  'stablehlo': lambda path, network, images, _: export.stablehlo(
    path, network, network.variables, images
  ),
  'safetensors': lambda path, network, _, metadata: export.safetensors(
    path, network.variables, metadata
  ),
}


def _scaling(source: Source) -> dict[str, Any]:
  """Returns the mean and standard deviation by which pixels in [0, 1] are normalised."""
  scaling = source.experiment.preprocessing
  moments = {'mean': scaling.mean, 'std': scaling.std}
  return {name: np.asarray(value, np.float64).tolist() for name, value in moments.items()}


def _measure(
  hidden: pathlib.Path,
  source: Source,
  network: Network,
  bits: sharing.Bits | None,
  request: Request,
  evaluate: centroids.Evaluate,
) -> dict[str, Any]:
  """Returns accuracy, bytes, theoretical gains and latency of the network; reads the test split.

  Args:
    hidden: the folder, with every format written.
    source: the finished run.
    network: the network as it was read back from the model file.
    bits: the bits of its shared weights; None if they share no values.
    request: the options.
    evaluate: returns the metrics of (variables, split).
  """
  experiment = source.experiment
  model_file = hidden / NAMES[FILE]
  before = shipped_network.dense(source.model, experiment.image_shape)
  shipped_bytes = model_file.stat().st_size
  dense_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(before.variables))
  latencies = _latency(hidden, before, network, experiment.image_shape, request.rounds)
  return {
    'bits': bits,
    **evaluate(network.variables, 'validation'),
    **evaluate(network.variables, 'test'),  # once, after all that could fail
    'before': {name: source.summary.get(name) for name in ACCURACIES},
    'bytes': shipped_bytes,
    'dense_bytes': dense_bytes,
    'compression_in_bytes': dense_bytes / shipped_bytes,  # nothing is left out
    'bytes_by_part': shipping.sizes(model_file),
    'files': folder.describe_files(hidden),
    'theoretical': _theoretical(source, network),
    'latency': latencies,
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
  positions, products = models.applied(network.model, source.experiment.image_shape)
  counts = measure.report(network.variables['params'], positions, products=products)
  dense = {name: source.summary[name] for name in COUNTS}
  active = {f'active_{name}': counts[f'active_{name}'] for name in dense}
  return {
    **dense,
    **active,
    'compression': _ratio(dense['weights'], active['active_weights']),
    'speedup': _ratio(dense['macs'], active['active_macs']),
  }


def _ratio(whole: float, part: float) -> float | None:
  """Returns whole / part, or None if nothing is left."""
  return whole / part if part else None


def _latency(
  hidden: pathlib.Path,
  dense: Network,
  shipped: Network,
  image_shape: tuple[int, ...],
  rounds: int,
) -> dict[str, Any]:
  """Returns the latency of both networks by engine and batch size."""
  pair = {latency.DENSE: dense, latency.SHIPPED: shipped}
  with tempfile.TemporaryDirectory() as scratch:
    functions = engines.make_engines(
      pair, image_shape, hidden / NAMES['onnx'], pathlib.Path(scratch)
    )
    return latency.measure_latency(functions, image_shape, rounds=rounds)
