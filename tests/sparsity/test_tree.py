"""Parameters by path: kernels and choices of leaves, in the trees of several libraries."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from flax import nnx

from sparsejax import prune_to, sparsity_report
from sparsejax.sparsity.leaves import kinds, tree

NETWORK = {
  'conv1': {'kernel': jnp.ones((3, 3, 1, 2)), 'bias': jnp.zeros(2)},
  'bn1': {'scale': jnp.ones(2), 'bias': jnp.zeros(2)},
  'head': {'kernel': jnp.ones((2, 3)), 'bias': jnp.zeros(3)},
}


class Linear(NamedTuple):
  weight: jax.Array
  bias: jax.Array | None


def chosen_paths(params, *args, **kwargs):
  chosen = tree.choose(params, *args, **kwargs)
  assert jax.tree.structure(chosen) == jax.tree.structure(params)
  return [path for path, c in tree.named_leaves(chosen).items() if c]


def test_paths_follow_the_order_of_the_leaves():
  assert tree.paths({'b': [1, 2], 'a': {'c': 3}}) == ['a/c', 'b/0', 'b/1']
  assert tree.named_leaves({'b': [1, 2], 'a': {'c': 3}}) == {'a/c': 3, 'b/0': 1, 'b/1': 2}


def test_paths_of_a_module_made_of_attributes():
  assert tree.paths([Linear(jnp.ones((2, 2)), None)]) == ['0/weight']


class Attention(eqx.Module):
  """A module with arrays, one of which has the name of the array in an NNX variable."""

  query: jax.Array | None
  key: jax.Array | None
  value: jax.Array | None


def test_an_array_named_value_beside_others_keeps_its_name():
  params = {'attn': Attention(*jnp.ones((3, 2, 4)))}
  paths = ['attn/query', 'attn/key', 'attn/value']
  assert tree.paths(params) == paths
  assert chosen_paths(params) == paths
  picked = tree.pick(params, tree.choose(params, ('value',)))
  assert tree.paths(picked) == ['attn/value']
  hidden = {'attn': Attention(optax.MaskedNode(), optax.MaskedNode(), jnp.ones(2))}
  assert tree.paths(hidden) == ['attn/value']
  pruned = prune_to(params, sparsity=0.25, exclude=('query', 'key$'))
  assert sparsity_report(pruned)['active_weights'] == 18
  assert int(jnp.sum(pruned['attn'].value != 0)) == 2


def test_the_array_in_a_variable_or_a_box_has_the_path_of_its_holder():
  params = {'fc': {'kernel': nn.Partitioned(jnp.ones((2, 3)), (None, None)), 'bias': jnp.ones(3)}}
  assert tree.paths(params) == ['fc/bias', 'fc/kernel']
  linear = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
  assert tree.paths({'fc': linear}) == ['fc/bias', 'fc/kernel']


def test_two_leaves_with_one_path_are_refused_by_name():
  with pytest.raises(ValueError, match=r"^two parameters have the path 'a/b', and each must have"):
    tree.paths({'a': {'b': 1}, 'a/b': 2})
  with pytest.raises(ValueError, match="two parameters have the path 'a/b'"):
    sparsity_report({'a': {'b': jnp.ones((2, 2))}, 'a/b': jnp.ones((2, 2))})


@pytest.mark.parametrize(
  ('path', 'shape', 'kernel'),
  [
    ('head/kernel', (2, 3), True),  # Flax
    ('linear/~/w', (2, 3), True),  # Haiku
    ('layers/0/weight', (3, 2), True),  # Equinox
    ('layers/0/bias', (4, 1, 1), False),  # Equinox's convolution
    ('bn/scale', (1, 1, 1, 4), False),
    ('bn/offset', (1, 4), False),
    ('head/bias', (3,), False),
    ('layers/0/weight', (3,), False),  # a normalisation whose scale is named weight
    ('temperature', (), False),
  ],
)
def test_leaves_that_count_as_kernels(path, shape, kernel):
  assert kinds.is_kernel(path, jnp.zeros(shape)) is kernel


def test_only_floating_leaves_are_parameters():
  assert kinds.is_parameter('w', jnp.zeros(2, jnp.bfloat16))
  assert not kinds.is_parameter('steps', jnp.zeros(2, jnp.int32))
  assert not kinds.is_parameter('mask', jnp.zeros(2, bool))
  assert chosen_paths({'w': jnp.ones((2, 2)), 'table': jnp.ones((2, 2), jnp.int32)}) == ['w']


def test_choosing_kernels_all_or_by_a_function():
  assert chosen_paths(NETWORK) == ['conv1/kernel', 'head/kernel']
  assert chosen_paths(NETWORK, 'all') == tree.paths(NETWORK)
  assert chosen_paths(NETWORK, lambda path, leaf: leaf.size == 3) == ['head/bias']


def test_excluding_by_regular_expressions():
  assert chosen_paths(NETWORK, 'kernels', ('head',)) == ['conv1/kernel']
  assert chosen_paths(NETWORK, 'all', ('^conv1/', 'bn', 'kernel$')) == ['head/bias']


def test_a_single_expression_is_not_split_into_letters():
  assert chosen_paths(NETWORK, 'kernels', 'head') == ['conv1/kernel']


def test_the_choice_is_the_same_under_jit():
  @jax.jit
  def check(params):
    assert chosen_paths(params, 'kernels', ('head',)) == ['conv1/kernel']
    return params

  check(NETWORK)


def test_an_expression_without_a_match_lists_the_parameters():
  with pytest.raises(ValueError, match=r"exclude='clasifier'.*conv1/bias"):
    tree.choose(NETWORK, 'kernels', ('clasifier',))
  with pytest.raises(ValueError, match='leaves nothing to choose'):
    tree.choose(NETWORK, 'kernels', ('kernel',))
  with pytest.raises(ValueError, match="'kernel': did you mean 'kernels'"):
    tree.choose(NETWORK, 'kernel')


def test_a_tree_without_leaves_chooses_nothing():
  assert tree.choose({'a': None}, 'kernels', ('head',)) == {'a': None}


def test_pick_and_merge_are_inverses():
  params = {'w': jnp.ones(2), 'b': jnp.zeros(2), 'none': None}
  chosen = tree.choose(params, lambda path, leaf: path == 'w')
  picked = tree.pick(params, chosen)
  assert tree.paths(picked) == ['w']
  back = tree.merge(picked, params)
  assert back['w'] is params['w']
  assert back['b'] is params['b']
  assert back['none'] is None


def test_merge_replaces_the_picked_leaves():
  new = tree.merge({'a': [None, 20], 'b': None}, {'a': [1, 2], 'b': 3})
  assert new == {'a': [1, 20], 'b': 3}
