"""Durations: every unit in steps, by hand, and what is not a duration is refused by name."""

import math

import pytest

from sparsejax.experiment.chain.durations import Clock, convert_to_steps

CLOCK = Clock(examples=1000, batch_size=10, epochs=3)


def test_the_incomplete_last_batch_is_dropped():
  cifar = Clock(examples=40_000, batch_size=128, epochs=180.0)  # 312.5 batches
  assert cifar.steps_per_epoch == 312
  assert cifar.total_steps == 56_160


@pytest.mark.parametrize(
  ('unit', 'duration', 'steps'),
  [
    ('epochs', 1.5, 150),
    ('epochs', 0.0, 0),
    ('epochs', 0.004, 0),
    ('epochs', 0.006, 1),
    ('steps', 7, 7),
    ('examples', 1000, 100),
    ('examples', 14, 1),
    ('examples', 16, 2),
  ],
)
def test_a_duration_is_the_nearest_number_of_steps(unit, duration, steps):
  found = CLOCK.steps(unit, duration)
  assert found == steps
  assert isinstance(found, int)


def test_examples_that_fill_batches_are_exact_at_any_batch_size():
  for size in range(1, 300):
    assert Clock(10_000, size, 1).steps('examples', 977 * size) == 977


def test_settings_lose_their_unit_and_others_stay():
  settings = {
    'begin_epochs': 2.0,
    'every_steps': 7,
    'warmup_examples': 50,
    'batch_size': 500,
    'keep_checkpoints': 2,
    'density': 0.1,
    'steps': 3,  # no name before the unit: not a duration
  }
  assert convert_to_steps(settings, CLOCK) == {
    'begin': 200,
    'every': 7,
    'warmup': 5,
    'batch_size': 500,
    'keep_checkpoints': 2,
    'density': 0.1,
    'steps': 3,
  }


@pytest.mark.parametrize('value', [-1, -1e-9, math.nan, math.inf, -math.inf, None, '3'])
def test_what_is_no_duration_is_refused_by_name(value):
  with pytest.raises(ValueError, match=r'prune\.begin_epochs=.* must be a number of epochs, 0'):
    convert_to_steps({'begin_epochs': value}, CLOCK, 'prune')


def test_a_duration_in_two_units_is_refused():
  with pytest.raises(ValueError, match=r'^begin is given in two units; give it in only one$'):
    convert_to_steps({'begin_epochs': 1.0, 'begin_steps': 100}, CLOCK)
  with pytest.raises(ValueError, match=r'^begin is given in two units; give it in only one$'):
    convert_to_steps({'begin': 100, 'begin_steps': 100}, CLOCK)


@pytest.mark.parametrize('epochs', [math.inf, -math.inf, math.nan])
def test_a_run_without_an_end_is_refused(epochs):
  with pytest.raises(ValueError, match=f'epochs={epochs} must be a finite number'):
    _ = Clock(examples=1000, batch_size=10, epochs=epochs).total_steps
