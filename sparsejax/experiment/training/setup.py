"""Builds all that training needs from a config, or says in one line what is wrong with it."""

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax import models
from sparsejax.experiment.chain import links, optimizer, pruning_links, rates
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.data import datasets
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir import checkpoint, tensorboard
from sparsejax.experiment.rundir.state import Best
from sparsejax.experiment.step import events, lobs_event
from sparsejax.experiment.step.steps import Arrays, Preprocessing, put_on_devices
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
  pruning_threshold: float | None  # the absolute threshold, if the chain prunes by one
  deployment: deployment.Deployment

  @property
  def image_shape(self) -> tuple[int, ...]:
    return self.dataset.train.images.shape[1:]

  @property
  def positions(self) -> dict[str, int]:
    return self.applied.positions

  @property
  def applied(self) -> models.Applied:
    return models.applied(self.deployment.model, self.image_shape)

  def report(self, network: Any) -> dict[str, Any]:
    """Returns the counts of a deployed network, by the keys of summary.json."""
    positions, products = self.applied
    return measure.report(network, positions, products=products)

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
    own = () if self.pruning_threshold is None else (self.pruning_threshold,)
    return (0.0, measure.NEARLY_ZERO, *own)

  def init_variables(self) -> Any:
    """Returns the model's initial parameters and BatchNorm averages for the config's seed."""
    images = jnp.zeros((1, *self.image_shape))
    return jax.jit(self.model.init, static_argnames='train')(
      stream(jax.random.key(self.config['seed']), INIT), images, train=False
    )

  def batch_norm_averager(self, data: Arrays) -> Callable[[Any, Any], Any]:
    """Returns (network, batch_stats) -> BatchNorm's averages for evaluating the network.

    The averages of training include the posterior's noise, whose variance is as large as the
    signal's when much is about to be removed, so a network deployed from a posterior gets its own
    averages. Every other network keeps those of training.

    Args:
      data: the training images, on the devices.
    """
    deployment, config = self.deployment, self.config
    if not deployment.is_variational:
      return lambda network, batch_stats: batch_stats
    context = events.Context(
      deployment.model, self.preprocessing, data, config['batch_size'], config['seed']
    )
    return events.averager(config['evaluation']['batch_norm_batches'], context)

  def deliver(self, best: Best) -> dict[str, Any]:
    """Returns the variables of the network that a run delivers: the best one, deployed."""
    network = self.deployment.jitted(best.params, best.batch_stats)
    averages = self.batch_norm_averager(put_on_devices(self.dataset.train))
    return {'params': network, 'batch_stats': averages(network, best.batch_stats)}


def build(config: Mapping[str, Any]) -> Experiment:
  """Builds every part of an experiment and checks the parts against each other.

  Args:
    config: settings as `check.check` returns them, so that each value is possible by itself.

  Raises:
    ValueError: says in one line what in the config is impossible.
  """
  _check_source(config['init_from'])
  # Three splits of uint8 images and their labels, and the moments of the pixels.
  dataset = _load_data(config['data'])
  _check_with_data(config, dataset)
  labels = dataset.train.labels
  per_example = math.prod(labels.shape[1:])
  clock = Clock(len(labels), config['batch_size'], config['epochs'], per_example)
  require(clock.total_steps > 0, 'epochs', config['epochs'], 'enough for one step')
  events.check(config)  # of config.events, which is () unless a config names some
  posterior.check(config)
  # A Flax module: model.apply(variables, images, train=False) returns logits.
  model = _create_model(config, dataset.num_classes, posterior.build_layers(config))
  image_shape = dataset.train.images.shape[1:]
  is_variational = config['layers'] != DETERMINISTIC
  chain = config['chain']
  schedule = pruning_threshold = None
  if (link := pruning_links.link_of(chain)) is not None:
    schedule = pruning_links.pruning_schedule(config[link], clock, link)
    is_absolute = config[link]['allocation'] == 'absolute_threshold'
    pruning_threshold = config[link]['threshold'] if is_absolute else None
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
      grows=pruning_links.grows(config.get('prune') or {}),
    ),
    learning_rate=links.learning_rate(chain, config, clock),
    pruning_threshold=pruning_threshold,
    # A network without posteriors is its own deployment.
    deployment=deployment.Deployment(model, image_shape),
  )
  params = jax.eval_shape(experiment.init_variables)['params']
  if is_variational:
    deployed = _create_model(config, dataset.num_classes, DETERMINISTIC)
    thresholds = posterior.thresholds(config, params)
    experiment = experiment._replace(
      deployment=deployment.Deployment(deployed, image_shape, thresholds)
    )
  _check_with_params(experiment, params)
  return experiment


