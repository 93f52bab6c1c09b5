"""Events: what happens between steps, each a pure function (state, batches) -> state."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.experiment import parallel
from sparsejax.experiment.state import TrainState
from sparsejax.experiment.steps import Arrays, Preprocessing
from sparsejax.layers.normalisation import MOMENTUM
from sparsejax.lookup import lookup


class Context(NamedTuple):
  """What an event may need besides the state."""

  model: Any
  preprocessing: Preprocessing
  data: Arrays
  batch_size: int
  seed: int

  def batches(self, count: int) -> Iterator[jax.Array]:
    """Yields so many batches of training images, not augmented, the same in every call."""
    order = np.random.default_rng(self.seed).permutation(len(self.data.labels))
    for i in range(min(count, len(order) // self.batch_size)):
      indices = order[i * self.batch_size : (i + 1) * self.batch_size]
      yield self.preprocessing.evaluate(self.data.images[indices])


def recalibrate_batch_norm(state: TrainState, batches: Iterable[jax.Array], model: Any):
  """Sets BatchNorm's averages to the mean of the batches' own moments, as the network is now.

  After a cut the running averages still describe the dense network. A training pass moves an
  average a to 0.9 a + 0.1 m; from a = 0 ten times the result is the batch's own moment m.
  """
  zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)

  def moments(params, images):
    variables = {'params': params, 'batch_stats': zeros}
    rngs = {'dropout': jax.random.key(0)}
    _, changed = model.apply(variables, images, train=True, mutable=['batch_stats'], rngs=rngs)
    return jax.tree.map(lambda a: a / (1 - MOMENTUM), parallel.join(changed['batch_stats']))

  one_batch = parallel.on_all(moments)
  found = [one_batch(state.params, images) for images in batches]
  mean = jax.tree.map(lambda *parts: sum(parts) / len(parts), *found)
  return state._replace(batch_stats=mean)


def _recalibrate(state: TrainState, settings: Mapping[str, Any], context: Context) -> TrainState:
  if not state.batch_stats:
    return state
  return recalibrate_batch_norm(state, context.batches(settings['batches']), context.model)


EVENTS: dict[str, Callable[[TrainState, Mapping[str, Any], Context], TrainState]] = {
  'recalibrate_batch_norm': _recalibrate,
}


def check(config: Mapping[str, Any]) -> None:
  """Raises a ValueError for an event that is unknown, named twice, or without anything to do."""
  names = config['events']
  for name in names:
    lookup('event', name, EVENTS)
  if len(set(names)) < len(names):
    raise ValueError(f'events={names}: allowed is each event once')
  for name in names:
    if (batches := config[name]['batches']) < 1:
      raise ValueError(f'{name}.batches={batches}: allowed is 1 or more')


def happen(name: str, state: TrainState, settings: Mapping, context: Context) -> TrainState:
  """Returns the state after an event, with the event counted."""
  state = EVENTS[name](state, settings, context)
  return state._replace(events=state.events + 1)
