"""How many weights a rule keeps, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.second_order.keeping import best_of_each, shares
from sparsejax.second_order.moments import moments_of
from sparsejax.second_order.sparsegpt import sparsegpt
from sparsejax.second_order.wanda import wanda


@pytest.mark.parametrize('count', [0, 1, 7, 50, 99, 100])
def test_shares_add_up_and_fit(count):
  sizes = np.array([33, 1, 0, 60, 6])
  found = shares(count, sizes)
  assert found.sum() == count
  assert (found >= 0).all()
  assert (found <= sizes).all()
  assert (np.abs(found - count * sizes / 100) <= 1).all()


def test_shares_of_more_than_64_bits():
  assert shares(3 * 2**40, np.array([2**41, 2**41])).tolist() == [3 * 2**39] * 2


def test_a_short_last_group_keeps_at_most_n():
  assert best_of_each(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1, 4).tolist() == [
    *(False, False, False, True),
    True,
  ]


@pytest.mark.parametrize('keep', [-1, 31, 2.0, True, (0, 4), (5, 4), (1, 1), (1, 2, 3)])
@pytest.mark.parametrize('rule', [sparsegpt, wanda])
def test_an_impossible_number_to_keep_is_refused(rule, keep):
  w, x = jnp.ones((1, 5, 6)), jnp.ones((1, 50, 6))
  with pytest.raises(ValueError, match='must be a number of weights from 0 to 30'):
    rule(w, moments_of(x), keep)


def test_what_does_not_fit_is_refused():
  kernel, x = jnp.ones((1, 5, 6)), jnp.ones((1, 50, 6))
  moments = moments_of(x)
  with pytest.raises(ValueError, match=r'kernel of shape \(5, 6\) must be'):
    wanda(kernel[0], moments, 3)
  with pytest.raises(ValueError, match='must have 1 groups of 5 inputs'):
    wanda(kernel[..., :5], moments, 3)
  with pytest.raises(ValueError, match='needs more than their diagonal'):
    sparsegpt(kernel, moments_of(x, diagonal=True), 3)
  with pytest.raises(ValueError, match='damping=-1'):
    sparsegpt(kernel, moments, 3, damping=-1)
