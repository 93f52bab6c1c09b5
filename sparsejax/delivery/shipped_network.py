"""The network that is shipped, made smaller and evaluated as its users run it."""

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
  """Returns the network with zeros for the weights that no longer have any effect.

  A network whose dead weights are not known is returned as it is, with a line that says why.
  """
  try:
    cleaned = models.remove_dead(network.model, network.variables, image_shape)
  except ValueError as error:
    say(f'only zero weights are removed: {error}')
    return network
  return Network(network.model, cleaned)


def shrink(network: Network, image_shape: tuple[int, ...]) -> Network:
  """Returns the network with smaller arrays, without the units that its zeros make useless.

  A network that cannot be made smaller is returned as it is, with a line that says why.
  """
  try:
    return Network(*models.shrink(network.model, network.variables, image_shape))
  except ValueError as error:
    say(f'the arrays of the network keep their shapes: {error}')
    return network


def dense(model: Any, image_shape: tuple[int, ...]) -> Network:
  """Returns the dense network with random weights, to compare sizes and latencies with."""
  init = jax.jit(model.init, static_argnames='train')
  variables = init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False)
  return Network(model, {'batch_stats': {}, **variables})


def make_evaluation(
  experiment: Experiment, model: Any
) -> Callable[[Variables, str], dict[str, float]]:
  """Returns a function from (variables, split) to the split's loss and accuracy.

  Args:
    experiment: the experiment that has the data.
    model: the network, compiled at the first call.
  """
  evaluate = steps.make_evaluation(
    model, experiment.preprocessing, batch_size=experiment.config['evaluation']['batch_size']
  )
  data: dict[str, steps.Arrays] = {}

  def measure(variables, split):
    if split not in data:
      data[split] = steps.put_on_devices(getattr(experiment.dataset, split))
    metrics = evaluate(variables['params'], variables['batch_stats'], data[split])
    loss, accuracy = map(float, jax.device_get(metrics))
    return {f'{split}_loss': loss, f'{split}_accuracy': accuracy}

  return measure
