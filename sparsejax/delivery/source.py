"""A finished run with the experiment that it was, from which a shipment is made."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment import python
from sparsejax.experiment.config import base, identity
from sparsejax.experiment.machine import files
from sparsejax.experiment.outcome import finished
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.training import registry, setup

COUNTS = ('parameters', 'weights', 'macs')  # of the dense network, in its summary


class Source(NamedTuple):
  """A finished run.

  Attributes:
    path: its directory.
    hash: the hash of its experiment.
    digest: the digest of the network that it delivers.
    experiment: its config with the data, built again.
    model: the deterministic network.
    variables: what the run delivers.
    summary: its figures.
  """

  path: pathlib.Path
  hash: str
  digest: str
  experiment: setup.Experiment
  model: Any
  variables: Mapping[str, Any]
  summary: Mapping[str, Any]


def read(path: pathlib.Path, *, data_dir: str | None = None, parts: str | None = None) -> Source:
  """Returns a finished run, and the experiment with its data.

  Args:
    path: the run directory.
    data_dir: the folder of the data, if it is not the run's own.
    parts: a file that registers the run's own parts.

  Raises:
    UsageError: if there is no finished run, it is damaged, or its data or code are missing.
  """
  loaded = python.load(path, parts=parts)
  config = finished.restore_tuples(loaded.config)
  finished.require(path, config, ('chain', 'events', 'layers', 'data'), files.CONFIG)
  if missing := registry.missing(config):
    raise UsageError(f'run={path}: {missing}')
  told = config.pop('hash')
  counts = [name for name in COUNTS if type(loaded.summary.get(name)) is int]
  finished.require(path, counts, COUNTS, files.SUMMARY)
  defaults = base.defaults(config)
  finished.check_fields(path, config, defaults)
  if data_dir is not None:
    config['data'] = {**config['data'], 'dir': data_dir}
  try:
    experiment = setup.build(config)
  except ValueError as error:
    raise UsageError(f'run={path}: {error}') from error
  now = identity.hash8(config, defaults, base.VERSION, experiment.digests)
  finished.check_hash(path, told, now)
  deployed = dataclasses.replace(experiment.deployment, model=loaded.model)
  digest = checkpoint.source_digest(str(path))
  assert digest is not None
  return Source(
    path=path,
    hash=told,
    digest=digest,
    experiment=experiment._replace(deployment=deployed),
    model=loaded.model,
    variables=loaded.variables,
    summary=loaded.summary,
  )
