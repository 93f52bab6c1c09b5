"""Events between training steps, each a pure function (state, settings, context) -> state."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir.state import TrainState
from sparsejax.experiment.step import lobs_event
from sparsejax.experiment.step.steps import Arrays, Preprocessing
from sparsejax.internal.lookup import lookup
from sparsejax.posterior.layers import DETERMINISTIC
from sparsejax.sparsity.batch_norm import recalibrate_batch_norm


class Context(NamedTuple):
  """The network and the training data that an event may use in addition to the state."""

  model: Any
  preprocessing: Preprocessing
  data: Arrays
  batch_size: int
  seed: int

  def batches(self, count: int) -> Iterator[jax.Array]:
    """Yields `count` batches of unaugmented training images, the same in every call."""
    order = np.random.default_rng(self.seed).permutation(len(self.data.labels))
    for i in range(min(count, len(order) // self.batch_size)):
      indices = order[i * self.batch_size : (i + 1) * self.batch_size]
      yield self.preprocessing.evaluate(self.data.images[indices])


def _recalibrate(state: TrainState, settings: Mapping[str, Any], context: Context) -> TrainState:
  """Sets BatchNorm's averages to the mean of the batches' moments in the current network."""
  averages = averager(settings['batches'], context)
  return state._replace(batch_stats=averages(state.params, state.batch_stats))


def averager(batches: int, context: Context) -> Callable[[Any, Any], Any]:
  """Returns (params, batch_stats) -> BatchNorm's averages over a number of batches.

  A network without BatchNorm has no averages, before or after. The function is compiled only once.
  """

  def update(batch_stats, parts):
    params, images = parts
    variables = {'params': params, 'batch_stats': batch_stats}
    rngs = {'dropout': jax.random.key(0), 'noise': jax.random.key(1)}
    _, changed = context.model.apply(
      variables, images, train=True, mutable=['batch_stats'], rngs=rngs
    )
    return parallel.join(changed['batch_stats'])

  everywhere = parallel.map_replicas(update)

  def averages(params, batch_stats):
    if not batch_stats:
      return batch_stats
    parts = ((params, images) for images in context.batches(batches))
    return recalibrate_batch_norm(everywhere, batch_stats, parts)

  return averages


def _lobs(state: TrainState, settings: Mapping[str, Any], context: Context) -> TrainState:
  return lobs_event.prune_layers(
    state,
    context.batches(settings['batches']),
    context.model,
    density=settings['density'],
    allocate=lobs_event.ALLOCATIONS[settings['allocation']](),
    exclude=settings['exclude'],
    method=settings['method'],
  )


EVENTS: dict[str, Callable[[TrainState, Mapping[str, Any], Context], TrainState]] = {
  'lobs': _lobs,
  'recalibrate_batch_norm': _recalibrate,
}


def check(config: Mapping[str, Any]) -> None:
  """Raises a ValueError if an event is unknown, named twice, or would do nothing."""
  names = config['events']
  for name in names:
    lookup('event (events)', name, EVENTS)
  if len(set(names)) < len(names):
    raise ValueError(f'events={names} must have each event once')
  for name in names:
    if (batches := config[name].get('batches', 1)) < 1:
      raise ValueError(f'{name}.batches={batches} must be 1 or more')
  if 'lobs' in names:
    lobs_event.check(config)
  layers = config['layers']
  if 'recalibrate_batch_norm' in names and layers != DETERMINISTIC:
    raise ValueError(
      f"events={names}: with layers='{layers}' every validation recomputes BatchNorm's averages; "
      "leave out 'recalibrate_batch_norm'"
    )


def apply_event(name: str, state: TrainState, settings: Mapping, context: Context) -> TrainState:
  """Returns the state after an event, with the number of events raised by one."""
  state = EVENTS[name](state, settings, context)
  return state._replace(events=state.events + 1)
