"""From the block `straight_through` to the link: what the library makes, and what goes with it."""

import re

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
import toy

from sparsejax import cubic, granularity, straight_through
from sparsejax.experiment.chain import links, optimizer, pruning_links
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config import base
from sparsejax.experiment.step import events
from sparsejax.experiment.training import posterior, registry

CLOCK = Clock(examples=100, batch_size=10, epochs=4.0)  # 10 steps an epoch, 40 in all
SGD = ('trace', 'scale_by_learning_rate')
BLOCK = base.LINK_DEFAULTS['straight_through'] | {'begin_epochs': 0.0, 'density': 0.5, 'inner': SGD}
BLOCKS = {
  'add_decayed_weights': {'weight_decay': 0.1},
  'trace': {'decay': 0.9, 'nesterov': False},
  'scale_by_learning_rate': {'learning_rate': 0.05},
  'proximal_l1': base.LINK_DEFAULTS['proximal_l1'],
  'prune': base.LINK_DEFAULTS['prune'] | {'begin_epochs': 1.0},
  'hold': base.LINK_DEFAULTS['hold'],
  'rewind': {'to_steps': 0},
}


def build(chain=('straight_through',), **changes):
  return optimizer.build(chain, BLOCKS | {'straight_through': BLOCK | changes}, CLOCK)


def test_the_link_is_the_librarys_to_the_bit():
  settings = {'schedule': 'cubic', 'begin_epochs': 0.1, 'end_epochs': 0.5, 'every_steps': 2}
  settings |= {'granularity': 'filters', 'in_multiples': 2, 'renew_every_steps': 3}
  own = straight_through(
    cubic(1, 5, 0.5, every=2),
    every=3,
    granularity=granularity.in_multiples(2),
    inner=optax.sgd(0.05, momentum=0.9),
  )
  runs = [toy.train(tx, toy.network(), 7) for tx in (build(**settings), own)]
  for (params, state), (expected, others) in zip(*runs, strict=True):
    chex.assert_trees_all_equal(params, expected)
    for name in ('masks', 'dense'):
      chex.assert_trees_all_equal(optax.tree.get(state, name), optax.tree.get(others, name))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'density': 0.0}, 'straight_through.density=0.0 must be in (0, 1]'),
    (
      {'begin_epochs': 4.0},
      'straight_through.begin is step 40, but the run has 40 steps; it',
    ),
    ({'schedule': 'periodic'}, "unknown straight_through.schedule 'periodic'"),
    ({'renew_every_steps': 0}, 'straight_through.renew_every is 0 steps; it must be 1 or more'),
    ({'renew': 3}, "unknown setting 'straight_through.renew'"),
    ({'update_rule': 'set'}, "unknown setting 'straight_through.update_rule'"),
    ({'granularity': 'n_m'}, "straight_through.allocation='global_rank' must be 'uniform' with"),
    ({'exclude': ('(',)}, "straight_through.exclude='('"),
    ({'inner': (*SGD, 'rewind')}, "'rewind' does not go with 'straight_through', since it would"),
    ({'inner': (*SGD, 'hold')}, "'hold' does not go with 'straight_through', since it keeps"),
    ({'inner': (*SGD, 'prune')}, "'prune' must stand in it, not inside another link"),
  ],
)
def test_impossible_settings_are_refused_by_name(change, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    build(**change)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('other', links.NOT_STRAIGHT_THROUGH)
@pytest.mark.parametrize('is_last', [False, True])
def test_other_masks_and_rewound_weights_do_not_go_with_it(other, is_last):
  pair = ('straight_through', other) if is_last else (other, 'straight_through')
  with pytest.raises(ValueError, match=f"'{other}' does not go with 'straight_through', since it"):
    build((*SGD, *pair), inner=())


@pytest.mark.parametrize('link', ['add_decayed_weights', 'proximal_l1', 'adamw', 'lion', 'lamb'])
def test_a_link_that_reads_parameters_must_be_inside(link):
  """Before the link it would read zeros; inside it reads the dense weights."""
  chain = (link,) if link in ('adamw', 'lion', 'lamb') else SGD
  chain = (*chain, link) if link == 'proximal_l1' else (link, *(n for n in chain if n != link))
  blocks = BLOCKS | {name: {'learning_rate': 0.05} for name in ('adamw', 'lion', 'lamb')}
  outside = blocks | {'straight_through': BLOCK | {'inner': ()}}
  with pytest.raises(ValueError, match=f"'{link}' reads parameters, which are zero outside the"):
    optimizer.build((*chain, 'straight_through'), outside, CLOCK)
  inside = blocks | {'straight_through': BLOCK | {'inner': chain}}
  optimizer.build(('straight_through',), inside, CLOCK).init(toy.network())


def test_links_that_read_gradients_alone_may_stand_before_it():
  chain = ('clip_by_global_norm', *SGD, 'straight_through')
  blocks = BLOCKS | {'clip_by_global_norm': {'max_norm': 1e9}}
  outside = optimizer.build(chain, blocks | {'straight_through': BLOCK | {'inner': ()}}, CLOCK)
  found, expected = (toy.train(tx, toy.network(), 4)[-1][0] for tx in (outside, build()))
  chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_a_mask_inside_hold_would_be_known_to_nobody():
  blocks = BLOCKS | {'hold': base.LINK_DEFAULTS['hold'] | {'inner': (*SGD, 'prune')}}
  with pytest.raises(ValueError, match="'prune' must stand in it, not inside another link"):
    optimizer.build(('hold',), blocks, CLOCK)


def test_what_removes_weights_by_a_schedule_is_found_in_a_chain():
  assert pruning_links.link_of((*SGD, 'prune')) == 'prune'
  assert pruning_links.link_of(('straight_through',)) == 'straight_through'
  assert pruning_links.link_of((*SGD, 'hold')) is None
  config = {'chain': ('straight_through',), 'straight_through': BLOCK | {'criterion': 'fisher'}}
  assert pruning_links.needs_squared_gradients(config)


def test_densities_by_layer_are_those_of_the_masks():
  tx = build(allocation='by_layer', density='head=1.0,.*=0.25')
  params = toy.network()
  state = tx.init(params)
  _, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
  masks = optax.tree.get(state, 'masks')
  for path, mask in jax.tree.leaves_with_path(masks):
    if mask.ndim > 1:
      share = 1.0 if 'head' in str(path) else 0.25
      assert int(mask.sum()) == round(share * mask.size)


def test_posteriors_lose_weights_by_their_own_threshold():
  config = base.get_config(('add_kl_gradients', 'sgd', 'straight_through'), layers='sparse_vd')
  with pytest.raises(
    ValueError, match="'straight_through' must be left out with layers='sparse_vd"
  ):
    posterior.check(config.to_dict())


def test_code_of_ones_own_is_part_of_the_hash_here_too():
  settings = base.get_config((*SGD, 'straight_through')).to_dict()
  settings['straight_through']['criterion'] = 'mine'
  assert registry.missing(settings, ['criterion']).startswith("there is no criterion 'mine'")


def test_what_lobs_removes_would_come_back():
  config = base.get_config((*SGD, 'straight_through'), events=('lobs',)).to_dict()
  with pytest.raises(ValueError, match=r"^lobs: 'straight_through' ranks dense"):
    events.check(config)
