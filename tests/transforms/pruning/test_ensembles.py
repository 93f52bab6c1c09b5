"""Ensembles under vmap: a seed and a mask for each member, ranked where they are due alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax import allocation, criteria, update_rules

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

MEMBERS = 3


def member(seed):
  return {'w': jax.random.normal(jax.random.key(seed), (6, 8))}


def trained(chain, params, seed, steps=4):
  state = optax.tree.set(chain.init(params), seed=seed)
  for i in range(steps):
    grad = jax.tree.map(lambda p, i=i: jnp.cos(p + i), params)
    changes, state = chain.update(grad, state, params, grad=grad)
    params = optax.apply_updates(params, changes)
  return params


METHODS = {
  'magnitude': {},
  'random': {'criterion': criteria.random},
  'uniform': {'allocation': allocation.uniform()},
  'set': {'update_rule': update_rules.set_(0.3), 'inner': optax.adam(1e-2)},
}


@pytest.mark.parametrize('name', METHODS)
def test_members_are_what_they_are_alone(name):
  schedule = sparsejax.cubic(0, 3, 0.4, every=1)
  chain = optax.chain(optax.sgd(0.01), sparsejax.prune(schedule, **METHODS[name]))
  alone = [trained(chain, member(i), jnp.uint32(i)) for i in range(MEMBERS)]
  params = jax.vmap(member)(jnp.arange(MEMBERS))
  together = jax.jit(jax.vmap(lambda p, s: trained(chain, p, s)))(
    params, jnp.arange(MEMBERS, dtype=jnp.uint32)
  )
  for i, one in enumerate(alone):
    np.testing.assert_array_equal(together['w'][i] != 0, one['w'] != 0)
    np.testing.assert_allclose(together['w'][i], one['w'], rtol=1e-5)


def test_random_masks_differ_by_the_seed_in_the_state():
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.5), criterion=criteria.random)
  params = {'w': jnp.ones((MEMBERS, 6, 8))}
  masks = jax.vmap(lambda p, s: trained(chain, p, s, 1))(params, jnp.arange(MEMBERS))['w'] != 0
  assert masks.sum((1, 2)).tolist() == [24] * MEMBERS
  assert bool((masks[0] != masks[1]).any() and (masks[1] != masks[2]).any())


def test_nothing_is_ranked_where_nothing_is_due():
  """Under vmap a branch would be a select, and both of its sides computed."""
  chain = sparsejax.prune(sparsejax.one_shot(9, 0.5))
  params = {'w': jnp.ones((MEMBERS, 6, 8))}
  state = jax.vmap(chain.init)(params)
  update = jax.make_jaxpr(jax.vmap(lambda s, p: chain.update(p, s, p)))(state, params)
  [loop] = [eqn for eqn in update.eqns if eqn.primitive.name == 'while']
  outside = {eqn.primitive.name for eqn in update.eqns}
  assert 'bitcast_convert_type' in str(loop.params['body_jaxpr'])  # the ranking
  assert not outside & {'sort', 'cumsum', 'argmax', 'top_k', 'bitcast_convert_type'}


def test_a_loss_is_differentiated_through_an_update():
  """Of what is kept; masks have no derivative."""
  chain = optax.chain(optax.sgd(0.5), sparsejax.prune(sparsejax.one_shot(0, 0.5)))
  params = {'w': jnp.array([[1.0, -3.0], [2.0, 0.1]])}

  def after(grad):
    changes, _ = chain.update({'w': grad}, chain.init(params), params)
    return optax.apply_updates(params, changes)['w'].sum()

  assert jax.grad(after)(jnp.ones((2, 2))).tolist() == [[0, -0.5], [-0.5, 0]]


def test_everything_runs_without_jit():
  with jax.disable_jit():
    chain = sparsejax.prune(
      sparsejax.cubic(0, 3, 0.4, every=1), update_rule=update_rules.rigl(4), inner=optax.adam(1e-2)
    )
    left = trained(chain, member(0), jnp.uint32(0))
  assert int((left['w'] != 0).sum()) == round(0.4 * 48)
