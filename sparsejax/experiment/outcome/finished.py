"""A finished run, read back from its directory."""

import pathlib
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from sparsejax import posterior
from sparsejax.experiment.machine import files
from sparsejax.experiment.outcome.recorded import Recorded, complete
from sparsejax.experiment.rundir import checkpoint, digests, metrics
from sparsejax.experiment.terminal.errors import UsageError, in_one_line
from sparsejax.experiment.training import registry
from sparsejax.experiment.training.setup import Experiment


class Finished(NamedTuple):
  """The files of a finished run.

  Attributes:
    path: the run directory.
    recorded: its settings, with today's defaults for those that are newer than the run.
    hash: the hash of its experiment.
    summary: its figures.
    lines: the lines of its metrics.
    starts: its environment at each start.
  """

  path: pathlib.Path
  recorded: Recorded
  hash: str
  summary: Mapping[str, Any]
  lines: Sequence[Mapping[str, Any]]
  starts: Sequence[Mapping[str, Any]]

  @property
  def config(self) -> Mapping[str, Any]:
    """Its settings, as they were before they became JSON."""
    return self.recorded.settings

  @property
  def trained_as(self) -> str:
    """The hash of the run that trained the posterior, since this run may only have deployed it."""
    return self.summary.get('deployed_from', self.hash)


ADVICE = 'give the directory of a finished run with posteriors'


def read(path: pathlib.Path) -> Finished:
  """Returns a finished run.

  Raises:
    UsageError: there is no finished run, or it is damaged or has no posteriors.
  """
  config, summary = (_json(path / name, dict) for name in (files.CONFIG, files.SUMMARY))
  for found, names, file in (
    (config, ('hash', 'seed', 'chain', 'events', 'layers'), files.CONFIG),
    (summary, ('hash', 'seed', 'best_step', 'seconds'), files.SUMMARY),
  ):
    require(path, found, names, file)
  try:
    checkpoint.common_owner(config, summary)
  except ValueError as error:
    raise UsageError(f'run={path}: {error}; {ADVICE}') from None
  if missing := registry.missing(config):
    raise UsageError(f'run={path}: {missing}')
  if (layers := config['layers']) not in posterior.FAMILIES:
    families = ', '.join(posterior.FAMILIES)
    raise UsageError(f'run={path}: its layers are {layers}; they must be one of {families}')
  _posterior_folder(path)
  try:
    lines = metrics.read(path / files.METRICS)
  except ValueError as error:
    raise UsageError(f'run={path}: its {files.METRICS} is damaged ({error})') from None
  if not lines or lines[-1].get('step') != summary['best_step']:
    step = summary['best_step']
    raise UsageError(f'run={path}: its {files.METRICS} does not end at step {step}; {ADVICE}')
  experiment_hash = config.pop('hash', None)
  starts = _json(path / files.ENVIRONMENT, list)
  if not all(isinstance(start, dict) for start in starts):
    raise UsageError(f'run={path}: its {files.ENVIRONMENT} lists no starts; {ADVICE}')
  digests.warn(path)
  return Finished(path, complete(path, config), experiment_hash, summary, lines, starts)


def read_posterior(
  path: pathlib.Path, experiment_hash: str, experiment: Experiment
) -> tuple[int, Any, Any]:
  """Returns the step, the parameters and the BatchNorm averages of a run's posterior.

  Args:
    path: the run directory.
    experiment_hash: the hash in its files.
    experiment: the experiment built from the run's config, with any thresholds.

  Raises:
    UsageError: the posterior is missing or damaged, or belongs to another network.
  """
  folder = _posterior_folder(path)
  shapes = jax.eval_shape(experiment.init_variables)
  like = {'params': shapes['params'], 'batch_stats': shapes.get('batch_stats', {})}
  try:
    owner = checkpoint.Owner(experiment_hash, experiment.config['seed'])
    found, notes = checkpoint.read(folder, like, owner, is_finished=True)
  except ValueError as error:
    raise UsageError(f'run={path}: {in_one_line(error)}; {ADVICE}') from error
  return notes['step'], found['params'], found['batch_stats']


def _posterior_folder(path: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a run's posterior; raises a UsageError if there is none."""
  folder = path / files.CHECKPOINTS / checkpoint.POSTERIOR
  if not (folder / checkpoint.MANIFEST).exists():
    raise UsageError(f'run={path}: it has no {folder.relative_to(path)}; {ADVICE}')
  return folder


def require(path: pathlib.Path, found: Container[str], names: Sequence[str], file: str) -> None:
  """Raises a UsageError that names the first entry that a run's file lacks."""
  for name in names:
    if name not in found:
      raise UsageError(
        f"run={path}: its {file} has no '{name}'; give the directory of a finished run with the "
        'same defaults'
      )


def _json(file: pathlib.Path, kind: type) -> Any:
  try:
    found = files.read_json(file)
  except OSError as error:
    reason = f'{file.name}: {error.strerror}'
    raise UsageError(f'run={file.parent}: {reason}; {ADVICE}') from None
  except ValueError as error:
    raise UsageError(f'run={file.parent}: its {file.name} is damaged ({error})') from None
  if not isinstance(found, kind):
    raise UsageError(f'run={file.parent}: its {file.name} holds no {kind.__name__}; {ADVICE}')
  return found
