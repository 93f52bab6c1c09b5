"""The network that a run delivers: its deployed parameters, and BatchNorm's averages for these."""

from collections.abc import Callable
from typing import Any

from sparsejax.experiment.rundir.state import Best
from sparsejax.experiment.step import events
from sparsejax.experiment.step.steps import Arrays
from sparsejax.experiment.training.setup import Experiment, on_devices


def averages_of(experiment: Experiment, data: Arrays) -> Callable[[Any, Any], Any]:
  """Returns (network, batch_stats) -> BatchNorm's averages for evaluating the network.

  The averages of training include the posterior's noise, whose variance is as large as the signal's
  when much is about to be removed, so a network deployed from a posterior gets its own averages.
  Every other network keeps those of training.

  Args:
    experiment: the experiment.
    data: its training images, on the devices.
  """
  deployment, config = experiment.deployment, experiment.config
  if not deployment.is_variational:
    return lambda network, batch_stats: batch_stats
  context = events.Context(
    deployment.model, experiment.preprocessing, data, config['batch_size'], config['seed']
  )
  return events.averager(config['evaluation']['batch_norm_batches'], context)


def deliver(experiment: Experiment, best: Best) -> dict[str, Any]:
  """Returns the variables of the network that a run delivers: the best one, deployed."""
  network = experiment.deployment.jitted(best.params, best.batch_stats)
  averages = averages_of(experiment, on_devices(experiment.dataset.train))
  return {'params': network, 'batch_stats': averages(network, best.batch_stats)}
