"""Rounds weights to few shared values, by bits given or chosen on validation; trains the values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax import models, shipping
from sparsejax.delivery.request import AUTO, Request
from sparsejax.delivery.shipped_network import Network, Variables
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
MIN_AUTO_BITS = 2


def share_weights(
  variables: Variables, request: Request, evaluate: Evaluate
) -> tuple[Variables, sharing.Bits | None]:
  """Rounds the weights of each layer to 2^bits values; returns the variables and the bits.

  Args:
    variables: `params` and `batch_stats`.
    request: its `bits` are a number for all layers, numbers by layer, 'auto' (the fewest that
      cost at most its `tolerance` of validation accuracy), or None, which changes nothing.
    evaluate: returns the metrics of (variables, split).

  Returns:
    The variables, and the bits that were used; None if the weights share no values.

  Raises:
    UsageError: with 'auto' no number of bits is within the tolerance, or the bits name an unknown
      layer.
  """
  if request.bits is None:
    return variables, None
  if isinstance(request.bits, str):  # 'auto': bits of a posterior are numbers by now
    return _share_with_fewest_bits(variables, request.tolerance, evaluate)
  try:
    return _share_with_bits(variables, request.bits), request.bits
  except ValueError as error:
    text = str(error).removeprefix('bits: ')  # the flag stands in its place
    raise UsageError(f'--bits: {text}') from error


def _share_with_bits(variables: Variables, bits: sharing.Bits) -> Variables:
  """Returns the variables with the weights of each layer rounded to 2^bits values."""
  params = shipping.share(variables['params'], bits).params
  return {**variables, 'params': jax.tree.map(jnp.asarray, params)}


def _share_with_fewest_bits(
  variables: Variables, tolerance: float, evaluate: Evaluate
) -> tuple[Variables, int]:
  """Returns the variables shared by the fewest bits within the tolerance, and the bits.

  Args:
    variables: `params` and `batch_stats`.
    tolerance: the validation accuracy that may be lost.
    evaluate: returns the metrics of (variables, split).

  Raises:
    UsageError: more than the tolerance is lost with any number of bits.
  """
  before = evaluate(variables, 'validation')[ACCURACY]
  after = before
  for bits in range(MIN_AUTO_BITS, sharing.MOST_BITS + 1):
    shared = _share_with_bits(variables, bits)
    after = evaluate(shared, 'validation')[ACCURACY]
    say(f'{bits} bits: validation accuracy {percent(after)}, unshared {percent(before)}')
    if after >= before - tolerance:
      return shared, bits
  raise UsageError(
    f'--bits={AUTO}: with {sharing.MOST_BITS} bits validation accuracy falls from '
    f'{percent(before)} to {percent(after)}; --tolerance={tolerance:g} must be at least '
    f'{before - after:.4f}'
  )


def train(
  experiment: Experiment, network: Network, request: Request, evaluate: Evaluate
) -> Variables:
  """Trains the shared values on the run's own data; returns the best variables by validation.

  The initial variables are among the candidates, so validation never becomes worse.

  Args:
    experiment: the run's experiment: its data, batches, augmentation and loss.
    network: the network, whose weights are shared; equal weights of a layer stay equal.
    request: the number of epochs and the learning rate.
    evaluate: returns the metrics of (variables, split).
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
  variables = jax.tree.map(jnp.copy, network.variables)  # a step donates its arguments
  try:
    initial = state.initial(variables, tx, config['seed'])
  except ValueError as error:  # bits by layer may leave one out
    raise UsageError(
      f'--epochs={request.epochs}: {str(error).partition(":")[0]}; --bits must name every layer'
    ) from error
  train_state, best = parallel.replicate(initial)
  order = jax.jit(augment.epoch_permutation, static_argnums=2)
  for epoch in range(request.epochs + 1):
    if epoch:
      permutation = parallel.replicate(order(train_state.key, epoch - 1, clock.examples))
      for new_state, _ in run(train_state, data, permutation, clock.steps_per_epoch):
        train_state = new_state
    metrics = evaluate(_variables(train_state), 'validation')
    loss, accuracy = metrics['validation_loss'], metrics[ACCURACY]
    say(f'shared values, epoch {epoch}: validation {percent(accuracy)}, loss {loss:.4f}')
    choose_by = config['evaluation']['choose_by']
    best = state.better(best, train_state, jnp.float32(loss), jnp.float32(accuracy), choose_by)
  return _variables(best)


def _variables(train_state: Any) -> Variables:
  """Returns the variables of a training state, or of the best of them."""
  return {'params': train_state.params, 'batch_stats': train_state.batch_stats}
