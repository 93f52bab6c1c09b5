"""Reads a finished run with its experiment, to ship it."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment import python
from sparsejax.experiment.config import base
from sparsejax.experiment.machine import files
from sparsejax.experiment.outcome import finished, recorded
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training import posterior, registry, setup
from sparsejax.shipping import sharing

COUNTS = ('parameters', 'weights', 'macs')  # keys of summary.json, for the dense network


class Source(NamedTuple):
  """A finished run.

  Attributes:
    path: its directory.
    hash: the hash of its experiment.
    digest: the digest of the network that it delivers.
    experiment: its experiment with the data, built again from its config.
    model: the deterministic network that it delivers.
    variables: the variables of this network.
    summary: the content of its summary.json.
  """

  path: pathlib.Path
  hash: str
  digest: str
  experiment: setup.Experiment
  model: Any
  variables: Mapping[str, Any]
  summary: Mapping[str, Any]


def read(path: pathlib.Path, *, data_dir: str | None = None, parts: str | None = None) -> Source:
  """Returns a finished run with its experiment and data.

  Args:
    path: the run directory.
    data_dir: the folder of the data; None for the folder in the run's config.
    parts: a Python file that registers parts that the run uses.

  Raises:
    UsageError: if there is no finished run, it is damaged, or its data or code are missing.
  """
  loaded = python.load(path, parts=parts)
  config = dict(loaded.config)
  finished.require(path, config, ('chain', 'events', 'layers'), files.CONFIG)
  if missing := registry.missing(config):
    raise UsageError(f'run={path}: {missing}')
  told_hash = config.pop('hash')
  found = recorded.complete(path, config)
  counts = [name for name in COUNTS if type(loaded.summary.get(name)) is int]
  finished.require(path, counts, COUNTS, files.SUMMARY)
  config = dict(found.settings)
  if data_dir is not None:
    config['data'] = {**config['data'], 'dir': data_dir}
  try:
    experiment = setup.build(config)
  except ValueError as error:
    raise UsageError(f'run={path}: {error}') from error
  now = recorded.hash8(found, base.defaults(config), base.VERSION, experiment.digests)
  recorded.check_hash(path, told_hash, now, found.newer)
  deployed = dataclasses.replace(experiment.deployment, model=loaded.model)
  digest = checkpoint.source_digest(str(path))
  assert digest is not None
  return Source(
    path=path,
    hash=told_hash,
    digest=digest,
    experiment=experiment._replace(deployment=deployed),
    model=loaded.model,
    variables=loaded.variables,
    summary=loaded.summary,
  )


def posterior_bits(source: Source) -> dict[str, int]:
  """Returns {pattern of a layer: bits}, as the precision of the run's posterior gives them.

  These are the `bits` of the run's summary, but 8 for a layer that needs more, because weights
  share at most 2^8 values. A printed line gives the bits and this limit.

  Raises:
    UsageError: the run has no posterior, or its posterior is missing or damaged.
  """
  experiment = source.experiment
  if not experiment.deployment.is_variational:
    raise UsageError(
      f'--bits=posterior must be given with a run whose layers have posteriors; the layers of '
      f'run={source.path} are {experiment.config["layers"]}'
    )
  _, params, _ = finished.read_posterior(source.path, source.hash, experiment)
  _, grids = posterior.rounded(params, source.variables['params'])
  found = ', '.join(f'{layer} {grid.bits}' for layer, grid in grids.items())
  say(f'bits of the posterior: {found}; at most {sharing.MOST_BITS} are used')
  return {
    f'^{re.escape(layer)}/kernel$': min(grid.bits, sharing.MOST_BITS)
    for layer, grid in grids.items()
  }
