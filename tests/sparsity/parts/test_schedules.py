"""Pruning schedules: finite tables of steps and densities, the last met exactly."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax
from sparsejax.sparsity.parts import schedules


def test_one_shot_is_one_row():
  assert schedules.one_shot(60, 0.05) == schedules.PruningSchedule((60,), (0.05,))


def test_cubic_by_hand():
  """At a quarter, a half, three quarters and the end, the density is 0.2 + 0.8 left^3."""
  schedule = schedules.cubic(100, 500, 0.2, every=100)
  assert schedule.steps == (200, 300, 400, 500)
  wanted = [0.2 + 0.8 * 27 / 64, 0.2 + 0.8 / 8, 0.2 + 0.8 / 64, 0.2]
  assert schedule.densities == pytest.approx(wanted, rel=1e-12)


def test_cubic_is_the_formula_of_zhu_and_gupta_in_sparsity():
  schedule = schedules.cubic(10, 73, 0.1, initial=0.9, every=7)
  for step, density in zip(*schedule, strict=True):
    sparsity = 0.9 + (0.1 - 0.9) * (1 - (step - 10) / (73 - 10)) ** 3
    assert density == pytest.approx(1 - sparsity, rel=1e-12)


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(
  begin=st.integers(0, 1000),
  length=st.integers(1, 1000),
  every=st.integers(1, 1500),
  density=st.floats(0, 1),
)
def test_cubic_falls_to_exactly_its_target_whatever_the_period(begin, length, every, density):
  steps, densities = schedules.cubic(begin, begin + length, density, every=every)
  assert steps[-1] == begin + length
  assert densities[-1] == density
  assert steps[0] > begin
  assert all(a < b for a, b in itertools.pairwise(steps))
  assert all(a >= b for a, b in itertools.pairwise((1.0, *densities)))
  assert all((step - begin) % every == 0 for step in steps[:-1])


def test_a_threshold_rises_from_its_initial_value():
  densities = schedules.cubic(0, 40, 0.02, initial=0.0, every=10).densities
  assert densities[-1] == 0.02
  assert all(a < b for a, b in itertools.pairwise((0.0, *densities)))


def test_periodic_renews_at_one_target_before_its_end():
  assert schedules.periodic(0, 300, 0.1, every=100) == ((0, 100, 200), (0.1,) * 3)
  assert schedules.periodic(50, 301, 0.1, every=100).steps == (50, 150, 250)
  assert schedules.periodic(50, 51, 0.1, every=100) == ((50,), (0.1,))


def test_rounds_by_hand():
  schedule = schedules.iterative(100, 10, 0.5, fraction=0.2)
  assert schedule.steps == (100, 110, 120, 130)
  assert schedule.densities == (pytest.approx(0.8), pytest.approx(0.64), pytest.approx(0.512), 0.5)


def test_rounds_that_meet_the_target_exactly_need_no_extra_round():
  for count in (1, 2, 3, 10, 30):
    for share in (0.2, 0.5, 0.1, 1 / 3):
      assert len(schedules.iterative(0, 1, (1 - share) ** count, fraction=share).steps) == count


def test_a_target_within_one_round_is_one_round():
  for density in (0.95, 1 - 1e-12, 0.8):
    assert schedules.iterative(7, 5, density) == ((7,), (density,))


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(
  begin=st.integers(0, 1000),
  every=st.integers(1, 500),
  density=st.floats(1e-6, 1, exclude_max=True),
  share=st.floats(0.01, 0.99),
)
def test_rounds_remove_the_share_each_and_end_exactly_on_the_target(begin, every, density, share):
  steps, densities = schedules.iterative(begin, every, density, fraction=share)
  assert densities[-1] == density
  assert steps == tuple(begin + every * i for i in range(len(densities)))
  left = (1.0, *densities)
  for before, after in itertools.pairwise(left[:-1]):
    assert after == pytest.approx((1 - share) * before)
  # The last round is no larger than the others, and removes something.
  assert left[-2] * (1 - share) * (1 - 1e-8) <= left[-1] <= left[-2]


def test_the_public_index_has_these_schedules():
  assert sparsejax.periodic is schedules.periodic
  assert sparsejax.iterative is schedules.iterative
  assert sparsejax.cubic is schedules.cubic
  assert sparsejax.one_shot is schedules.one_shot
  assert sparsejax.PruningSchedule is schedules.PruningSchedule


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: schedules.one_shot(-1, 0.5), 'pruning at step -1: the step must be 0 or later'),
    (lambda: schedules.cubic(40, 40, 0.5), 'begin=40, end=40'),
    (lambda: schedules.cubic(0, 40, 0.5, every=0), 'every=0'),
    (lambda: schedules.periodic(40, 40, 0.5), 'periodic schedule with begin=40, end=40'),
    (lambda: schedules.periodic(0, 40, 0.5, every=0), 'every=0'),
    (lambda: schedules.one_shot(0, None), '^one_shot: density=None must be a number$'),
    (lambda: schedules.one_shot(0, '0.5'), "^one_shot: density='0.5' must be a number$"),
    (lambda: schedules.one_shot(1.5, 0.5), '^one_shot: step=1.5 must be a whole number$'),
    (lambda: schedules.cubic(0, None, 0.5), '^cubic: end=None must be a whole number$'),
    (lambda: schedules.cubic(0, 9, 0.5, initial='1'), "^cubic: initial='1' must be a number$"),
    (lambda: schedules.periodic(0, 9, 0.5, every=2.5), '^periodic: every=2.5 must be a whole'),
    (
      lambda: schedules.iterative(0, 9, 0.5, fraction=None),
      '^iterative: fraction=None must be a number$',
    ),
    (lambda: schedules.iterative(0, 0, 0.5), 'iterative with every=0'),
    (lambda: schedules.iterative(0, 1, 1.1), 'density=1.1'),
    (lambda: schedules.iterative(0, 1, 0.0), 'density=0.0'),
    (lambda: schedules.iterative(0, 1, 0.5, fraction=1.0), 'fraction=1.0'),
    (lambda: schedules.iterative(0, 1, 0.5, fraction=0.0), 'fraction=0.0'),
    (lambda: schedules.iterative(-1, 1, 0.5), 'pruning at step -1'),
    (lambda: schedules.PruningSchedule((), ()), '0 steps and 0 densities'),
    (
      lambda: schedules.PruningSchedule((1, 2), (0.5,)),
      '2 steps and 1 dens',
    ),
    (lambda: schedules.PruningSchedule((2, 1), (0.5, 0.4)), 'must increase'),
    (lambda: schedules.PruningSchedule((2, 2), (0.5, 0.4)), 'must increase'),
    (lambda: schedules.PruningSchedule((2.5,), (0.5,)), 'whole numbers'),
  ],
)
def test_an_invalid_table_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


# Densities by path


def test_each_layer_follows_the_cubic_to_its_own_density():
  schedule = schedules.cubic(0, 40, {'a': 0.5, 'b': 0.1}, every=20)
  alone = [schedules.cubic(0, 40, density, every=20).densities for density in (0.5, 0.1)]
  expected = tuple((('a', one), ('b', other)) for one, other in zip(*alone, strict=True))
  assert schedule.by_layer
  assert schedule.densities == expected
  assert schedules.periodic(0, 20, {'a': 0.5}, every=10).densities == ((('a', 0.5),),) * 2
  assert not schedules.one_shot(0, 0.5).by_layer


@pytest.mark.parametrize(
  ('density', 'message'),
  [
    ({}, r"^one_shot: density=\{\} must name a layer, as in \{'fc1': 0\.1\}$"),
    ({'a': 1.5}, r"^one_shot: density=\{'a': 1\.5\} must be a density from 0 to 1$"),
    ({'a': None}, r"^one_shot: density=\{'a': None\} must be a density from 0 to 1$"),
    ({'[': 0.5}, r"^one_shot: density='\[' must be a regular expression: "),
    ({3: 0.5}, r'^one_shot: density=\{3: 0\.5\} must have expressions over paths as keys'),
  ],
)
def test_an_invalid_mapping_is_refused(density, message):
  with pytest.raises(ValueError, match=message):
    schedules.one_shot(0, density)


def test_patterns_are_the_same_at_every_step():
  with pytest.raises(ValueError, match=r'must have the same patterns at every step$'):
    schedules.PruningSchedule((0, 1), ({'a': 0.5}, 0.5))
  with pytest.raises(ValueError, match=r"^iterative: density=\{'a': 0\.5\} must be a number$"):
    schedules.iterative(0, 10, {'a': 0.5})
