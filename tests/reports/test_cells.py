"""Means and deviations in a cell: the deviation says how many digits both have."""

import math

import pytest

from sparsejax.reports.text import cells


@pytest.mark.parametrize(
  ('name', 'values', 'text'),
  [
    # The deviation of -3, 0 and 3 is 3.
    ('active_fraction', (0.00962, 0.00965, 0.00968), '0.9650 ± 0.0030 %'),
    ('active_fraction', (0.0004, 0.0005, 0.0006), '0.050 ± 0.010 %'),
    ('active_fraction', (1.0, 1.0), '100.00 %'),
    ('test_accuracy', (0.67, 0.70, 0.73), '70.00 ± 3.00 %'),  # never less than a run's two decimals
    ('test_accuracy', (0.98762, 0.98765, 0.98768), '98.7650 ± 0.0030 %'),
    ('validation_loss', (0.3, 0.5), '0.40 ± 0.14'),  # 0.1 * sqrt(2)
    ('validation_loss', (0.40997, 0.41, 0.41003), '0.410000 ± 0.000030'),
    ('validation_loss', (0.41,), '0.41'),
    ('validation_loss', (0.41, math.inf), '-'),
    ('validation_loss', (1e-6, 3e-6), '2e-06 ± 1.4e-06'),
    ('seconds', (12.0, 3012.0, 6012.0), '3,012 ± 3,000'),
    ('seconds', (-3.0, 0.0, 3.0), '0.0 ± 3.0'),
  ],
)
def test_a_mean_has_as_many_decimals_as_its_deviation(name, values, text):
  assert cells.figure(name, values) == text


def test_a_mean_has_six_digits_at_most_and_what_is_lost_in_them_is_no_deviation():
  assert cells.format_moments(5.0, 0.000031, '5.00', least=2) == '5.00000 ± 0.00003'
  assert cells.format_moments(5.0, 0.000004, '5.00', least=2) == '5.00'
  assert cells.format_moments(123456.0, 3.2, '123,456') == '123,456 ± 3'