def _check_with_data(config: Mapping[str, Any], dataset: datasets.Dataset) -> None:
  """Refuses what the data set, the devices or the installed packages make impossible."""
  validation = len(dataset.validation.labels)
  require(validation > 0, 'data.validation', validation, '1 or more, to choose the best network on')
  parallel.per_replica_batch_size(config['batch_size'], 'batch_size')
  _check_augmentation(config['data'], dataset)
  is_likelihood = config['layers'] == DETERMINISTIC or config['loss']['label_smoothing'] == 0
  allowed = f"0 with layers='{config['layers']}', whose loss must be a likelihood"
  smoothing = config['loss']['label_smoothing']
  require(is_likelihood, 'loss.label_smoothing', smoothing, allowed)
  if config['log']['tensorboard']:
    tensorboard.check_installed()
  limit = ' of data.limit' if config['data']['limit'] else ''
  examples = len(dataset.train.labels)
  allowed = f'at most the {examples} training examples{limit}'
  require(config['batch_size'] <= examples, 'batch_size', config['batch_size'], allowed)


def _check_augmentation(settings: Mapping[str, Any], dataset: datasets.Dataset) -> None:
  if dataset.is_text:
    for name, only in (('crop_padding', 0), ('flip', False), ('cutout', 0)):
      require(settings[name] == only, f'data.{name}', settings[name], f'{only} for a text')
    only = "'standardised' for a text, whose bytes stay as they are"
    require(settings['scale'] == 'standardised', 'data.scale', settings['scale'], only)
    return
  sides = dataset.train.images.shape[1:3]
  for name, most in (('crop_padding', max(sides)), ('cutout', min(sides))):
    allowed = f'an integer from 0 to {most}, the side of the images'
    require(settings[name] <= most, f'data.{name}', settings[name], allowed)


def _check_with_params(experiment: Experiment, params: Any) -> None:
  """Refuses what the network's parameters, given as shapes, make impossible."""
  config = experiment.config
  for step in (0, experiment.clock.total_steps - 1):
    rate = float(experiment.learning_rate(step))  # NaN if a link uses its own default
    allowed = f'a number, 0 or more; this is at step {step}'
    require(not (rate < 0 or math.isinf(rate)), 'learning_rate', rate, allowed)
  _check_size(config['model'], params)
  posterior.check_bound(config, params)
  jax.eval_shape(experiment.tx.init, params)
  if 'lobs' in config['events']:
    exclude = config['lobs']['exclude']
    lobs_event.check_layers(experiment.model, experiment.image_shape, params, exclude)


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


def _load_data(settings) -> datasets.Dataset:
  return datasets.load(
    settings['name'],
    directory=settings['dir'],
    split=settings['split'],
    validation=settings['validation'],
    split_seed=settings['split_seed'],
    limit=settings['limit'],
    context=settings['context'],
  )


def _preprocessing(dataset: datasets.Dataset, settings: Mapping[str, Any]) -> Preprocessing:
  """Returns the preprocessing: pixels standardised by channel, or scaled as in Bayesian papers."""
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
    **{size: settings[size] for size in models.SIZES},
    widths=settings['widths'],
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
