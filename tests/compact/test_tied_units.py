"""Units of several leaves, pruned by `prune` and shrunk by the group lasso, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import compact, one_shot, proximal_group_l1, prune, prune_to
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.parts.granularity import in_multiples, tied

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def network(params, x):
  """A residual stream, a depthwise filter, a normalisation and a classifier."""
  stream = x @ params['a']['kernel'] + params['a']['bias'][None]
  stream = stream + jax.nn.relu(stream @ params['b']['kernel']) @ params['c']['kernel']
  stream = stream * params['depthwise'][None] * params['norm']['scale'][None]
  return jax.nn.relu(stream + params['norm']['bias'][None]) @ params['out']['kernel']


def parameters():
  rng = np.random.default_rng(0)
  shapes = {
    'a': {'kernel': (3, 4), 'bias': (4,)},
    'b': {'kernel': (4, 6)},
    'c': {'kernel': (6, 4)},
    'depthwise': (4,),
    'norm': {'scale': (4,), 'bias': (4,)},
    'out': {'kernel': (4, 2)},
  }
  return jax.tree.map(
    lambda shape: rng.uniform(0.5, 1, shape).astype(np.float32),
    shapes,
    is_leaf=lambda node: isinstance(node, tuple),
  )


X = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
STREAM = ('a/bias', 'a/kernel', 'c/kernel', 'depthwise', 'norm/bias', 'norm/scale')


def ties():
  return compact.plan(network, parameters(), X).ties


def entries(params, unit):
  """What makes a unit of the stream."""
  leaves = tree.named_leaves(params)
  return np.concatenate([np.ravel(np.asarray(leaves[path])[..., unit]) for path in STREAM])


def test_a_unit_goes_by_the_mean_of_its_squares_with_all_that_makes_it():
  params = parameters()
  for path, leaf in tree.named_leaves(params).items():
    if path in STREAM:
      leaf[..., 2] *= 0.9
  params['a']['kernel'][:, 2] *= 1.05  # less than others in all leaves together, not in this one
  params['a']['kernel'][:, 1] *= 0.8
  means = [np.mean(entries(params, unit) ** 2) for unit in range(4)]
  assert np.argmin(means) == 2
  pruned = prune_to(params, sparsity={'^a/': 0.25}, granularity=tied(ties()))
  for unit in range(4):
    assert (entries(pruned, unit) == 0).all() == (unit == 2)
    assert (entries(pruned, unit) != 0).all() == (unit != 2)
  np.testing.assert_array_equal(pruned['b']['kernel'], params['b']['kernel'])
  np.testing.assert_array_equal(pruned['out']['kernel'], params['out']['kernel'])


def test_what_is_pruned_is_what_shrink_takes_out():
  """Nothing is left of a unit that could be a constant."""
  params = prune_to(parameters(), sparsity={'^[ab]/': 0.5}, granularity=tied(ties()))
  small = compact.shrink(network, params, X)
  shapes = jax.tree.map(jnp.shape, small.params)
  assert shapes['a'] == {'kernel': (3, 2), 'bias': (2,)}
  assert shapes['b']['kernel'] == (2, 3)
  assert shapes['out']['kernel'] == (2, 2)
  assert small.plan.trains_on


def test_prune_holds_tied_units_and_keeps_a_multiple_of_a_number():
  pairs = in_multiples(2, tied(ties()))
  tx = optax.chain(optax.sgd(0.1), prune(one_shot(0, 0.3), granularity=pairs))
  params = parameters()
  state = tx.init(params)
  for _ in range(2):
    updates, state = jax.jit(tx.update)(jax.tree.map(jnp.ones_like, params), state, params)
    params = optax.apply_updates(params, updates)
  masks = optax.tree.get(state, 'masks')
  assert masks['out']['kernel'].shape == ()
  there = [bool((entries(params, unit) != 0).all()) for unit in range(4)]
  assert sum(there) == 2
  np.testing.assert_array_equal(masks['norm']['scale'], there)
  np.testing.assert_array_equal(masks['a']['kernel'], np.broadcast_to(there, (3, 4)))


def two_sums(params, x):
  a, b, c = (params[name]['kernel'] for name in 'abc')
  return (x @ a + x @ b) @ c


def kernels(a, b):
  arrays = {'a': jnp.array([a]), 'b': jnp.array([b]), 'c': jnp.ones((2, 2))}
  return {name: {'kernel': array} for name, array in arrays.items()}


def test_the_group_lasso_has_one_norm_for_a_unit():
  """The lengths are 5 and 0.5: the first is shortened to 5 - 0.4 sqrt(2), the second to 0."""
  params = kernels([3.0, 0.3], [4.0, 0.4])
  found = tied(compact.plan(two_sums, params, jnp.ones((1, 1))).ties)
  tx = proximal_group_l1(4.0, 0.1, granularity=found)
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  shrunk = optax.apply_updates(params, updates)
  left = (5 - 0.4 * np.sqrt(2)) / 5
  np.testing.assert_allclose(shrunk['a']['kernel'], [[3 * left, 0]], rtol=1e-6)
  np.testing.assert_allclose(shrunk['b']['kernel'], [[4 * left, 0]], rtol=1e-6)
  np.testing.assert_array_equal(shrunk['c']['kernel'], params['c']['kernel'])


def test_the_group_lasso_in_a_metric():
  """Where the metric is 2 all over, as without one at half the threshold."""
  params = kernels([3.0, 0.1], [4.0, 0.1])
  found = tied(compact.plan(two_sums, params, jnp.ones((1, 1))).ties)
  tx = proximal_group_l1(
    4.0,
    0.1,
    granularity=found,
    group_weight='one',
    inner=optax.scale(1.0),
    metric=lambda state: jax.tree.map(lambda p: jnp.full_like(p, 2.0), params),
  )
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  shrunk = optax.apply_updates(params, updates)
  np.testing.assert_allclose(shrunk['a']['kernel'], [[3 * 4.8 / 5, 0]], rtol=1e-5)
  np.testing.assert_allclose(shrunk['b']['kernel'], [[4 * 4.8 / 5, 0]], rtol=1e-5)


@pytest.mark.parametrize(
  ('given', 'options', 'message'),
  [
    ((), {}, 'must have at least one tie'),
    ([3], {}, 'granularity tied: 3 must be a tie'),
    (None, {'exclude': '^c'}, "'c/kernel' is not chosen, but is tied to 'a/kernel'"),
    (
      [compact.Tie({'a/kernl': {1: (0,)}}, False)],
      {},
      "must be the path of a parameter.*mean 'a/kernel'",
    ),
    (
      [compact.Tie({'a/kernel': {0: (0,), 1: (1,)}}, False)],
      {'layouts': {'a/kernel': 'out out'}},
      'along the axes 0 and 1, and must have them along one',
    ),
  ],
)
def test_what_can_not_go_together_is_refused(given, options, message):
  with pytest.raises(ValueError, match=message) as error:
    prune_to(
      parameters(),
      sparsity=0.5,
      granularity=tied(ties() if given is None else given),
      **options,
    )
  assert '\n' not in str(error.value)
