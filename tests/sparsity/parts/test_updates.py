"""Update rules: the new mask from the old mask, the scores and the count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.sparsity.mask_update import Renewal
from sparsejax.sparsity.parts import allocation, criteria, granularity, update_rules
from sparsejax.sparsity.parts.schedules import one_shot
from sparsejax.sparsity.parts.selection import keep_largest


@jax.jit
def nested(mask, scores, count):
  """The new mask by the default parts, of which only the number to keep is given."""
  keep = allocation.Allocation(lambda *_: np.zeros(1), lambda *_: [count[None]])
  parts = Renewal.of(
    one_shot(0, 0.5),
    criterion=criteria.magnitude,
    granularity=None,
    allocation=keep,
    parameters='all',
    exclude=(),
    layouts=None,
    floor=0,
    seed=0,
  )
  return parts.renew({'w': mask}, {'w': scores}, {}, 0, 0, jnp.zeros((1, 1)))['w']


def test_nested_keeps_the_best_of_the_active():
  mask, scores = jnp.array([True, False, True]), jnp.array([1.0, 9.0, 2.0])
  assert nested(mask, scores, 1).tolist() == [False, False, True]
  assert nested(mask, scores, 2).tolist() == [True, False, True]


def test_nested_regrows_nothing_whatever_the_count():
  mask, scores = jnp.array([True, False, True]), jnp.array([0.0, 9.0, 0.0])
  assert nested(mask, scores, 3).tolist() == [True, False, True]


def test_nested_prefers_active_zeros_to_removed_weights():
  mask, scores = jnp.array([[False, True], [True, False]]), jnp.zeros((2, 2))
  assert nested(mask, scores, 1).tolist() == [[False, True], [False, False]]


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
  mask=st.lists(st.booleans(), min_size=7, max_size=7),
  scores=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=7, max_size=7),
  count=st.integers(0, 7),
)
def test_nested_masks_shrink_to_the_count_and_keep_the_largest(mask, scores, count):
  mask, scores = np.array(mask), np.array(scores, np.float32)
  new = np.asarray(nested(mask, scores, count))
  assert not np.any(new & ~mask)
  assert new.sum() == min(count, mask.sum())
  assert np.min(scores[new], initial=9) >= np.max(scores[mask & ~new], initial=0)


# Rules that exchange


RULES = {
  'set': update_rules.set_(0.5),
  'set by criterion': update_rules.set_(0.5, start='criterion'),
  'rigl': update_rules.rigl(100, 0.5),
  'granet': update_rules.granet(100),
}
SIZE, COUNT = 12, 6  # three of the six are exchanged at step 0
MASK = np.arange(SIZE) < COUNT  # the first half is active
SCORES = np.array([5, 2, 6, 1, 4, 3, 9, 9, 9, 9, 9, 9], np.float32)  # removed ones do not count


@functools.partial(jax.jit, static_argnames=('name', 'm'))
def exchange(name, mask, scores, count, grow, *, start=None, step=0, m=None):
  select = granularity.n_m(1, m).select if m else keep_largest
  grow, start = jnp.asarray(grow), jnp.zeros_like(grow) if start is None else start
  return update_rules.exchange(
    RULES[name],
    *(mask, scores, count),
    select=select,
    grow_scores=grow,
    start_scores=start,
    step=step,
  )


def places(mask):
  return np.flatnonzero(mask).tolist()


def test_the_share_of_rigl_falls_like_half_a_cosine_to_zero_at_its_end():
  share = update_rules.rigl(end=200, drop_fraction=0.4).drop_fraction
  steps = jnp.array([0, 50, 100, 150, 200, 500])
  quarter = 0.2 * (1 + np.sqrt(0.5))
  np.testing.assert_allclose(share(steps), [0.4, quarter, 0.2, 0.4 - quarter, 0, 0], atol=1e-7)


def test_the_share_of_set_is_constant():
  assert [float(update_rules.set_(0.25).drop_fraction(step)) for step in (0, 1000)] == [0.25, 0.25]


@pytest.mark.parametrize('name', RULES)
def test_the_best_are_kept_and_the_best_of_the_removed_regrow(name):
  grow = np.array([0, 0, 0, 0, 0, 0, 1, 9, 2, 8, 3, 7], np.float32)
  new = exchange(name, MASK, SCORES, COUNT, grow)
  assert places(new) == [0, 2, 4, 7, 9, 11]


def test_a_dropped_weight_may_regrow_at_once():
  grow = np.array([0, 9, 0, 0, 0, 0, 1, 9, 2, 8, 3, 7], np.float32)
  assert places(exchange('rigl', MASK, SCORES, COUNT, grow)) == [0, 1, 2, 4, 7, 9]


def test_kept_weights_stay_whatever_their_grow_scores():
  grow = np.where(MASK, 0, 9).astype(np.float32)
  assert places(exchange('rigl', MASK, SCORES, COUNT, grow)) == [0, 2, 4, 6, 7, 8]


def test_from_its_end_on_rigl_exchanges_nothing():
  grow = np.where(MASK, 0, 9).astype(np.float32)
  assert places(exchange('rigl', MASK, SCORES, COUNT, grow, step=60)) == [0, 1, 2, 4, 5, 6]
  for step in (100, 101, 10_000):
    assert places(exchange('rigl', MASK, SCORES, COUNT, grow, step=step)) == places(MASK)


def test_a_layer_that_is_whole_starts_at_random_or_by_the_criterion():
  whole, scores = np.ones(SIZE, bool), np.arange(SIZE, dtype=np.float32)
  start = np.array([0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4], np.float32)
  grow = np.array([9] + [0] * 11, np.float32)
  for name in ('set', 'rigl'):
    assert places(exchange(name, whole, scores, COUNT, grow, start=start)) == [1, 3, 5, 7, 9, 11]
  # The best three are kept; of the others, all just dropped, the first by growth returns.
  found = exchange('set by criterion', whole, scores, COUNT, grow, start=start)
  assert places(found) == [0, 1, 2, 9, 10, 11]


@pytest.mark.parametrize('name', RULES)
def test_a_layer_that_stays_whole_exchanges_nothing(name):
  rng = np.random.default_rng(0)
  random = [rng.random(SIZE, np.float32) for _ in range(3)]
  whole = np.ones(SIZE, bool)
  new = exchange(name, whole, random[0], SIZE, random[1], start=random[2])
  assert places(new) == places(whole)


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
  name=st.sampled_from(sorted(RULES)),
  there=st.integers(1, SIZE),
  count=st.integers(0, SIZE),
  step=st.integers(0, 120),
  seed=st.integers(0, 10),
)
def test_counts_are_exact_and_kept_scores_exceed_dropped_ones(name, there, count, step, seed):
  rng = np.random.default_rng(seed)
  mask = rng.permutation(SIZE) < there
  scores, grow, start = (rng.choice([0.0, 0.5, 1.0], SIZE).astype(np.float32) for _ in range(3))
  new = np.asarray(exchange(name, mask, scores, count, grow, start=start, step=step))
  assert new.sum() == count
  if there == SIZE and RULES[name].start == 'random':
    return
  exchanged = int(np.round(np.float32(RULES[name].drop_fraction(step)) * count))
  kept = min(count - exchanged, there)
  ranks = np.lexsort((np.arange(SIZE), -scores, ~mask))
  assert new[ranks[:kept]].all()
  grown = np.setdiff1d(np.flatnonzero(new), ranks[:kept])
  assert len(grown) == count - kept
  assert np.min(grow[grown], initial=9) >= np.max(grow[~new], initial=0)


@pytest.mark.parametrize('name', RULES)
@pytest.mark.parametrize('count', [10, 12, 15, 20])
def test_within_a_pattern_no_group_grows_more_than_its_n(name, count):
  """Five inputs of four outputs in groups of two: two full groups and one of a single input."""
  rng = np.random.default_rng(1)
  mask = np.ones((5, 4), bool)
  for step in (0, 10, 20, 40):
    scores, grow, start = (rng.random((5, 4), np.float32) for _ in range(3))
    before, mask = mask, exchange(name, mask, scores, count, grow, start=start, step=step, m=2)
    mask = np.asarray(mask)
    assert mask.sum() == count
    per_group = np.stack([mask[:2].sum(0), mask[2:4].sum(0)])
    assert per_group.min() >= (1 if count >= 12 else 0)
    assert per_group.max() <= (2 if count > 12 else 1)
    if step and count < 20:
      assert np.any(mask & ~before)


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: update_rules.set_(1.5), 'drop_fraction=1.5 must be a share from 0 to 1'),
    (lambda: update_rules.set_(float('nan')), 'drop_fraction=nan must be a share from 0 to 1'),
    (lambda: update_rules.rigl(10, -0.1), 'drop_fraction=-0.1 must be a share from 0 to 1'),
    (lambda: update_rules.rigl(0), 'rigl: end=0 must be a step after the first'),
    (lambda: update_rules.granet(0), 'granet: end=0 must be a step after the first'),
    (lambda: update_rules.granet(10, 2), 'drop_fraction=2 must be a share from 0 to 1'),
    (lambda: update_rules.set_(start='randm'), "unknown start 'randm': did you mean 'random'?"),
    (lambda: update_rules.rigl(10, start='dense'), "unknown start 'dense'"),
  ],
)
def test_invalid_rules_are_refused_in_one_line(make, message):
  with pytest.raises(ValueError) as error:
    make()
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
