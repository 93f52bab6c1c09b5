"""prune after, around and inside the transformations of Optax."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import kernels, masks_of, network, sgd, train, zeros
from trials import gradient

from sparsejax import apply_masks, cubic, one_shot, prune
from sparsejax.sparsity.parts import criteria

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def optimizers():
  return {
    'momentum': sgd(weight_decay=0.1),
    'adam': optax.adam(0.05),
    'rmsprop': optax.rmsprop(0.01, momentum=0.9),
    'lion': optax.lion(0.01),
    'adafactor': optax.adafactor(0.05, min_dim_size_to_factor=2),
    'muon': optax.contrib.muon(0.05),
    'multi_steps': optax.MultiSteps(optax.sgd(0.05, momentum=0.9), 2).gradient_transformation(),
    'inject_hyperparams': optax.inject_hyperparams(optax.sgd)(
      learning_rate=optax.linear_schedule(0.1, 0.01, 5), momentum=0.9
    ),
    'masked_decay': optax.chain(
      optax.add_decayed_weights(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
      optax.sgd(0.05),
    ),
  }


@pytest.mark.parametrize('name', optimizers())
def test_behind_every_optimizer_the_zeros_are_exact(name):
  tx = optax.chain(optimizers()[name], prune(one_shot(2, 0.25)))
  history = train(tx, network(), 5)
  assert [zeros(params) for params, _ in history] == [0, 0, 0, 54, 54, 54]
  params, state = history[-1]
  for leaf, mask in zip(kernels(params), kernels(masks_of(state)), strict=True):
    np.testing.assert_array_equal(leaf != 0, mask)
  for leaf in (params['conv']['bias'], params['head']['bias'], *params['norm']):
    assert bool(jnp.all(leaf != 0))
  chex.assert_tree_all_finite(params)


@pytest.mark.parametrize('name', ['adafactor', 'muon', 'multi_steps', 'masked_decay'])
def test_around_optimizers_with_slots_of_every_kind_the_zeros_are_exact(name):
  tx = prune(cubic(1, 3, 0.25, every=1), inner=optimizers()[name])
  history = train(tx, network(), 5)
  assert [zeros(params) for params, _ in history] == [0, 0, 0, 47, 54, 54]
  for (_, before), (_, after) in itertools.pairwise(history):
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
  chex.assert_tree_all_finite(history[-1][0])


def test_around_the_whole_chain_multi_steps_counts_real_updates():
  tx = optax.MultiSteps(optax.chain(sgd(), prune(one_shot(1, 0.25))), every_k_schedule=2)
  history = train(tx, network(), 6)
  assert [zeros(params) for params, _ in history] == [0, 0, 0, 0, 54, 54, 54]


def test_in_a_named_chain():
  tx = optax.named_chain(('sgd', sgd()), ('prune', prune(one_shot(1, 0.25))))
  params, state = train(tx, network(), 3)[-1]
  assert zeros(params) == 54
  chex.assert_trees_all_equal(state['prune'].masks, masks_of(state))


@pytest.mark.parametrize(
  ('criterion', 'inner'),
  [(criteria.magnitude, None), (criteria.saliency, optax.trace(0.5))],
)
def test_under_masked_a_leaf_is_left_out(criterion, inner):
  """The step passes grad= to every link, and optax.masked hands it on whole."""

  def not_head(params):
    return {name: name != 'head' for name in params}

  link = prune(one_shot(1, 0.25), criterion=criterion, inner=inner)
  tx = optax.chain(sgd(), optax.masked(link, not_head))
  params, state = train(tx, network(), 3, pass_grad=True)[-1]
  masks = masks_of(state)
  assert isinstance(masks['head'], optax.MaskedNode)
  assert int(masks['conv']['kernel'].sum()) == int(jnp.sum(params['conv']['kernel'] != 0)) == 6
  assert bool(jnp.all(params['head']['kernel'] != 0))
  cut = apply_masks(jax.tree.map(jnp.ones_like, params), masks)
  assert int(cut['conv']['kernel'].sum()) == 6
  assert int(cut['head']['kernel'].sum()) == 48


def test_under_partition_every_part_has_its_own_rule():
  labels = {'conv': 'sparse', 'norm': 'none', 'head': 'sparser'}
  links = {
    'sparse': prune(one_shot(0, 0.5)),
    'sparser': prune(one_shot(1, 0.25)),
    'none': optax.identity(),
  }
  tx = optax.chain(sgd(), optax.partition(links, labels))
  history = train(tx, network(), 2, pass_grad=True)
  active = [tuple(int(jnp.sum(leaf != 0)) for leaf in kernels(params)) for params, _ in history]
  assert active == [(24, 48), (12, 48), (12, 12)]


def test_with_nothing_left_to_prune_it_leaves_everything_alone():
  params = network()
  tx = optax.masked(prune(one_shot(0, 0.5)), jax.tree.map(lambda _: False, params))
  updates, _ = tx.update(gradient(params, 0.0), tx.init(params), params)
  chex.assert_trees_all_equal(updates, gradient(params, 0.0))
