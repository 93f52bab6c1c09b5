"""The timed programs: the training step with various chains, a chain alone, a matrix product."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax import models
from sparsejax.cpu_conv import choice
from sparsejax.experiment.chain import links, optimizer, pruning_links
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir import state
from sparsejax.experiment.step import augment, steps
from sparsejax.experiment.step.steps import put_on_devices
from sparsejax.experiment.training.setup import Experiment

# Chains that reduce a step to its forward pass (XLA then removes the gradient), and to its gradient
# (which is added times so small a number that the parameters do not change).
FORWARD, GRADIENT = optax.set_to_zero(), optax.scale(-1e-30)
PRODUCT_SIZES = {'cpu': 2048}
PRODUCT_SIZE = 8192  # on other backends


class Subject:
  """An experiment and what its programs share: initial variables, and the data on the devices."""

  def __init__(self, experiment: Experiment):
    self.experiment = experiment
    self.variables = experiment.init_variables()
    self.data = put_on_devices(experiment.dataset.train)
    key = jax.random.key(experiment.config['seed'])
    order = augment.epoch_permutation(key, 0, experiment.clock.examples)
    self.order = parallel.replicate(order)
    self.convolutional = models.has_convolutions(experiment.model)
    self.squared_gradients = pruning_links.needs_squared_gradients(experiment.config)

  def step(self, tx: optax.GradientTransformation) -> Callable:
    """Returns the step of `steps.make_train_step` with this chain in place of its own."""
    clock = self.experiment.clock
    return steps.make_train_step(
      self.experiment.model,
      optax.with_extra_args_support(tx),
      self.experiment.preprocessing,
      batch_size=clock.batch_size,
      steps_per_epoch=clock.steps_per_epoch,
      squared_gradients=self.squared_gradients,
      label_smoothing=self.experiment.config['loss']['label_smoothing'],
    )

  def train_state(self, tx: optax.GradientTransformation) -> state.TrainState:
    """Returns an initial state on the devices; nothing else holds it, since a step donates it."""
    variables = jax.tree.map(jnp.copy, self.variables)
    run_state = state.initial(variables, tx, self.experiment.config['seed'])
    return parallel.replicate(run_state.train)


def bare_chain(settings: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns a config's chain without sparsity transformations, but with what ran inside them.

  Example:
    >>> bare_chain({'chain': ('prune',), 'prune': {'inner': ('trace', 'scale_by_learning_rate')}})
    ('trace', 'scale_by_learning_rate')
  """
  unfolded = links.unfold(settings['chain'], settings)
  return tuple(name for name in unfolded if name not in links.OURS)


class Repeated:
  """Calls a function (state, data, order) -> state repeatedly, as a run does, and times it.

  Args:
    function: a pure function.
    state: the first state; nothing else may hold it, because every call donates it.
    data, order: the function's other arguments.
    convolutional: whether the function contains a convolution.
  """

  def __init__(self, function: Callable, state: Any, data: Any, order: Any, *, convolutional: bool):
    self._run = parallel.train_calls(function, convolutional=convolutional)
    self._state, self._rest = state, (data, order)

  def lower(self):
    """Returns the lowered program, as `lower` of a jitted function does."""
    return self._run.lower(self._state, *self._rest, 1)

  def __call__(self, count: int) -> float:
    """Makes `count` calls and returns the seconds they took."""
    begun = time.perf_counter()
    for new, _ in self._run(self._state, *self._rest, count):
      self._state = new
    jax.block_until_ready(self._state)
    return time.perf_counter() - begun


def training_step(subject: Subject, tx: optax.GradientTransformation) -> Repeated:
  """Returns the whole training step: batch, augmentation, gradient, chain."""
  return Repeated(
    subject.step(tx),
    subject.train_state(tx),
    subject.data,
    subject.order,
    convolutional=subject.convolutional,
  )


def chain_update(subject: Subject, tx: optax.GradientTransformation) -> Repeated:
  """Returns the update of the parameters by a chain alone, for a given gradient."""
  tx = optax.with_extra_args_support(tx)

  def update(own, grad, _):
    params, opt_state = own
    extra = {'grad': grad}
    if subject.squared_gradients:
      extra['mean_squared_grad'] = lambda: jax.tree.map(jnp.square, grad)
    updates, opt_state = tx.update(grad, opt_state, params, **extra)
    return optax.apply_updates(params, updates), opt_state

  train = subject.train_state(tx)
  grad = jax.tree.map(lambda p: jnp.full_like(p, 1e-4), train.params)
  own = train.params, train.opt_state
  return Repeated(update, own, grad, None, convolutional=subject.convolutional)


def parts(subject: Subject) -> dict[str, Repeated]:
  """Returns the forward pass, both passes together, and the chain, by name."""
  return {
    'forward': training_step(subject, FORWARD),
    'gradient': training_step(subject, GRADIENT),
    'chain': chain_update(subject, subject.experiment.tx),
  }


def bare_optimizer(subject: Subject) -> dict[str, Repeated]:
  """Returns the step and chain of the bare optimizer, by name; nothing if the config's is bare."""
  experiment = subject.experiment
  chain = bare_chain(experiment.config)
  if chain == tuple(experiment.config['chain']):
    return {}
  tx = optimizer.build(chain, experiment.config, experiment.clock)
  return {'bare_step': training_step(subject, tx), 'bare_chain': chain_update(subject, tx)}


def matrix_product(dtype: str) -> tuple[Repeated, float]:
  """Returns the product of two square matrices on every device, and its operations.

  It shows the machine's best rate, so the matrices are large enough to keep it busy. Their entries
  are random, because a GPU multiplies constants faster, with a variance that the product preserves.
  """
  size = PRODUCT_SIZES.get(jax.default_backend(), PRODUCT_SIZE)
  draws = jax.random.normal(jax.random.key(0), (2, size, size)) / size**0.5
  left, right = (parallel.replicate(matrix.astype(dtype)) for matrix in draws)
  product = Repeated(lambda x, y, _: jnp.dot(x, y), left, right, None, convolutional=True)
  return product, 2 * size**3 * parallel.device_count()


def step_flops(subject: Subject) -> float:
  """Returns the floating-point operations of a step's two passes, as XLA counts them.

  They are counted in the plain formulation, which accelerators get, and before optimisation: XLA
  counts the body of a loop once, however often it runs, and on CPU most of a convolution is in
  loops. Products with padding are not counted, nor is the chain: XLA would count every comparison
  of a sort that is made once in a hundred steps.
  """
  step, train = subject.step(GRADIENT), subject.train_state(GRADIENT)
  with choice.plain():
    analysis = parallel.replica_cost_analysis(step, train, subject.data, subject.order)
  return analysis['flops'] * parallel.device_count()
