"""Deploys a trained posterior again, under other thresholds of log alpha, as a run of its own.

The directory that it leaves is that of a run, with two differences. Its summary says which run
trained the posterior (`deployed_from`). And only the last line of its metrics describes the
network: losses, the KL, log alpha at its bounds and learning rates are the training's, whatever the
threshold; but the counts and validations on the way were made under the old thresholds, and the
posteriors of those steps are gone.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax import posterior
from sparsejax.experiment.config import check, identity
from sparsejax.experiment.machine import files
from sparsejax.experiment.outcome import finished, recorded
from sparsejax.experiment.outcome.finish import finish, measure_splits
from sparsejax.experiment.rundir import checkpoint, metrics, runs
from sparsejax.experiment.rundir.state import Best
from sparsejax.experiment.show import display
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training import setup
from sparsejax.experiment.training.posterior import kept_units
from sparsejax.experiment.training.writers import Writers
from sparsejax.sparsity.counting import measure


class _Prepared(NamedTuple):
  """A posterior with new thresholds, checked."""

  experiment: setup.Experiment
  hash: str
  best: Best  # without a loss, which has not been measured
  network: Any  # its deployed parameters


def look(
  source: finished.Finished, config: Mapping[str, Any], defaults: Mapping[str, Any], *, version: int
) -> dict[str, Any]:
  """Returns the validation figures of a run's posterior under other thresholds; writes nothing.

  The test set is not read, so this may be repeated until a threshold is chosen.

  Args:
    source, config, defaults, version: as for `deploy`.

  Raises:
    UsageError: the config cannot be used.
  """
  experiment, _, best, network = _prepare(source, config, defaults, version)
  delivered = experiment.deliver(best)
  counts = measure.report(network)
  return {
    'thresholds': dict(_thresholds(experiment)),
    **measure_splits(experiment, delivered, ('validation',)),
    **{name: counts[name] for name in ('compression', 'active_weights')},
    'architecture': kept_units(network, list(experiment.positions)),
  }


def deploy(
  source: finished.Finished,
  config: Mapping[str, Any],
  defaults: Mapping[str, Any],
  *,
  version: int,
  workdir: pathlib.Path,
) -> dict[str, Any]:
  """Deploys a run's posterior into a new run directory; returns the summary.

  The hash is the one that launch.py gives the new config. Thresholds act only when a posterior is
  deployed, not in training (except by the training mask, with which they may not change), so a run
  that has them from the start trains this posterior and delivers this network.

  Args:
    source: the run that has the posterior.
    config: its settings, except the thresholds and the location of the data.
    defaults: the defaults of base.py for the same chain and events.
    version: the version of the defaults.
    workdir: the run directory; if it holds this run, finished, it is left as it is.

  Raises:
    UsageError: the config or a directory cannot be used; nothing has been written.
  """
  experiment, experiment_hash, best, _ = _prepare(source, config, defaults, version)
  with runs.RunDirectory(workdir, config, experiment_hash) as directory:
    if (found := directory.summary) is not None:
      say(f'{workdir} already holds this run, finished; nothing is deployed.')
      display.final_table(found)
      return found
    if trained := checkpoint.committed(directory.checkpoints):
      raise UsageError(
        f'workdir={workdir}: it holds an unfinished run, at step {int(trained[-1].name)}; give '
        'an empty directory'
      )
    applied = _thresholds(experiment).items()
    shown = ', '.join(f'{path} {threshold:g}' for path, threshold in applied)
    say(f'thresholds of log alpha: {shown}')
    say(f'run directory: {workdir}')
    with files.naming_full_disk(workdir):
      delivered = experiment.deliver(best)
      measured = _measure(experiment, delivered)
      best = best._replace(loss=jnp.float32(measured['validation_loss']))
      _note_starts(directory, source)
      with Writers(directory, experiment, step=-1) as writers:
        for line in _lines(source, measured):
          writers.append(line)
        writers.sync()
      return finish(
        experiment,
        best,
        delivered,
        directory,
        writers.lines,
        experiment_hash=experiment_hash,
        seconds=source.summary['seconds'],
        phases={},
        deployed_from=source.trained_as,
      )


def _thresholds(experiment: setup.Experiment) -> Mapping[str, float]:
  """The thresholds of log alpha by layer; `finished.read` refuses runs without posteriors."""
  thresholds = experiment.deployment.thresholds
  assert thresholds is not None
  return thresholds


def _prepare(
  source: finished.Finished, config: Mapping[str, Any], defaults: Mapping[str, Any], version: int
) -> _Prepared:
  if 'prune' in config['chain']:
    chain = ', '.join(config['chain'])
    raise UsageError(
      f"chain={chain}: give a run without 'prune', whose cuts are not kept with a posterior"
    )
  try:
    experiment = setup.build(check.check(config, all_read=False))
  except ValueError as error:
    raise UsageError(str(error)) from error
  now = recorded.hash8(source.recorded, defaults, version, experiment.digests)
  recorded.check_hash(source.path, source.hash, now, source.recorded.newer)
  step, params, batch_stats = finished.read_posterior(source.path, source.hash, experiment)
  network = experiment.deployment.jitted(params, batch_stats)
  _check_layers(experiment, source, params, network)
  experiment_hash = identity.hash8(config, defaults, version, experiment.digests)
  nothing = jnp.float32(jnp.nan)
  best = Best(jnp.int32(step), nothing, nothing, params, batch_stats)
  return _Prepared(experiment, experiment_hash, best, network)


def _check_layers(
  experiment: setup.Experiment, source: finished.Finished, params: Any, network: Any
) -> None:
  """Refuses thresholds under which a layer loses all its remaining weights."""
  before = source.summary.get('layers', {})
  now = measure.report(network)['layers']
  gone = [p for p, row in now.items() if not row['active_weights']]
  gone = [path for path in gone if before.get(path, {}).get('active_weights', 1)]
  if not gone:
    return
  family = experiment.config['layers']
  thresholds = _thresholds(experiment)
  for path, values in posterior.log_alphas(params).items():
    if path not in gone:
      continue
    lowest = float(jnp.min(values))
    if lowest >= thresholds[path]:
      raise UsageError(
        f"{family}: threshold of '{path}', {thresholds[path]}: its log alpha is {lowest:.2f} or "
        'more, so the whole layer would be removed; give a higher threshold'
      )
  given = ', '.join(f'{path}={threshold}' for path, threshold in thresholds.items())
  raise UsageError(
    f"{family}: thresholds of {given}: no weight of '{gone[0]}' would lie on a path from the image "
    'to the output; give higher thresholds'
  )


def _measure(experiment: setup.Experiment, delivered: Mapping[str, Any]) -> dict[str, int | float]:
  """The last line's figures of the network, as training would have written them."""
  network = delivered['params']
  found = jax.device_get(metrics.counts(network, experiment.counted_above))
  parameters = sum(measure.sizes(network).values())
  return {
    **measure_splits(experiment, delivered, ('validation',)),
    **metrics.counted(found, parameters, *experiment.applied),
  }


def _lines(source: finished.Finished, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
  of_training: list[dict[str, Any]] = [
    {name: value for name, value in line.items() if name not in metrics.NETWORK_FIELDS}
    for line in source.lines
  ]
  return [*of_training[:-1], {**of_training[-1], **measured}]


def _note_starts(directory: runs.RunDirectory, source: finished.Finished) -> None:
  """Begins the environment with the training's starts, which the losses and seconds belong to."""
  file = directory.path / files.ENVIRONMENT
  if not file.exists():
    files.write_json(file, source.starts)
  directory.note_start()
