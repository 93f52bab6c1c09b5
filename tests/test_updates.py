"""Update rules: the mask that was, the scores and the count make the mask that will be."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.sparsity import updates


@jax.jit
def nested(mask, scores, count):
  return updates.renew(updates.nested(), mask, scores, count)


def test_nested_keeps_the_best_of_those_still_there():
  mask, scores = jnp.array([True, False, True]), jnp.array([1.0, 9.0, 2.0])
  assert nested(mask, scores, 1).tolist() == [False, False, True]
  assert nested(mask, scores, 2).tolist() == [True, False, True]


def test_nested_lets_nothing_come_back_however_many_it_may_keep():
  mask, scores = jnp.array([True, False, True]), jnp.array([0.0, 9.0, 0.0])
  assert nested(mask, scores, 3).tolist() == [True, False, True]


def test_nested_keeps_living_zeros_before_anything_that_is_gone():
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
