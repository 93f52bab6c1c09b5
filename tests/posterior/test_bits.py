"""Bit widths by hand, and the threshold read off a histogram's gap."""

import numpy as np
import pytest

from sparsejax.posterior import precision
from sparsejax.posterior.precision import Grid
from sparsejax.posterior.thresholds import suggest_threshold


@pytest.mark.parametrize(
  ('variance', 'expected'),
  [
    (0.25, 0),  # 2 variance = 1/2, which is not below 1/2
    (0.24, 1),
    (2.0**-10, 8),
    (1e-30, 23),
    (0.0, 23),
    (1e9, 0),
  ],
)
def test_the_significand_of_one_weight(variance, expected):
  assert precision.significand_bits(np.array([variance])) == expected


def test_the_mean_is_rounded_up_and_no_weights_need_no_bits():
  assert precision.significand_bits(np.array([0.24, 0.24, 2.0**-10])) == 4  # 10 / 3
  assert precision.significand_bits(np.zeros(0)) == 0


@pytest.mark.parametrize(
  ('largest', 'expected'), [(0.0, 1), (1.0, 1), (2.0, 2), (2.1, 3), (8.0, 3)]
)
def test_the_exponent_is_the_networks(largest, expected):
  assert precision.exponent_bits(largest) == expected


def test_removed_weights_have_no_say():
  kernels = {'a': np.array([[0.5, 0.0]]), 'b': np.array([[-3.0]])}
  variances = {'a': np.array([[0.24, 1e-30]]), 'b': np.array([[0.24]])}
  assert precision.grids(kernels, variances) == {'a': Grid(1, 5), 'b': Grid(1, 5)}


def test_rounding_moves_by_half_a_step_at_most():
  values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
  for significand in (0, 3, 8):
    found = precision.round_to(values, significand)
    assert found.dtype == np.float32
    assert np.abs(found - values).max() <= 2.0**-significand / 2
    np.testing.assert_array_equal(found * 2**significand % 1, 0)


def test_compression_counts_what_is_left():
  sizes, grids = {'a': (1000, 10), 'b': (100, 100)}, {'a': Grid(2, 4), 'b': Grid(6, 8)}
  assert precision.compression(sizes, grids) == pytest.approx(32 * 1100 / (40 + 800))
  assert precision.compression({'a': (10, 0)}, {'a': Grid(0, 2)}) == np.inf


def test_the_gap_lies_between_two_humps():
  rng = np.random.default_rng(0)
  humps = np.concatenate([rng.normal(-9, 0.5, 500), rng.normal(4, 0.8, 300)])
  assert -6.5 < suggest_threshold(humps) < 1.5


def test_a_few_survivors_are_seen_beside_many():
  rng = np.random.default_rng(0)
  log_alpha = np.concatenate([rng.normal(-7, 0.5, 50), rng.normal(3, 0.5, 5000)])
  assert -5.5 < suggest_threshold(log_alpha) < 1.0


@pytest.mark.parametrize('size', [20, 50, 100, 300])
@pytest.mark.parametrize('draw', ['normal', 'uniform', 'gumbel'])
def test_bins_that_chance_leaves_empty_are_no_gap(draw, size):
  draws = [getattr(np.random.default_rng(seed), draw)(size=size) for seed in range(50)]
  assert sum(suggest_threshold(values) is not None for values in draws) <= 2


def test_ten_groups_on_either_side_of_a_wide_gap_are_enough():
  rng = np.random.default_rng(0)
  humps = np.concatenate([rng.normal(-5, 1, 10), rng.normal(6, 1, 10)])
  assert -4.0 < suggest_threshold(humps) < 5.0


def test_of_an_empty_stretch_the_middle_is_taken():
  humps = np.concatenate([np.linspace(-8.5, -7.5, 500), np.linspace(7.5, 8.5, 500)])
  assert abs(suggest_threshold(humps)) < 1.0


@pytest.mark.parametrize('size', [100, 300, 1000])
def test_few_groups_in_two_humps_have_a_gap(size):
  rng = np.random.default_rng(1)
  humps = np.concatenate([rng.normal(-5, 1.2, size // 3), rng.normal(8, 2, size - size // 3)])
  assert -3.0 < suggest_threshold(humps) < 4.0


@pytest.mark.parametrize(
  'values', [np.zeros(0), np.ones(1), np.ones(9), np.random.default_rng(0).uniform(size=5000)]
)
def test_where_there_is_no_gap_none_is_suggested(values):
  assert suggest_threshold(values) is None
