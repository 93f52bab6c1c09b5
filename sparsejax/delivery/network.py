"""The network that is shipped: compacted, called and evaluated as its users will."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax import models
from sparsejax.experiment.step import steps
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training.setup import Experiment

Variables = Mapping[str, Any]


class Network(NamedTuple):
  """A deterministic network, and its variables: `params` and `batch_stats`."""

  model: Any
  variables: Variables

  def __call__(self, variables: Variables, images: jax.Array) -> jax.Array:
    """Returns the logits of images that are already scaled."""
    return self.model.apply(variables, images, train=False)


def without_dead_weights(network: Network, image_shape: tuple[int, ...]) -> Network:
  """Returns the network with zeros for the weights that no longer have any effect."""
  try:
    cleaned = models.remove_dead(network.model, network.variables, image_shape)
  except ValueError as error:
    say(f'only its zeros are removed: {error}')
    return network
  return Network(network.model, cleaned)


def shrunk(network: Network, image_shape: tuple[int, ...]) -> Network:
  """Returns the network with smaller arrays, from which the units that are zero are removed."""
  try:
    return Network(*models.shrink(network.model, network.variables, image_shape))
  except ValueError as error:
    say(f'its arrays keep their shapes: {error}')
    return network


def dense(model: Any, image_shape: tuple[int, ...]) -> Network:
  """Returns the network as it was before anything was removed, with weights drawn at random."""
  init = jax.jit(model.init, static_argnames='train')
  found = init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False)
  return Network(model, {'batch_stats': {}, **found})


def evaluation(experiment: Experiment, model: Any) -> Callable[[Variables, str], dict[str, float]]:
  """Returns (variables, split) -> the loss and the accuracy of a network, compiled once.

  Args:
    experiment: the experiment, whose data are evaluated on.
    model: the network.
  """
  evaluate = steps.make_evaluation(
    model, experiment.preprocessing, batch_size=experiment.config['evaluation']['batch_size']
  )
  data: dict[str, steps.Arrays] = {}

  def measured(variables, split):
    if split not in data:
      data[split] = steps.put_on_devices(getattr(experiment.dataset, split))
    found = evaluate(variables['params'], variables['batch_stats'], data[split])
    loss, accuracy = map(float, jax.device_get(found))
    return {f'{split}_loss': loss, f'{split}_accuracy': accuracy}

  return measured
