"""Counts in two halves: the same code with eight bits, where every sum can be tested."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.sparsity.parts import allocation, wide
from sparsejax.sparsity.parts.selection import ordered_bits

NARROW = jnp.uint8


def number(pair):
  return int(pair.high) * 2 ** (8 * pair.low.dtype.itemsize // 2) + int(pair.low)


def narrow(value):
  high, low = divmod(value, 16)
  return wide.Wide(jnp.uint8(high), jnp.uint8(low))


VALUES = [0, 1, 15, 16, 17, 100, 255, 256, 1_000, 2_047]


@pytest.mark.parametrize(('a', 'b'), list(itertools.product(VALUES, VALUES)))
def test_sums_differences_and_order(a, b):
  left, right = narrow(a), narrow(b)
  assert number(wide.add(left, right)) == a + b
  assert number(wide.minus(left, right)) == max(a - b, 0)
  assert bool(wide.at_least(left, right)) == (a >= b)
  if b < 256:
    assert int(wide.at_most(left, jnp.uint8(b))) == min(a, b)


def test_totals_beyond_the_integer():
  counts = np.array([200, 250, 3, 255, 90])
  assert number(wide.total(jnp.asarray(counts), NARROW)) == counts.sum()
  high, low = wide.before(jnp.asarray(counts), NARROW)
  starts = np.asarray(high, int) * 16 + np.asarray(low, int)
  np.testing.assert_array_equal(starts, np.cumsum(counts) - counts)


@pytest.mark.parametrize('value', [0, 7, 2**31 - 1, 2**31, 5 * 2**31 + 3])
def test_words_from_the_host_are_read_on_the_device(value):
  assert number(wide.of_words(jnp.asarray(wide.to_words(value), jnp.int32))) == value


@pytest.mark.parametrize('total', [0, 1, 254, 255, 256, 700, 1_199, 1_200])
def test_a_ranking_of_more_scores_than_the_integer_counts(total):
  """Ranks 1,200 scores with ties, in layers of at most 250."""
  rng = np.random.default_rng(0)
  shapes = (3, 10, 20), (2, 250), (1, 100)
  scores = [rng.integers(0, 40, shape).astype(np.float32) for shape in shapes]
  keys = [ordered_bits(jnp.asarray(score)) for score in scores]
  words = jnp.asarray(wide.to_words(total, 7))
  counts = wide.ranked(keys, wide.of_words(words, NARROW), 0, NARROW)
  flat = np.concatenate([score.ravel() for score in scores])
  kept = np.zeros(len(flat), int)
  kept[np.argsort(-flat, kind='stable')[:total]] = 1
  sizes = [200, 200, 200, 250, 250, 100]
  by_layer = [part.sum() for part in np.split(kept, np.cumsum(sizes)[:-1])]
  assert np.concatenate(counts).tolist() == by_layer


@pytest.mark.parametrize('floor', [0, 1, 5])
@pytest.mark.parametrize('total', [40, 61, 119, 120])
def test_it_equals_the_ranking_of_fewer_scores(total, floor):
  """Ranks 120 scores with ties, in layers of 10, 20 and 50."""
  rng = np.random.default_rng(1)
  shapes = (2, 10), (1, 4, 5), (1, 50), (3, 10)
  scores = [jnp.asarray(rng.integers(0, 9, shape), jnp.float32) for shape in shapes]
  row = jnp.asarray(wide.to_words(total), jnp.int32)
  halves = wide.ranked(list(map(ordered_bits, scores)), wide.of_words(row), floor)
  counts = allocation.global_rank().counts(scores, row, floor, [1] * 4)
  assert [count.tolist() for count in counts] == [count.tolist() for count in halves]
  assert sum(int(count.sum()) for count in counts) == total
