"""Builds all that training needs from a config, or says in one line what is wrong with it."""

import functools
import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax import models
from sparsejax.experiment.chain import links, optimizer, pruning, rates
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config.kinds import is_number
from sparsejax.experiment.data import datasets
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir import checkpoint, tensorboard
from sparsejax.experiment.rundir.state import CHOOSE_BY
from sparsejax.experiment.step import events, lobs
from sparsejax.experiment.step.steps import Preprocessing
from sparsejax.experiment.terminal.say import shown
from sparsejax.experiment.training import agenda, deployment, posterior, registry
from sparsejax.internal.lookup import lookup
from sparsejax.internal.streams import INIT, stream
from sparsejax.posterior.layers import DETERMINISTIC
from sparsejax.sparsity.counting import measure
from sparsejax.sparsity.counting.costs import Costs, mac_costs, weight_costs


class Experiment(NamedTuple):
  """A built config. Nothing is compiled yet, and no array has left the host."""

  config: Mapping[str, Any]
  dataset: datasets.Dataset
  model: Any
  tx: optax.GradientTransformationExtraArgs
  preprocessing: Preprocessing
  clock: Clock
  agenda: agenda.Agenda
  learning_rate: rates.Schedule
  threshold: float | None  # the absolute threshold, if the chain prunes by one
  deployment: deployment.Deployment

  @property
  def image_shape(self) -> tuple[int, ...]:
    return self.dataset.train.images.shape[1:]

  @property
  def positions(self) -> dict[str, int]:
    return models.positions(self.deployment.model, self.image_shape)

  @property
  def digests(self) -> dict[str, str]:
    """Digests of the contents that the config names by path: new content is a new experiment."""
    found = {
      'data.name': self.dataset.digest,
      'init_from': checkpoint.source_digest(self.config['init_from']),
    }
    found = {field: digest for field, digest in found.items() if digest is not None}
    return found | registry.digests(self.config)

  @property
  def counted_above(self) -> tuple[float, ...]:
    """The magnitudes above which a line of metrics counts parameters; see `metrics.counted`."""
    own = () if self.threshold is None else (self.threshold,)
    return (0.0, measure.NEARLY_ZERO, *own)

  def init_variables(self) -> Any:
    """Returns the model's initial parameters and BatchNorm averages for the config's seed."""
    images = jnp.zeros((1, *self.image_shape))
    return jax.jit(self.model.init, static_argnames='train')(
      stream(jax.random.key(self.config['seed']), INIT), images, train=False
    )


def build(config: Mapping[str, Any]) -> Experiment:
  """Builds every part of an experiment and checks the parts against each other.

  Raises:
    ValueError: says in one line what in the config is impossible.
  """
  require(config['epochs'] > 0, 'epochs', config['epochs'], 'more than 0')
  dataset = _load_data(config['data'])
  validation = len(dataset.validation.labels)
  require(validation > 0, 'data.validation', validation, '1 or more, to choose the best network on')
  _check_source(config['init_from'])
  batch_size = config['batch_size']
  parallel.share_of(batch_size, 'batch_size')
  evaluated = config['evaluation']['batch_size']
  require(evaluated >= 1, 'evaluation.batch_size', evaluated, '1 or more')
  averaged = config['evaluation']['batch_norm_batches']
  require(averaged >= 1, 'evaluation.batch_norm_batches', averaged, '1 or more')
  lookup('evaluation.choose_by', config['evaluation']['choose_by'], CHOOSE_BY)
  _check_augmentation(config['data'], dataset.train.images.shape[1:3])
  _check_loss(config)
  if config['log']['tensorboard']:
    tensorboard.check()
  examples = len(dataset.train.labels)
  limit = ' of data.limit' if config['data']['limit'] else ''
  allowed = f'at most the {examples} training examples{limit}'
  require(batch_size <= examples, 'batch_size', batch_size, allowed)
  clock = Clock(examples, batch_size, config['epochs'])
  require(clock.total_steps > 0, 'epochs', config['epochs'], 'enough for one step')
  chain = config['chain']
  settings = config['prune'] if 'prune' in chain else None
  schedule = None if settings is None else pruning.pruning_schedule(settings, clock)
  by_threshold = settings is not None and settings['allocation'] == 'absolute_threshold'
  events.check(config)
  posterior.check(config)
  require(0 <= config['seed'] < 2**32, 'seed', config['seed'], 'from 0 to 2**32 - 1')
  keep = config['log']['keep_checkpoints']
  require(keep >= 1, 'log.keep_checkpoints', keep, '1 or more')
  model = _create_model(config, dataset.num_classes, posterior.build_layers(config))
  image_shape = dataset.train.images.shape[1:]
  is_variational = config['layers'] != DETERMINISTIC
  experiment = Experiment(
    config=config,
    dataset=dataset,
    model=model,
    tx=optimizer.build(chain, config, clock, lambda unit: _costs(unit, model, image_shape)),
    preprocessing=_preprocessing(dataset, config['data']),
    clock=clock,
    agenda=agenda.agenda(
      config,
      clock,
      schedule,
      only_the_last=is_variational,
      grows=pruning.grows(config.get('prune') or {}),
    ),
    learning_rate=links.learning_rate(chain, config, clock),
    threshold=settings['threshold'] if by_threshold else None,
    deployment=deployment.Deployment(model, image_shape),
  )
  for step in (0, clock.total_steps - 1):
    rate = float(experiment.learning_rate(step))  # NaN if a link uses its own default
    allowed = f'a number, 0 or more; this is at step {step}'
    require(not (rate < 0 or math.isinf(rate)), 'learning_rate', rate, allowed)
  params = jax.eval_shape(experiment.init_variables)['params']
  _check_size(config['model'], params)
  if is_variational:
    deployed = _create_model(config, dataset.num_classes, DETERMINISTIC)
    thresholds = posterior.thresholds(config, params)
    experiment = experiment._replace(
      deployment=deployment.Deployment(deployed, image_shape, thresholds)
    )
  posterior.check_bound(config, params)
  jax.eval_shape(experiment.tx.init, params)
  if 'lobs' in config['events']:
    lobs.check_layers(model, image_shape, params, config['lobs']['exclude'])
  return experiment


