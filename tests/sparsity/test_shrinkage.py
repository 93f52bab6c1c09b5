"""Shrinkage operators: by hand, at the ends of their range, and against a float64 solver."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from sparsejax import granularity, group_soft_threshold, soft_threshold
from sparsejax.sparsity.prox import group_soft_threshold_in_metric

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def test_soft_threshold_moves_values_to_zero_and_not_past_it():
  assert soft_threshold(jnp.array([3.0, -0.5, -2.0]), 1.0).tolist() == [2.0, 0.0, -1.0]
  assert soft_threshold(jnp.array([1.0, -1.0, 0.0]), 1.0).tolist() == [0.0, 0.0, 0.0]
  assert not np.signbit(soft_threshold(jnp.array([-0.5]), 1.0)).any()


def test_soft_threshold_at_the_ends_of_its_range():
  values = jnp.array([3.0, -0.5, 0.0])
  np.testing.assert_array_equal(soft_threshold(values, 0.0), values)
  np.testing.assert_array_equal(soft_threshold(values, jnp.inf), jnp.zeros(3))
  assert soft_threshold(values, jnp.array([1.0, 0.25, 1.0])).tolist() == [2.0, -0.25, 0.0]


def test_a_group_is_shortened_or_removed_as_a_whole():
  # Groups of two weights with norms 5 and 0.5 are shortened by 1, or by sqrt(2).
  kernel = jnp.array([[3.0, 0.3], [4.0, -0.4]])
  np.testing.assert_allclose(
    group_soft_threshold(kernel, 1.0, group_weight='one'), [[2.4, 0.0], [3.2, 0.0]], rtol=1e-6
  )
  factor = 1 - 2**0.5 / 5
  np.testing.assert_allclose(
    group_soft_threshold(kernel, 1.0), [[3 * factor, 0.0], [4 * factor, 0.0]], rtol=1e-6
  )


def test_groups_are_those_of_the_granularity():
  kernel = jnp.array([[3.0, 4.0], [0.3, -0.4]])
  found = group_soft_threshold(kernel, 1.0, granularity.input_channels(), 'one')
  np.testing.assert_allclose(found, [[2.4, 3.2], [0.0, 0.0]], rtol=1e-6)
  single = group_soft_threshold(kernel, 0.5, granularity.weight())
  np.testing.assert_allclose(single, soft_threshold(kernel, 0.5), rtol=1e-6)
  # A tile of two and one of one, at the edge: the root is of the actual size.
  tiles = group_soft_threshold(jnp.array([[3.0, 4.0, 2.0]]), 1.0, granularity.blocks(1, 2))
  factor = 1 - 2**0.5 / 5
  np.testing.assert_allclose(tiles, [[3 * factor, 4 * factor, 1.0]], rtol=1e-6)


@pytest.mark.parametrize('weight', ['sqrt_size', 'one'])
def test_a_group_of_zeros_gives_no_nan_even_in_gradients(weight):
  kernel = jnp.array([[3.0, 0.0], [4.0, 0.0]])
  shrink = jax.jit(lambda v, t: group_soft_threshold(v, t, None, weight))
  slope = jax.jit(jax.grad(lambda v, t: shrink(v, t).sum()))
  in_metric = jax.jit(lambda v, t, d: group_soft_threshold_in_metric(v, t, d, None, weight))
  for threshold in (0.0, 1.0, 1e30):
    assert shrink(kernel, threshold)[:, 1].tolist() == [0.0, 0.0]
    chex.assert_tree_all_finite(slope(kernel, threshold))
    for metric in (jnp.ones((2, 2)), jnp.zeros((2, 2)), jnp.eye(2)):
      found = in_metric(kernel, threshold, metric)
      assert found[:, 1].tolist() == [0.0, 0.0]
      chex.assert_tree_all_finite(found)
  np.testing.assert_array_equal(shrink(kernel, 0.0), kernel)


in_metric = jax.jit(lambda v, t, d: group_soft_threshold_in_metric(v, t, d, None, 'one'))


def solved_in_metric(values, bound, metric):
  """Returns the solution for one group, by bracketing in float64."""
  pulls = metric * values
  if np.linalg.norm(pulls) <= bound:
    return np.zeros_like(values)
  length = brentq(
    lambda r: np.sum((pulls / (metric * r + bound)) ** 2) - 1,
    0.0,
    1.001 * np.linalg.norm(values),
    xtol=1e-300,
    rtol=1e-14,
    maxiter=1000,
  )
  return pulls * length / (metric * length + bound)


@pytest.mark.parametrize('share', [1e-6, 0.1, 0.9, 0.9999])
@pytest.mark.parametrize('decades', [0, 2, 8])
@pytest.mark.parametrize('power', [0.0, 0.7, 1.0])
def test_the_group_operator_in_a_metric_solves_its_equation(share, decades, power):
  """Metrics as wide as Adam's, with the values large where the metric is small and otherwise."""
  rng = np.random.default_rng(0)
  metric = 10.0 ** -rng.uniform(0, decades, (3, 6, 20)).astype(np.float32)
  values = (rng.normal(size=(3, 6, 20)) / metric**power).astype(np.float32)
  pulls = np.linalg.norm((metric * values).reshape(18, 20), axis=0)
  threshold = np.float32(np.median(pulls) * share)
  found = np.asarray(in_metric(values, threshold, metric))
  for g in range(20):
    wide = [a[..., g].ravel().astype(np.float64) for a in (values, metric)]
    wanted = solved_in_metric(wide[0], float(threshold), wide[1])
    error = np.linalg.norm(np.ravel(found[..., g]) - wanted)
    assert error <= 1e-6 * np.linalg.norm(wide[0])
    assert (found[..., g] == 0).all() == (pulls[g] <= threshold)


def test_a_metric_that_is_one_number_divides_the_threshold():
  kernel = jnp.array([[3.0, 0.3], [4.0, -0.4]])
  found = group_soft_threshold_in_metric(kernel, 4.0, jnp.full((2, 2), 4.0))
  np.testing.assert_allclose(found, group_soft_threshold(kernel, 1.0), rtol=1e-6)
