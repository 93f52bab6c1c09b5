"""Pruning schedules: finite tables of steps and targets, the last met exactly."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax
from sparsejax.sparsity import schedules


def test_one_shot_is_one_row():
  assert schedules.one_shot(60, 0.05) == schedules.PruningSchedule((60,), (0.05,))


def test_cubic_by_hand():
  """At a quarter, a half, three quarters and the end of the way: 1 - s = 0.2 + 0.8 left^3."""
  schedule = schedules.cubic(100, 500, 0.2, every=100)
  assert schedule.steps == (200, 300, 400, 500)
  wanted = [0.2 + 0.8 * 27 / 64, 0.2 + 0.8 / 8, 0.2 + 0.8 / 64, 0.2]
  assert schedule.targets == pytest.approx(wanted, rel=1e-12)


def test_cubic_is_the_formula_of_zhu_and_gupta_in_sparsity():
  schedule = schedules.cubic(10, 73, 0.1, initial=0.9, every=7)
  for step, target in zip(*schedule, strict=True):
    sparsity = 0.9 + (0.1 - 0.9) * (1 - (step - 10) / (73 - 10)) ** 3
    assert target == pytest.approx(1 - sparsity, rel=1e-12)


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(
  begin=st.integers(0, 1000),
  length=st.integers(1, 1000),
  every=st.integers(1, 1500),
  target=st.floats(0, 1),
)
def test_cubic_falls_to_exactly_its_target_whatever_the_period(begin, length, every, target):
  steps, targets = schedules.cubic(begin, begin + length, target, every=every)
  assert steps[-1] == begin + length
  assert targets[-1] == target
  assert steps[0] > begin
  assert all(a < b for a, b in itertools.pairwise(steps))
  assert all(a >= b for a, b in itertools.pairwise((1.0, *targets)))
  assert all((step - begin) % every == 0 for step in steps[:-1])


def test_a_threshold_rises_from_its_initial_value():
  targets = schedules.cubic(0, 40, 0.02, initial=0.0, every=10).targets
  assert targets[-1] == 0.02
  assert all(a < b for a, b in itertools.pairwise((0.0, *targets)))


def test_what_the_index_offers_is_this():
  assert sparsejax.cubic is schedules.cubic
  assert sparsejax.one_shot is schedules.one_shot
  assert sparsejax.PruningSchedule is schedules.PruningSchedule


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: schedules.one_shot(-1, 0.5), 'pruning at step -1: allowed is 0 or later'),
    (lambda: schedules.cubic(40, 40, 0.5), 'begin=40, end=40'),
    (lambda: schedules.cubic(0, 40, 0.5, every=0), 'every=0'),
    (lambda: schedules.checked(schedules.PruningSchedule((), ())), '0 steps and 0 targets'),
    (lambda: schedules.checked(schedules.PruningSchedule((1, 2), (0.5,))), '2 steps and 1 targets'),
    (lambda: schedules.checked(schedules.PruningSchedule((2, 1), (0.5, 0.4))), 'rising'),
    (lambda: schedules.checked(schedules.PruningSchedule((2, 2), (0.5, 0.4))), 'rising'),
    (lambda: schedules.checked(schedules.PruningSchedule((2.5,), (0.5,))), 'whole numbers'),
  ],
)
def test_a_table_that_makes_no_sense_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
