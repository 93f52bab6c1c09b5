"""L-OBS on the device, against NumPy in float64 and the errors that it is to minimise."""

import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax
from sparsejax.second_order.lobs import lobs
from sparsejax.second_order.moments import Moments, moments_of
from sparsejax.second_order.sparsegpt import sparsegpt


def layer(groups, outputs, inputs, rows, seed=0):
  rng = np.random.default_rng(seed)
  mixing = rng.normal(size=(groups, inputs, inputs))
  x = rng.normal(size=(groups, rows, inputs)) @ mixing / inputs**0.5
  return rng.normal(size=(groups, outputs, inputs)).astype(np.float32), x.astype(np.float32)


def error(w, new, x):
  """The mean square of what the layer's outputs have changed by, with the rule's own damping."""
  w, new, x = (np.asarray(a, np.float64) for a in (w, new, x))
  change = ((new - w) @ x.mT) ** 2
  damping = 0.01 * (x**2).mean((1, 2))
  return change.sum() / x.shape[1] + (damping[:, None, None] * (new - w) ** 2).sum()


@pytest.mark.parametrize('keep', [20, 50, 96])
def test_in_one_round_it_is_the_method_of_numpy(keep):
  w, x = layer(2, 6, 8, 60)
  new, mask = lobs(jnp.asarray(w), moments_of(jnp.asarray(x)), keep, rounds=1)
  found = [x[g : g + 1].astype(np.float64) for g in range(2)]
  # Damping is a share of each group's own mean there, and one number here.
  second = [sparsejax.lobs.second_moments([(rows, rows)]) for rows in found]
  damped = [m.inputs + 0.01 * np.mean(np.diagonal(m.inputs[0])) * np.eye(8) for m in second]
  joined = sparsejax.lobs.Moments(np.concatenate(damped), np.concatenate(damped))
  wanted = sparsejax.lobs.remove(w.mT, joined, keep, bias=False, damping=0.0, rounds=1).mT
  np.testing.assert_array_equal(mask, wanted != 0)
  np.testing.assert_allclose(new, wanted, atol=1e-3)


def by_definition(w, x, sizes):
  """Returns w after rounds that each rank the costs anew, for a layer of one group."""
  h = x.T @ x / len(x)
  h += 0.01 * np.mean(np.diag(h)) * np.eye(len(h))
  new, keep, inverse = (
    w.copy(),
    np.ones(w.shape, bool),
    np.tile(np.diag(np.linalg.inv(h)), (len(w), 1)),
  )
  for size in sizes:
    costs = np.where(keep, new**2 / (2 * inverse), -1)
    keep = np.zeros(w.size, bool)
    keep[np.argsort(-costs.ravel(), kind='stable')[:size]] = True
    keep = keep.reshape(w.shape)
    for row, kept in enumerate(keep):
      own = np.linalg.inv(h[np.ix_(kept, kept)])
      new[row], inverse[row] = 0, 1
      new[row, kept], inverse[row, kept] = own @ (h @ w[row])[kept], np.diag(own)
  return new, keep


def test_in_rounds_it_is_its_definition():
  w, x = layer(1, 10, 12, 100, seed=1)
  new, mask = lobs(jnp.asarray(w), moments_of(jnp.asarray(x)), 15, rounds=3)
  wanted, keep = by_definition(w[0].astype(np.float64), x[0].astype(np.float64), [60, 30, 15])
  np.testing.assert_array_equal(mask[0], keep)
  np.testing.assert_allclose(new[0], wanted, atol=1e-3)


@pytest.mark.parametrize('keep', [40, (2, 4)])
def test_it_loses_less_than_sparsegpt(keep):
  w, x = layer(1, 10, 12, 100, seed=2)
  moments = moments_of(jnp.asarray(x))
  ours, theirs = (rule(jnp.asarray(w), moments, keep)[0] for rule in (lobs, sparsegpt))
  assert error(w, ours, x) < error(w, theirs, x)


@pytest.mark.parametrize(('n', 'm'), [(2, 4), (1, 3)])
def test_n_of_each_m_inputs_stay(n, m):
  w, x = layer(2, 5, 14, 100, seed=3)
  new, mask = lobs(jnp.asarray(w), moments_of(jnp.asarray(x)), (n, m))
  whole = 14 // m * m
  assert (np.asarray(mask)[..., :whole].reshape(2, 5, -1, m).sum(-1) == n).all()
  assert (np.asarray(mask)[..., whole:].sum(-1) == min(n, 14 - whole)).all()
  np.testing.assert_array_equal(np.asarray(new) != 0, mask)


def test_a_dead_input_goes():
  w, x = layer(1, 5, 8, 50, seed=4)
  x[..., 3] = 0
  new, mask = lobs(jnp.asarray(w), moments_of(jnp.asarray(x)), 30)
  assert not np.asarray(mask)[..., 3].any()
  assert np.isfinite(new).all()


def test_all_or_nothing():
  w, x = layer(1, 5, 6, 50)
  moments = moments_of(jnp.asarray(x))
  np.testing.assert_allclose(lobs(jnp.asarray(w), moments, 30)[0], w, atol=1e-4)
  np.testing.assert_array_equal(lobs(jnp.asarray(w), moments, 0)[0], 0)


def test_what_is_out_of_range_is_refused():
  kernel, moments = jnp.ones((1, 2, 3)), Moments(jnp.ones((1, 3)), jnp.ones(()))
  with pytest.raises(ValueError, match='rounds=0 must be 1 or more'):
    lobs(kernel, moments, 3, rounds=0)
  with pytest.raises(ValueError, match='needs more than their diagonal'):
    lobs(kernel, moments, 3)
