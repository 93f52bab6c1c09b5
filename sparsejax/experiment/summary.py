"""summary.json: every figure of the one network that a run delivers."""

from typing import Any

import jax

from sparsejax.experiment import data, steps
from sparsejax.experiment.setup import Experiment, on_devices
from sparsejax.experiment.state import Best
from sparsejax.experiment.train import phase_of
from sparsejax.sparsity import measure


def summarise(
  experiment: Experiment, best: Best, *, experiment_hash: str, seconds: float, phases: dict
) -> dict[str, Any]:
  """Returns the summary: the best network by validation at the final target, measured anew.

  The test split is touched here, once, and nowhere else. Training accuracy and loss are those of
  the deployed network on unaugmented images, not the running means of the metrics.
  """
  config, clock = experiment.config, experiment.clock
  network = experiment.deployment.jitted()(best.params, best.batch_stats)
  variables = (network, best.batch_stats)
  accuracies = _measure_splits(experiment, variables)
  phase = 'retrained' if phases else 'dense'
  figures = (accuracies['validation_loss'], accuracies['validation_accuracy'])
  phases = phases | {phase: phase_of(experiment, network, int(best.step), *figures)}
  return {
    'name': config['name'],
    'hash': experiment_hash,
    'seed': config['seed'],
    'dataset': config['data']['name'],
    'model': config['model']['name'],
    'method': config['method'],
    'epochs': config['epochs'],
    'steps': clock.total_steps,
    'best_step': int(best.step),
    'seconds': round(seconds, 1),
    'examples_per_second': round(clock.total_steps * clock.batch_size / seconds, 1),
    **accuracies,
    **measure.report(network, experiment.positions),
    'phases': phases,
  }


def _measure_splits(experiment: Experiment, variables) -> dict[str, float]:
  batch_size = experiment.config['evaluation']['batch_size']
  evaluate = steps.make_evaluation(
    experiment.deployment.model, experiment.preprocessing, batch_size=batch_size
  )
  figures = {}
  for name in ('train', 'validation', 'test'):
    split: data.Split = getattr(experiment.dataset, name)
    loss, accuracy = jax.device_get(evaluate(*variables, on_devices(split)))
    figures |= {f'{name}_loss': float(loss), f'{name}_accuracy': float(accuracy)}
  return figures