def _check_source(run: str | None) -> None:
  try:
    checkpoint.check_source(run)
  except OSError as error:
    raise ValueError(f'init_from={shown(run)}: {error.strerror}') from error


def _check_size(settings: Mapping[str, Any], params: Any) -> None:
  """Refuses a network whose training needs more than a device's memory, whatever the batch."""
  sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)]
  # This counts old and new parameters, the best network's, gradients, updates and momentum.
  needed = 6 * sum(sizes)
  own = parallel.least_memory()  # on CPU it is the machine's memory that counts
  there = own or os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  if needed > there:
    holder = 'a device' if own else 'this machine'
    name, width = settings['name'], settings['width']
    raise ValueError(
      f'model.name={name} with model.width={width} needs {needed / 2**30:,.0f} GiB for training, '
      f'whatever the batch; {holder} has {there / 2**30:,.0f} GiB: give a smaller width'
    )


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
  """Raises a ValueError of one line unless the condition holds."""
  if not condition:
    raise ValueError(f'{field}={value} must be {allowed}')


def _check_augmentation(settings: Mapping[str, Any], sides: tuple[int, ...]) -> None:
  padding, most = settings['crop_padding'], max(sides)
  allowed = f'an integer from 0 to {most}, the side of the images'
  require(0 <= padding <= most, 'data.crop_padding', padding, allowed)
  size, side = settings['cutout'], min(sides)
  is_integer = isinstance(size, int) and not isinstance(size, bool)
  allowed = f'an integer from 0 to {side}, the side of the images'
  require(is_integer and 0 <= size <= side, 'data.cutout', size, allowed)


def _check_loss(config: Mapping[str, Any]) -> None:
  """Refuses a smoothing that is no share, and any smoothing of a loss that must be a likelihood."""
  smoothing = config['loss']['label_smoothing']
  is_share = is_number(smoothing) and 0 <= smoothing < 1
  require(is_share, 'loss.label_smoothing', smoothing, 'a number of 0 or more and less than 1')
  is_likelihood = config['layers'] == DETERMINISTIC or smoothing == 0
  allowed = f"0 with layers='{config['layers']}', whose loss must be a likelihood"
  require(is_likelihood, 'loss.label_smoothing', smoothing, allowed)


def _load_data(settings) -> datasets.Dataset:
  return datasets.load(
    settings['name'],
    directory=settings['dir'],
    split=settings['split'],
    validation=settings['validation'],
    split_seed=settings['split_seed'],
    limit=settings['limit'],
  )


def _preprocessing(dataset: datasets.Dataset, settings: Mapping[str, Any]) -> Preprocessing:
  """How bytes become inputs: standardised by channel, or scaled as in the Bayesian papers."""
  moments = {
    'standardised': lambda: (dataset.mean, dataset.std),
    'symmetric': lambda: ((0.5,), (0.5,)),  # 2 x - 1
    'centred': lambda: (dataset.train.images.mean(0) / 255, (256 / 255,)),  # bytes / 256 - mean
  }
  mean, std = lookup('data.scale', settings['scale'], moments)()
  return Preprocessing(mean, std, settings['crop_padding'], settings['flip'], settings['cutout'])


def _create_model(config, num_classes, layers):
  settings = config['model']
  return models.create(
    settings['name'],
    num_classes,
    layers=layers,
    width=settings['width'],
    dropout=settings['dropout'],
    dtype=settings['dtype'],
    batch_norm_axis=parallel.AXIS if settings['sync_batch_norm'] else None,
  )


def _costs(unit: str, model, image_shape) -> Costs:
  """The cost of each weight of the network, in weights or in multiply-accumulates."""
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  init = functools.partial(model.init, train=False)
  params = jax.eval_shape(init, jax.random.key(0), images)['params']
  if unit == 'weights':
    return weight_costs(params)
  return mac_costs(params, models.positions(model, image_shape))
