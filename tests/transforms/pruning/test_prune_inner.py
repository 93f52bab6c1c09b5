"""prune around inner links: they see what the masks leave, and their slots are zeroed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import kernels, masks_of, network, train

import sparsejax
from sparsejax import one_shot, prune
from sparsejax.sparsity.parts.update_rules import UpdateRule

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def test_momentum_starts_at_zero_where_the_mask_is():
  """After two updates by 1 the slot is 1.9; the third makes 1 + 0.9 * 1.9 = 2.71, or nothing."""
  tx = prune(one_shot(2, 2 / 3), inner=optax.trace(0.9))
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  state = tx.init(params)
  for _ in range(3):
    before = optax.tree.get(state, 'trace')['w'].tolist()
    moved, state = tx.update({'w': jnp.ones((1, 3))}, state, params)
  np.testing.assert_allclose(before, [[1.9, 1.9, 1.9]], rtol=1e-6)
  np.testing.assert_allclose(optax.tree.get(state, 'trace')['w'], [[2.71, 0.0, 2.71]], rtol=1e-6)
  np.testing.assert_allclose(moved['w'], [[2.71, -1.0, 2.71]], rtol=1e-6)


def test_as_the_last_link_the_momentum_ahead_is_not_touched():
  tx = optax.chain(optax.trace(0.9), prune(one_shot(1, 2 / 3)))
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  state = tx.init(params)
  for _ in range(2):
    moved, state = tx.update({'w': jnp.ones((1, 3))}, state, params)
  np.testing.assert_allclose(optax.tree.get(state, 'trace')['w'], [[1.9, 1.9, 1.9]], rtol=1e-6)
  np.testing.assert_allclose(moved['w'], [[1.9, -1.0, 1.9]], rtol=1e-6)


def test_clipping_inside_sees_the_masked_gradient_only():
  """(3, 4, 12) has the norm 13, without what the mask removes 5: clipped to 1 it is (.6, .8)."""
  params = {'w': jnp.array([[3.0, 2.0, 1.0]])}
  grad = {'w': jnp.array([[3.0, 4.0, 12.0]])}
  inside = prune(one_shot(0, 2 / 3), inner=optax.clip_by_global_norm(1.0))
  ahead = optax.chain(optax.clip_by_global_norm(1.0), prune(one_shot(0, 2 / 3)))
  moved, _ = inside.update(grad, inside.init(params), params)
  np.testing.assert_allclose(moved['w'], [[0.6, 0.8, -1.0]], rtol=1e-6)
  moved, _ = ahead.update(grad, ahead.init(params), params)
  np.testing.assert_allclose(moved['w'], [[3 / 13, 4 / 13, -1.0]], rtol=1e-6)


def test_inner_links_see_masked_parameters():
  """Weight decay inside gives a removed weight no momentum, not even at the step of the cut."""
  inner = optax.chain(optax.add_decayed_weights(0.5), optax.trace(0.9))
  tx = prune(one_shot(0, 2 / 3), inner=inner)
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  _, state = tx.update({'w': jnp.zeros((1, 3))}, tx.init(params), params)
  assert optax.tree.get(state, 'trace')['w'].tolist() == [[1.5, 0.0, 1.0]]


def test_lamb_inside_scales_by_the_norm_of_what_is_left():
  """Updates of one size in every weight: the trust ratio makes their norm that of (3, 4)."""
  tx = prune(one_shot(0, 2 / 3), inner=optax.scale_by_trust_ratio())
  params = {'w': jnp.array([[3.0, 1.0, -4.0]])}
  moved, _ = tx.update({'w': jnp.ones((1, 3))}, tx.init(params), params)
  np.testing.assert_allclose(moved['w'], [[5 / 2**0.5, -1.0, 5 / 2**0.5]], rtol=1e-6)


def test_the_slots_of_adam_are_zeroed_and_its_count_is_not():
  tx = prune(one_shot(2, 0.25), inner=optax.adam(0.1))
  *_, (_, before), (_, after) = train(tx, network(), 3)
  for name in ('mu', 'nu'):
    slots, masks = kernels(optax.tree.get(after, name)), kernels(masks_of(after))
    assert all(bool(jnp.all(slot != 0)) for slot in kernels(optax.tree.get(before, name)))
    for slot, mask in zip(slots, masks, strict=True):
      np.testing.assert_array_equal(slot != 0, mask)
    assert bool(jnp.all(optax.tree.get(after, name)['head']['bias'] != 0))
  counts = [leaf for leaf in jax.tree.leaves(after.inner_state) if leaf.dtype == jnp.int32]
  assert [int(c) for c in counts] == [3]


def test_a_weight_that_comes_back_starts_at_zero_without_momentum_and_the_step_is_skipped():
  """A rule that exchanges everything for the first weight that is zero."""
  rule = UpdateRule(
    grow=lambda param, *, key: param == 0, drop_fraction=lambda step: jnp.float32(1)
  )
  tx = prune(
    sparsejax.PruningSchedule((0, 2), (1 / 3, 1 / 3)), inner=optax.trace(0.9), update_rule=rule
  )
  params = {'w': jnp.array([[3.0, 1.0, 2.0]])}
  state, seen = tx.init(params), []
  for _ in range(4):
    moved, state = tx.update({'w': jnp.ones((1, 3))}, state, params)
    params = optax.apply_updates(params, moved)
    seen.append((params['w'].tolist()[0], optax.tree.get(state, 'trace')['w'].tolist()[0]))
  assert seen[0] == ([3.0, 0.0, 0.0], [1.0, 0.0, 0.0])
  assert seen[1] == (pytest.approx([4.9, 0.0, 0.0]), pytest.approx([1.9, 0.0, 0.0]))
  assert seen[2] == ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
  assert seen[3] == ([0.0, 1.0, 0.0], [0.0, 1.0, 0.0])
