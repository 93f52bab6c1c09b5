"""The network that a run delivers: deployed parameters, and BatchNorm's averages for these."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax

from sparsejax import posterior
from sparsejax.experiment.rundir.state import Best
from sparsejax.experiment.step import events
from sparsejax.experiment.step.steps import Arrays, put_on_devices
from sparsejax.models.structure import remove_dead

if TYPE_CHECKING:  # an experiment holds a deployment
  from sparsejax.experiment.training.setup import Experiment


@dataclasses.dataclass(frozen=True)
class Deployment:
  """Turns the trained network into the one that is evaluated, counted and delivered.

  Attributes:
    model: the network with deterministic layers; a deterministic network is this itself.
    image_shape: (height, width, channels).
    thresholds: the thresholds by layer, as `posterior.deploy` takes them; None for a deterministic
      network, which is its own deployment.
  """

  model: Any
  image_shape: tuple[int, ...]
  thresholds: Mapping[str, float] | None = None

  @property
  def is_variational(self) -> bool:
    return self.thresholds is not None

  def __call__(self, params: Any, batch_stats: Any) -> Any:
    """Returns the deterministic parameters, without weights that have no effect. Jittable."""
    if self.thresholds is None:
      return params
    params = posterior.deploy(params, self.thresholds)
    variables = {'params': params, 'batch_stats': batch_stats}
    # A removed unit also loses BatchNorm's constant, since its group's threshold decides on both.
    cleaned = remove_dead(self.model, variables, self.image_shape, drop_constants=True, check=False)
    return cleaned['params']

  @functools.cached_property
  def jitted(self) -> Callable[[Any, Any], Any]:
    """The same as a compiled function; a network that is its own deployment is not copied."""
    return jax.jit(self.__call__) if self.is_variational else self


def batch_norm_averager(experiment: 'Experiment', data: Arrays) -> Callable[[Any, Any], Any]:
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


def deliver(experiment: 'Experiment', best: Best) -> dict[str, Any]:
  """Returns the variables of the network that a run delivers: the best one, deployed."""
  network = experiment.deployment.jitted(best.params, best.batch_stats)
  averages = batch_norm_averager(experiment, put_on_devices(experiment.dataset.train))
  return {'params': network, 'batch_stats': averages(network, best.batch_stats)}
