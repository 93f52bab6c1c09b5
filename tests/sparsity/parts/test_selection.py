"""Selection: the largest of many scores, exactly as a stable sort finds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.sparsity.parts import selection

quick = settings(deadline=None, max_examples=100, derandomize=True, database=None)

keep_largest = jax.jit(selection.keep_largest)


def sorted_reference(scores: np.ndarray, count: int) -> np.ndarray:
  """Returns the same mask by a stable sort, the obvious but slow way."""
  kept = np.zeros(scores.size, bool)
  kept[np.argsort(-scores, kind='stable')[:count]] = True
  return kept


def test_keep_largest_by_hand():
  assert keep_largest(jnp.array([1.0, 3.0, 3.0, 2.0]), 2).tolist() == [False, True, True, False]
  assert keep_largest(jnp.array([1.0, 3.0, 3.0, 2.0]), 1).tolist() == [False, True, False, False]
  assert keep_largest(jnp.array([[5.0], [7.0]]), 1).tolist() == [[False], [True]]


@quick
@given(
  scores=st.lists(
    st.one_of(
      st.floats(width=32, allow_nan=False),
      st.sampled_from([0.0, -0.0, 1.0, -1.0, float('inf'), float('-inf')]),
    ),
    min_size=9,
    max_size=9,
  ),
  count=st.integers(0, 9),
)
def test_keep_largest_is_a_stable_sort(scores, count):
  scores = np.array(scores, np.float32)
  scores[np.abs(scores) < np.finfo(np.float32).tiny] = 0.0  # XLA on CPU flushes subnormals
  np.testing.assert_array_equal(keep_largest(scores, count), sorted_reference(scores, count))


@pytest.mark.parametrize('count', [0, 1, 2_999, 30_000, 59_999, 60_000])
def test_keep_largest_among_many_equals(count):
  scores = np.random.default_rng(0).integers(0, 50, 60_000).astype(np.float32)
  kept = np.asarray(keep_largest(scores, count))
  assert kept.sum() == count
  np.testing.assert_array_equal(kept, sorted_reference(scores, count))


def test_keep_largest_distinguishes_neighbouring_floats():
  one = np.float32(1)
  scores = np.array([one, np.nextafter(one, np.float32(2)), np.nextafter(one, np.float32(0))])
  assert keep_largest(scores, 1).tolist() == [False, True, False]
  assert keep_largest(scores, 2).tolist() == [True, True, False]


def test_keep_largest_takes_bfloat16():
  scores = jnp.array([2.0, -1.0, 3.0, 3.0], jnp.bfloat16)
  assert keep_largest(scores, 2).tolist() == [False, False, True, True]


def test_nan_scores_are_kept_and_so_remain_visible():
  assert keep_largest(jnp.array([1.0, jnp.nan, jnp.inf]), 1).tolist() == [False, True, False]
