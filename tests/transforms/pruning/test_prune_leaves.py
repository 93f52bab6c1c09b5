"""Which leaves prune takes, of which dtypes, and which input it refuses."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import kernels, masks_of, network, sgd, train, zeros

import sparsejax
from sparsejax import one_shot, prune

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@pytest.mark.parametrize('params_dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('updates_dtype', [jnp.float32, jnp.bfloat16])
def test_zeros_are_exact_in_any_mixture_of_dtypes(params_dtype, updates_dtype):
  """In float32 parameters, -p rounded to a bfloat16 update would leave p's last bits behind."""
  params = jax.tree.map(lambda p: p.astype(params_dtype), network())
  updates = jax.tree.map(lambda p: jnp.ones_like(p, updates_dtype), params)
  tx = prune(one_shot(0, 0.25))
  moved, state = tx.update(updates, tx.init(params), params)
  after = optax.apply_updates(params, moved)
  chex.assert_trees_all_equal_dtypes(after, params)
  assert zeros(after) == 54
  for leaf, old, mask in zip(*map(kernels, (after, params, state.masks)), strict=True):
    np.testing.assert_array_equal(leaf, jnp.where(mask, old + 1, 0))
  wider = jnp.promote_types(params_dtype, updates_dtype)
  assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype(wider)}


def test_what_is_not_chosen_is_left_alone():
  tx = optax.chain(sgd(), prune(one_shot(0, 0.25), exclude='head'))
  bare = train(sgd(), network(), 2)[-1][0]
  params, state = train(tx, network(), 2)[-1]
  assert int(jnp.sum(params['conv']['kernel'] != 0)) == 6
  masks = masks_of(state)
  assert [leaf.shape for leaf in jax.tree.leaves(masks)] == [(), (2, 2, 2, 3), (), (), (), ()]
  chex.assert_trees_all_equal(params['head'], bare['head'])


def test_leaves_that_are_none_or_whole_numbers_stay_as_they_are():
  params = {'w': jnp.array([[3.0, 1.0, 2.0]]), 'none': None, 'table': jnp.arange(3)}
  updates = {'w': jnp.zeros((1, 3)), 'none': None, 'table': jnp.zeros(3, jnp.int32)}
  tx = prune(one_shot(0, 1 / 3), parameters='all')
  moved, state = tx.update(updates, tx.init(params), params)
  assert state.masks['none'] is None  # the tree has no leaf there, so the masks have none
  after = optax.apply_updates(params, moved)
  assert after['w'].tolist() == [[3.0, 0.0, 0.0]]
  assert after['table'].tolist() == [0, 1, 2]


def test_a_scalar_can_be_pruned():
  params = {'a': jnp.float32(2.0), 'b': jnp.float32(-3.0)}
  tx = prune(one_shot(0, 0.5), parameters='all', floor=0)
  moved, state = tx.update(params, tx.init(params), params)
  assert optax.apply_updates(params, moved) == {'a': 0.0, 'b': -6.0}
  assert not state.masks['a']


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: prune(sparsejax.PruningSchedule((3, 1), (0.5, 0.1))), 'must increase'),
    (lambda p: prune(one_shot(0, 0.5), floor=-1), 'floor=-1'),
    (lambda p: prune(one_shot(9, 5.0)).init(p), 'density=5.0 must be an active fraction'),
    (lambda p: prune(one_shot(0, 0.5), parameters='kernel').init(p), "did you mean 'kernels'"),
    (lambda p: prune(one_shot(0, 0.5), exclude=('fc9',)).init(p), "'fc9' matches no parameter"),
  ],
)
def test_bad_input_is_refused_before_the_first_update(make, message):
  with pytest.raises(ValueError, match=message):
    make(network())


def test_updates_of_another_dtype_under_strict_promotion():
  """Where an optimizer keeps its updates wider than the parameters."""
  params = {'kernel': jnp.array([[4.0, 1.0]], jnp.bfloat16)}
  updates = {'kernel': jnp.zeros((1, 2), jnp.float32)}
  with jax.numpy_dtype_promotion('strict'):
    chain = prune(one_shot(0, 0.5))
    found, _ = jax.jit(chain.update)(updates, chain.init(params), params)
  assert found['kernel'].dtype == jnp.float32
  assert found['kernel'].tolist() == [[0.0, -1.0]]
