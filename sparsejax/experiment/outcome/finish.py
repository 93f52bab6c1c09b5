"""The results of a finished training: the network that it delivers, its figures, its picture."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from sparsejax.experiment.data import datasets
from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import checkpoint, digests, runs
from sparsejax.experiment.rundir.state import Best
from sparsejax.experiment.show import display
from sparsejax.experiment.step import steps
from sparsejax.experiment.training import posterior
from sparsejax.experiment.training.setup import Experiment
from sparsejax.experiment.training.train import phase_figures
from sparsejax.posterior import precision


def finish(
  experiment: Experiment,
  best: Best,
  variables: Mapping[str, Any],
  directory: runs.RunDirectory | None,
  lines: Sequence[Mapping[str, Any]],
  **notes: Any,
) -> dict[str, Any]:
  """Measures the network that a run delivers, saves and shows the results; returns the summary.

  Args:
    experiment: the experiment that was run.
    best: the state that training chose.
    variables: the variables of the network that `Experiment.deliver` made from it.
    directory: the run directory; None in a process that does not write.
    lines: the lines of metrics.jsonl.
    **notes: the other arguments of `summarise`.
  """
  summary = summarise(experiment, best, variables, **notes)
  if directory is not None:
    _write_results(experiment, directory, best, variables, summary, lines)
  display.final_table(summary)
  return summary


def _write_results(
  experiment: Experiment,
  directory: runs.RunDirectory,
  best: Best,
  variables: Mapping[str, Any],
  summary: Mapping[str, Any],
  lines: Sequence[Mapping[str, Any]],
) -> None:
  """Writes the networks and the plot of a finished run, and last its summary.

  A run counts as finished once its summary exists.
  """
  path, root, owner = directory.path, directory.checkpoints, directory.owner
  notes = {'step': int(best.step)}
  if experiment.deployment.is_variational:
    trained = {'params': best.params, 'batch_stats': best.batch_stats}
    checkpoint.write(root / checkpoint.POSTERIOR, owner, trained, notes)
  # Last of the networks, since readers look for it.
  checkpoint.write(root / checkpoint.BEST, owner, variables, notes)
  _draw(lines, path, summary, experiment.agenda)
  text = files.json_text(summary)
  digests.write(path, text)  # digests.json, by which later changes to the files are noticed
  files.write_atomically(path / files.SUMMARY, text)


def _draw(
  lines: Sequence[Mapping[str, Any]], path: pathlib.Path, summary: Mapping[str, Any], agenda: Any
) -> None:
  """Plots the metrics of a run to trace.png in its directory."""
  from sparsejax.experiment.show import trace

  title = f'{summary["name"]}, seed {summary["seed"]}: {summary["model"]} on {summary["dataset"]}'
  place = path / files.TRACE
  trace.plot_trace(lines, place, title=title, prune_steps=agenda.cuts, summary=summary)


def summarise(
  experiment: Experiment,
  best: Best,
  variables: Mapping[str, Any],
  *,
  experiment_hash: str,
  seconds: float,
  phases: dict,
  deployed_from: str | None = None,
) -> dict[str, Any]:
  """Returns the summary: figures of the best network by validation at the final density.

  Only here is the test split read: by the network and, if that is variational, by the same network
  rounded to its bit widths. Training accuracy and loss are those of the deployed network on
  unaugmented images, not the running means of the metrics.

  Args:
    experiment: the experiment that was run.
    best: the state that training chose.
    variables: the variables of the network that `Experiment.deliver` made from it.
    experiment_hash: the hash of the config.
    seconds: the seconds that training took.
    phases: what was noted about the network during training.
    deployed_from: the hash of the run that trained the posterior, if it was another run.
  """
  config, clock = experiment.config, experiment.clock
  network = variables['params']
  measured = measure_splits(experiment, variables, ('train', 'validation', 'test'))
  phase = 'retrained' if phases else 'dense'
  if experiment.deployment.is_variational:
    phase = 'deployed'
  figures = (measured['validation_loss'], measured['validation_accuracy'])
  counts = experiment.report(network)
  phases = phases | {phase: phase_figures(experiment, network, int(best.step), *figures)}
  return {
    'name': config['name'],
    'hash': experiment_hash,
    **({} if deployed_from is None else {'deployed_from': deployed_from}),
    'seed': config['seed'],
    'dataset': config['data']['name'],
    'model': config['model']['name'],
    'num_classes': experiment.dataset.num_classes,
    'method': config['method'],
    'is_pretrained': config['init_from'] is not None,
    'epochs': config['epochs'],
    'steps': clock.total_steps,
    'best_step': int(best.step),
    'seconds': round(seconds, 1),
    'examples_per_second': round(clock.total_steps * clock.batch_size / seconds, 1),
    **measured,
    **(perplexities(measured) if experiment.dataset.is_text else {}),
    **counts,
    'phases': phases,
    **_variational_summary(experiment, best, variables, counts['layers']),
  }


def _variational_summary(
  experiment: Experiment,
  best: Best,
  variables: Mapping[str, Any],
  layers: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """Returns the figures that only a variational run has; {} for a deterministic one.

  Args:
    experiment: the experiment that was run.
    best: the state that training chose, whose parameters are those of the posteriors.
    variables: the variables of the deployed network.
    layers: the weights and active weights of each layer, as counted by `measure.report`.

  Returns:
    `architecture`, the kept units of each layer; `bits`, the bit width of each layer;
    `compression_with_bits`, which counts only the bits of the remaining weights, neither the
    positions of the nonzeros nor biases, so a file is larger, and `sparsejax.ship` writes it with
    its own ratio, `compression_in_bytes`; the loss and accuracy on the validation and test splits
    of the network rounded to these widths, as `SPLIT_loss_with_bits` and
    `SPLIT_accuracy_with_bits`; and `log_alpha`, each layer's histogram of log alpha with its
    thresholds.
  """
  thresholds = experiment.deployment.thresholds
  if thresholds is None:
    return {}
  network = variables['params']
  rounded, grids = posterior.rounded(best.params, network)
  sizes = {path: (layers[path]['weights'], layers[path]['active_weights']) for path in grids}
  measured = measure_splits(experiment, {**variables, 'params': rounded}, ('validation', 'test'))
  return {
    'architecture': posterior.kept_units(network, list(experiment.positions)),
    'bits': {path: grid.bits for path, grid in grids.items()},
    'compression_with_bits': precision.compression(sizes, grids),
    **{f'{name}_with_bits': value for name, value in measured.items()},
    'log_alpha': posterior.histograms(best.params, thresholds),
  }


def measure_splits(
  experiment: Experiment, variables: Mapping[str, Any], splits: Sequence[str]
) -> dict[str, float]:
  """Returns the loss and the accuracy of a network on some splits of the run's data.

  Args:
    experiment: the experiment, with the model that it deploys, its data and their preprocessing.
    variables: the network's variables, `params` and `batch_stats`.
    splits: the names of splits of `experiment.dataset`: 'train', 'validation' or 'test'.

  Returns:
    {'SPLIT_loss': mean loss, 'SPLIT_accuracy': fraction of correct answers}, for each split.
  """
  batch_size = experiment.config['evaluation']['batch_size']
  evaluate = steps.make_evaluation(
    experiment.deployment.model, experiment.preprocessing, batch_size=batch_size
  )
  params, batch_stats = variables['params'], variables['batch_stats']
  metrics = {}
  for name in splits:
    split: datasets.Split = getattr(experiment.dataset, name)
    loss, accuracy = jax.device_get(evaluate(params, batch_stats, steps.put_on_devices(split)))
    metrics[f'{name}_loss'] = float(loss)
    metrics[f'{name}_accuracy'] = float(accuracy)
  return metrics


def perplexities(measured: Mapping[str, float]) -> dict[str, float]:
  """Returns each loss, in nats per byte, as a perplexity and in bits per byte.

  Example:
    >>> perplexities({'test_loss': math.log(4.0), 'test_accuracy': 0.5})
    {'test_perplexity': 4.0, 'test_bits_per_byte': 2.0}
  """
  found = {}
  for name, loss in measured.items():
    if name.endswith('_loss'):
      split = name.removesuffix('_loss')
      found[f'{split}_perplexity'] = math.inf if loss >= 700 else math.exp(loss)
      found[f'{split}_bits_per_byte'] = loss / math.log(2)
  return found
