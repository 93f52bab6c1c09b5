"""hold: what is zero when training starts stays zero, and the rest is trained as before."""

import functools

import chex
import contract
import jax
import jax.numpy as jnp
import optax
import pytest
import toy
import trials
from transformations import half_of_a_layer

from sparsejax import hold, prune_to

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


FORMS = {
  'alone': functools.partial(hold),
  'momentum': functools.partial(hold, inner=optax.sgd(0.05, momentum=0.9)),
}


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('point', contract.POINTS, ids=lambda point: point.__name__)
def test_the_contract_on_a_layer_with_zeros(point, form, monkeypatch):
  for module in (trials, contract):
    monkeypatch.setattr(module, 'layer', half_of_a_layer)
  point(FORMS[form])


@pytest.mark.parametrize('around', [False, True])
def test_zeros_stay_and_the_rest_moves_as_it_would_alone(around):
  pruned = prune_to(toy.network(), sparsity=0.75)
  optimizer = toy.sgd(weight_decay=0.1)
  tx = hold(inner=optimizer) if around else optax.chain(optimizer, hold())
  history = toy.train(tx, pruned, 4)
  start, (params, state) = history[0][0], history[-1]
  for mask, before, after in zip(
    *(toy.kernels(tree) for tree in (toy.masks_of(state), start, params)), strict=True
  ):
    chex.assert_trees_all_equal(mask, before != 0)
    chex.assert_trees_all_equal(after != 0, mask)
  # The first step is plain SGD's; the shift of BatchNorm, all zeros at first, is no kernel's.
  alone = toy.train(optimizer, pruned, 1)[1][0]
  masks = toy.masks_of(state)
  expected = jax.tree.map(lambda m, p: jnp.where(m, p, 0), masks, alone)
  chex.assert_trees_all_close(history[1][0], expected, rtol=1e-6)
  assert bool(jnp.all(params['norm'].bias != 0))


def test_weights_that_reach_zero_later_may_leave_it():
  tx = optax.chain(optax.scale(1.0), hold())
  params = {'w': jnp.array([[1.0, 0.0]])}
  state = tx.init(params)
  seen = []
  for move in (-1.0, 2.0):
    updates, state = tx.update({'w': jnp.full((1, 2), move)}, state, params)
    params = optax.apply_updates(params, updates)
    seen.append(params['w'].tolist())
  assert seen == [[[0.0, 0.0]], [[2.0, 0.0]]]


def test_what_was_moved_away_from_zero_is_brought_back():
  tx = hold()
  state = tx.init({'w': jnp.array([[1.0, 0.0]])})
  params = {'w': jnp.array([[1.0, 7.0]])}
  updates, _ = tx.update({'w': jnp.ones((1, 2))}, state, params)
  assert optax.apply_updates(params, updates)['w'].tolist() == [[2.0, 0.0]]


def test_which_zeros_are_held_is_chosen_as_of_prune():
  params = {'a': {'kernel': jnp.zeros((2, 2)), 'bias': jnp.zeros(2)}, 'b': {'w': jnp.zeros((2, 2))}}

  def held(**choice):
    masks = hold(**choice).init(params).masks
    return [path for path, mask in zip(PATHS, jax.tree.leaves(masks), strict=True) if mask.ndim]

  assert held() == ['a/kernel', 'b/w']
  assert held(exclude='^b/') == ['a/kernel']
  assert held(parameters='all') == PATHS
  assert held(parameters=('kernels', 'bias$')) == PATHS
  assert held(parameters=lambda path, leaf: path == 'a/bias') == ['a/bias']
  with pytest.raises(ValueError, match="exclude='head' matches no parameter; there are: a/bias"):
    held(exclude='head')


PATHS = ['a/bias', 'a/kernel', 'b/w']


def test_a_line_search_is_refused():
  with pytest.raises(ValueError, match=r'^inner has .*LBFGS'):
    hold(inner=optax.lbfgs()).init({'w': jnp.ones((2, 2))})
