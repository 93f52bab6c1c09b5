"""Two answers agree if they differ by a small share of their spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.internal.answers import Apart, apart


@pytest.mark.parametrize(
  ('found', 'wanted'),
  [
    ([1.0, 2.0], [1.0, 2.00001]),  # the spread is 0.5
    ([3.0, 3.0001], [3.0, 3.0]),  # all are equal: their magnitude counts
    ([0.0, 1e-5], [0.0, 0.0]),  # all are zero: differences count as they are
    ([np.nan, np.inf, -np.inf], [np.nan, np.inf, -np.inf]),
    ([np.inf, 1.0, 2.00001], [np.inf, 1.0, 2.0]),
    ([], []),
    ([1 + 1j, 2.00001j], [1 + 1j, 2j]),
    ([True, False], [True, False]),
    ([2**60 + 1], [2**60 + 1]),
  ],
)
def test_answers_that_agree(found, wanted):
  assert apart(np.array(found), np.array(wanted), 1e-4) is None


@pytest.mark.parametrize(
  ('found', 'wanted', 'difference', 'spread'),
  [
    ([1.0, 2.5], [1.0, 2.0], 0.5, 0.5),
    ([3.0, 3.5], [3.0, 3.0], 0.5, 3.0),
    ([0.0, 0.5], [0.0, 0.0], 0.5, 0.0),
    ([np.nan, 1.0], [0.0, 1.0], np.inf, 0.5),
    ([0.0, 1.0], [np.nan, 1.0], np.inf, 1.0),
    ([np.inf, 1.0], [-np.inf, 1.0], np.inf, 1.0),
    ([3j, 1.0], [1j, 1.0], 2.0, 0.5**0.5),
    ([True, False], [False, False], 1.0, 0.0),
    ([1000, 1], [1000, 0], 1.0, 500.0),  # integers must be equal
    ([2**60 + 1], [2**60], 0.0, 2.0**60),  # also where float64 does not show it
  ],
)
def test_answers_that_differ(found, wanted, difference, spread):
  assert apart(np.array(found), np.array(wanted), 1e-2) == pytest.approx((difference, spread))


def test_every_array_of_a_pytree_is_measured_by_its_own_spread():
  wanted = {'large': np.array([0.0, 1000.0]), 'small': np.array([0.0, 1.0])}
  assert apart({**wanted, 'large': np.array([0.0, 1000.125])}, wanted, 1e-3) is None
  assert apart({**wanted, 'small': np.array([0.0, 1.125])}, wanted, 1e-3) == Apart(0.125, 0.5)
  both = {'large': np.array([0.0, 1002.0]), 'small': np.array([0.0, 1.125])}
  assert apart(both, wanted, 1e-3) == Apart(2.0, 500.0)


def test_short_floats_are_compared_and_random_keys_are_not():
  wanted = jnp.array([1.0, 2.0], jnp.bfloat16), jax.random.key(0)
  assert apart((wanted[0], jax.random.key(1)), wanted, 1e-3) is None
  assert apart((wanted[0] + 1, wanted[1]), wanted, 1e-3) == Apart(1.0, 0.5)
