"""Weights that share values: as few as validation allows, and these trained further."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax import models, shipping
from sparsejax.delivery.network import Network, Variables
from sparsejax.delivery.request import AUTO, Request
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir import state
from sparsejax.experiment.step import augment, steps
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.numbers import percent
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training.setup import Experiment
from sparsejax.shipping import sharing

Evaluate = Callable[[Variables, str], dict[str, float]]
ACCURACY = 'validation_accuracy'


def shared(
  variables: Variables, request: Request, evaluate: Evaluate
) -> tuple[Variables, sharing.Bits | None]:
  """Returns the variables with the weights of each layer rounded to a few values, and the bits.

  Raises:
    UsageError: no bits are enough, or the bits name a layer that there is not.
  """
  if request.bits is None:
    return variables, None
  if isinstance(request.bits, str):
    return _fewest(variables, request.tolerance, evaluate)
  try:
    return _of_bits(variables, request.bits), request.bits
  except ValueError as error:
    text = str(error).removeprefix('bits: ')
    raise UsageError(f'--bits: {text}') from error


def _of_bits(variables: Variables, bits: Any) -> Variables:
  params = shipping.share(variables['params'], bits).params
  return {**variables, 'params': jax.tree.map(jnp.asarray, params)}


def _fewest(variables: Variables, tolerance: float, evaluate: Evaluate) -> tuple[Variables, int]:
  before = evaluate(variables, 'validation')[ACCURACY]
  after = before
  for bits in range(2, sharing.MOST_BITS + 1):
    found = _of_bits(variables, bits)
    after = evaluate(found, 'validation')[ACCURACY]
    say(f'{bits} bits: {percent(after)} on validation, of {percent(before)}')
    if after >= before - tolerance:
      return found, bits
  raise UsageError(
    f'--bits={AUTO}: {sharing.MOST_BITS} bits leave {percent(after)} on validation of '
    f'{percent(before)}; --tolerance={tolerance:g} must be at least {before - after:.4f}'
  )


def train(
  experiment: Experiment, network: Network, request: Request, evaluate: Evaluate
) -> Variables:
  """Trains each cluster's value on the run's own data; returns the best by validation.

  The variables that it begins with are among those that are compared, so it never makes them worse.

  Args:
    experiment: the run's, with its data, batches, augmentation and loss.
    network: its weights are shared; a cluster's move together.
    request: how long, and how fast.
    evaluate: measures variables on a split.
  """
  config, clock = experiment.config, experiment.clock
  tx = shipping.share_weights(inner=optax.adam(request.learning_rate))
  step = steps.make_train_step(
    network.model,
    optax.with_extra_args_support(tx),
    experiment.preprocessing,
    batch_size=config['batch_size'],
    steps_per_epoch=clock.steps_per_epoch,
    label_smoothing=config['loss']['label_smoothing'],
  )
  run = parallel.train_calls(step, convolutional=models.has_convolutions(network.model))
  data = steps.put_on_devices(experiment.dataset.train)
  own = jax.tree.map(jnp.copy, network.variables)  # a step donates what it is given
  train_state, best = parallel.replicate(state.initial(own, tx, config['seed']))
  order = jax.jit(augment.epoch_permutation, static_argnums=2)
  for epoch in range(request.epochs + 1):
    if epoch:
      permutation = parallel.replicate(order(train_state.key, epoch - 1, clock.examples))
      for made, _ in run(train_state, data, permutation, clock.steps_per_epoch):
        train_state = made
    found = evaluate(_variables(train_state), 'validation')
    loss, accuracy = (found[f'validation_{name}'] for name in ('loss', 'accuracy'))
    say(f'centroids, epoch {epoch}: {percent(accuracy)} on validation, loss {loss:.4f}')
    by = config['evaluation']['choose_by']
    best = state.better(best, train_state, jnp.float32(loss), jnp.float32(accuracy), by)
  return _variables(best)


def _variables(held: Any) -> Variables:
  return {'params': held.params, 'batch_stats': held.batch_stats}
