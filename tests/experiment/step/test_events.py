"""Events: recomputed BatchNorm averages by hand, and batches that are the same in every call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir.state import TrainState, empty_window
from sparsejax.experiment.step import events
from sparsejax.experiment.step.steps import Arrays, Preprocessing
from sparsejax.nn import BatchNorm


class Scaled(nn.Module):
  """w x, normalised: the moments that BatchNorm sees follow from w alone."""

  @nn.compact
  def __call__(self, images, *, train):
    w = self.param('w', nn.initializers.ones, (1,))
    x = images.reshape(len(images), -1) * w[None]
    return BatchNorm(name='bn')(x, use_running_average=not train)


def state_of(params, batch_stats):
  counts = {'step': jnp.int32(5), 'events': jnp.int32(1), 'window': empty_window()}
  state = TrainState(
    params=params, batch_stats=batch_stats, opt_state=(), key=jax.random.key(0), **counts
  )
  return parallel.replicate(state)


def context_of(batch_size, pixels=(0, 51, 102, 153, 204, 255)):
  images = jnp.array(pixels, jnp.uint8).reshape(-1, 1, 1, 1)
  data = parallel.replicate(Arrays(images, jnp.zeros(len(pixels), jnp.int32)))
  return events.Context(Scaled(), Preprocessing((0.0,), (1.0,)), data, batch_size, seed=3)


def batch_norm_state(w):
  old = {'bn': {'mean': jnp.full(1, 9.0), 'var': jnp.full(1, 9.0)}}
  bn = {'scale': jnp.ones(1), 'bias': jnp.zeros(1)}
  return state_of({'w': jnp.full(1, w), 'bn': bn}, old)


def test_the_event_recalibrates_and_changes_nothing_else():
  before, context = batch_norm_state(3.0), context_of(batch_size=6)
  state = events.apply_event('recalibrate_batch_norm', before, {'batches': 50}, context)
  # all six pixels, 0, 0.2, ..., 1: mean 0.5, variance 0.7 / 6; times w = 3
  np.testing.assert_allclose(state.batch_stats['bn']['mean'], [1.5], rtol=1e-6)
  np.testing.assert_allclose(state.batch_stats['bn']['var'], [9 * 0.7 / 6], rtol=1e-5)
  assert (int(before.events), int(state.events)) == (1, 2)
  assert state._replace(batch_stats=before.batch_stats, events=before.events) == before


def test_a_network_without_batch_norm_stays_and_the_event_still_counts():
  before = state_of({'w': jnp.ones(1)}, {})
  state = events.apply_event('recalibrate_batch_norm', before, {'batches': 2}, context_of(2))
  assert state.batch_stats == {}
  assert int(state.events) == 2


def test_batches_are_the_same_whenever_asked_for_and_hold_each_example_once():
  context = context_of(batch_size=2)
  first, second = (np.stack(list(context.batches(3))) for _ in range(2))
  np.testing.assert_array_equal(first, second)
  np.testing.assert_allclose(np.sort(first.ravel()), [0, 0.2, 0.4, 0.6, 0.8, 1], rtol=1e-6)
  other = np.stack(list(context._replace(seed=4).batches(3)))
  assert not np.array_equal(first, other)


def test_there_are_no_more_batches_than_the_data_hold_nor_than_asked_for():
  assert [len(list(context_of(4).batches(count))) for count in (0, 1, 2, 50)] == [0, 1, 1, 1]
  assert [len(list(context_of(2).batches(count))) for count in (0, 1, 2, 50)] == [0, 1, 2, 3]


def config_with(*names, batches=1, layers='deterministic'):
  return {'events': names, 'recalibrate_batch_norm': {'batches': batches}, 'layers': layers}


def test_a_known_event_with_something_to_do_is_allowed():
  events.check(config_with('recalibrate_batch_norm'))
  events.check(config_with())


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (config_with('recalibrate_batchnorm'), "did you mean 'recalibrate_batch_norm'"),
    (config_with('recalibrate_batch_norm', 'recalibrate_batch_norm'), 'each event once'),
    (config_with('recalibrate_batch_norm', batches=0), 'batches=0 must be 1 or more'),
    (
      config_with('recalibrate_batch_norm', layers='sparse_vd'),
      "with layers='sparse_vd' every validation recomputes BatchNorm's averages",
    ),
  ],
)
def test_other_events_are_refused(config, message):
  with pytest.raises(ValueError, match=message):
    events.check(config)
