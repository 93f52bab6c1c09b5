"""Rules of one layer, against their definitions computed in float64 by loops over weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.second_order.moments import Moments, hessian, moments_of
from sparsejax.second_order.sparsegpt import inverse_factor, sparsegpt
from sparsejax.second_order.wanda import wanda


def layer(groups, outputs, inputs, rows, seed=0):
  rng = np.random.default_rng(seed)
  mixing = rng.normal(size=(groups, inputs, inputs))
  x = rng.normal(size=(groups, rows, inputs)) @ mixing / inputs**0.5
  return rng.normal(size=(groups, outputs, inputs)).astype(np.float32), x.astype(np.float32)


def damped(x, damping=0.01):
  h = x.astype(np.float64).T @ x.astype(np.float64) / len(x)
  h += damping * np.mean(np.diag(h)) * np.eye(len(h))
  return h


def chosen(scores, count):
  mask = np.zeros(scores.size, bool)
  mask[np.argsort(-scores.ravel(), kind='stable')[:count]] = True
  return mask.reshape(scores.shape)


def by_definition(w, x, keep, block):
  """SparseGPT of a layer of one group: methods in float64, with an explicit inverse."""
  w = w.astype(np.float64)
  u = np.linalg.cholesky(np.linalg.inv(damped(x))).T
  inputs = w.shape[1]
  mask = np.ones(w.shape, bool)
  kept = 0
  for start in range(0, inputs, block):
    end = min(start + block, inputs)
    if isinstance(keep, int):
      share = round(keep * end / inputs + 1e-9) - kept
      kept += share
      mask[:, start:end] = chosen(w[:, start:end] ** 2 / np.diag(u)[start:end] ** 2, share)
    for q in range(start, end):
      if not isinstance(keep, int) and q % keep[1] == 0:
        n, m = keep
        score = w[:, q : q + m] ** 2 / np.diag(u)[q : q + m] ** 2
        mask[:, q : q + m] = [chosen(row, n) for row in score]
      error = np.where(mask[:, q], 0, w[:, q]) / u[q, q]
      w[:, q:] -= np.outer(error, u[q, q:])
  return np.where(mask, w, 0), mask


@pytest.mark.parametrize('block', [128, 16, 7])
@pytest.mark.parametrize('inputs', [40, 37])
def test_sparsegpt_is_its_definition(inputs, block):
  w, x = layer(1, 24, inputs, 300)
  keep = 24 * inputs // 3
  new, mask = sparsegpt(jnp.asarray(w), moments_of(jnp.asarray(x)), keep, block=block)
  wanted, wanted_mask = by_definition(w[0], x[0], keep, block)
  assert mask.sum() == keep
  np.testing.assert_array_equal(mask[0], wanted_mask)
  np.testing.assert_allclose(new[0], wanted, atol=2e-4)


def test_sparsegpt_in_blocks_of_128_columns():
  w, x = layer(1, 16, 300, 1000, seed=1)
  new, mask = sparsegpt(jnp.asarray(w), moments_of(jnp.asarray(x)), 2400)
  wanted, wanted_mask = by_definition(w[0], x[0], 2400, 128)
  np.testing.assert_array_equal(mask[0], wanted_mask)
  np.testing.assert_allclose(new[0], wanted, atol=1e-3)


@pytest.mark.parametrize(('n', 'm'), [(2, 4), (1, 3), (4, 8)])
@pytest.mark.parametrize('inputs', [24, 26])
def test_sparsegpt_keeps_n_of_each_m(n, m, inputs):
  w, x = layer(1, 12, inputs, 200, seed=2)
  new, mask = sparsegpt(jnp.asarray(w), moments_of(jnp.asarray(x)), (n, m), block=2 * m + 1)
  wanted, wanted_mask = by_definition(w[0], x[0], (n, m), 2 * m)
  np.testing.assert_array_equal(mask[0], wanted_mask)
  np.testing.assert_allclose(new[0], wanted, atol=2e-4)
  whole = inputs // m * m
  assert (mask[0, :, :whole].reshape(12, -1, m).sum(-1) == n).all()


def test_for_its_mask_sparsegpt_is_obs_column_by_column():
  w, x = layer(1, 6, 20, 100, seed=3)
  new, mask = sparsegpt(jnp.asarray(w), moments_of(jnp.asarray(x)), 50)
  wanted = w[0].astype(np.float64)
  for q in range(20):
    inverse = np.linalg.inv(damped(x[0])[q:, q:])
    removed = np.where(mask[0, :, q], 0, wanted[:, q])
    wanted[:, q:] -= np.outer(removed / inverse[0, 0], inverse[0])
  np.testing.assert_allclose(new[0], np.where(mask[0], wanted, 0), atol=2e-4)


def test_groups_share_a_count_but_no_moments():
  w, x = layer(3, 4, 9, 60, seed=4)
  moments = moments_of(jnp.asarray(x))
  _, mask = sparsegpt(jnp.asarray(w), moments, 40)
  assert mask.sum() == 40
  for g in range(3):
    alone = Moments(moments.total[g : g + 1], moments.rows)
    count = int(mask[g].sum())
    np.testing.assert_array_equal(sparsegpt(jnp.asarray(w[g : g + 1]), alone, count)[1][0], mask[g])
  assert len({int(part.sum()) for part in mask}) > 1  # so that the ranking is over all groups


def test_a_dead_input_loses_its_weights_and_changes_no_others():
  w, x = layer(1, 5, 8, 50, seed=5)
  x[..., 3] = 0
  new, _ = sparsegpt(jnp.asarray(w), moments_of(jnp.asarray(x)), 40)
  np.testing.assert_array_equal(new[0, :, 3], 0)
  np.testing.assert_allclose(np.delete(new[0], 3, 1), np.delete(w[0], 3, 1), rtol=1e-6)


@pytest.mark.parametrize('rule', [sparsegpt, wanda])
@pytest.mark.parametrize('keep', [0, 30])
def test_all_or_nothing(rule, keep):
  w, x = layer(1, 5, 6, 50)
  new, mask = rule(jnp.asarray(w), moments_of(jnp.asarray(x)), keep)
  np.testing.assert_array_equal(new, w * (keep > 0))
  np.testing.assert_array_equal(mask, np.full(w.shape, keep > 0))


def test_a_kernel_keeps_its_dtype():
  w, x = layer(1, 5, 6, 50)
  for rule in (sparsegpt, wanda):
    assert rule(jnp.asarray(w, jnp.bfloat16), moments_of(jnp.asarray(x)), 10)[0].dtype == 'bfloat16'


@pytest.mark.parametrize('diagonal', [False, True])
@pytest.mark.parametrize('keep', [21, 24, (2, 4), (1, 2)])
def test_wanda_is_exact_on_integers(keep, diagonal):
  rng = np.random.default_rng(6)
  w, x = rng.integers(-9, 10, (1, 6, 12)), rng.integers(-4, 5, (1, 20, 12))
  moments = moments_of(jnp.asarray(x), diagonal=diagonal)
  new, mask = wanda(jnp.asarray(w, jnp.float32), moments, keep)
  scores = w[0] ** 2 * (x[0] ** 2).sum(0)
  for row, found in enumerate(mask[0]):
    if isinstance(keep, int):
      wanted = chosen(scores[row], keep // 6 + (row < keep % 6))
    else:
      parts = np.split(scores[row], 12 // keep[1])
      wanted = np.concatenate([chosen(part, keep[0]) for part in parts])
    np.testing.assert_array_equal(found, wanted)
  np.testing.assert_array_equal(new, np.where(mask, w, 0))


def test_a_factor_on_a_row_leaves_wandas_mask():
  w, x = layer(2, 6, 12, 40, seed=7)
  moments = moments_of(jnp.asarray(x))
  factors = np.float32(2.0) ** np.arange(-3, 3)[:, None]
  for keep in (50, (2, 4)):
    mask = wanda(jnp.asarray(w), moments, keep)[1]
    np.testing.assert_array_equal(wanda(jnp.asarray(w * factors), moments, keep)[1], mask)


def test_u_is_the_factor_of_the_inverse():
  _, x = layer(2, 1, 10, 60, seed=8)
  matrix, _ = hessian(moments_of(jnp.asarray(x)), 0.01)
  u = np.asarray(inverse_factor(matrix), np.float64)
  for g in range(2):
    np.testing.assert_array_equal(np.tril(u[g], -1), 0)
    np.testing.assert_allclose(u[g].T @ u[g], np.linalg.inv(damped(x[g])), rtol=1e-3, atol=1e-3)
