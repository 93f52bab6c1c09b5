"""The proximal links of a config: their thresholds follow from the rest of the chain."""

import inspect
import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax
from sparsejax.experiment.chain import links, optimizer, proximal_links
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config import base

CLOCK = Clock(examples=100, batch_size=10, epochs=4.0)  # 10 steps an epoch, 40 in all
SGD = ('trace', 'scale_by_learning_rate')
HALVES = {'schedule': 'step_decay', 'value': 0.5, 'factor': 0.5, 'every_steps': 1}
BLOCKS = {
  'trace': {'decay': 0.75},
  'scale_by_learning_rate': {'learning_rate': 0.5},
  'adam': {'learning_rate': 0.5},
}
L1 = {'strength': 0.25, 'parameters': 'all', 'exclude': (), 'inner': ()}
GROUP = L1 | {'granularity': 'filters', 'block': (4, 4), 'group_weight': 'one'}


def blocks_with(l1=None, group=None, **others):
  ours = {'proximal_l1': L1 | (l1 or {}), 'proximal_group_l1': GROUP | (group or {})}
  return BLOCKS | ours | others


def train(tx, steps=3, grad=0.0):
  """The kernel after each update by a constant gradient."""
  params = {'kernel': jnp.array([[3.0, -2.0, 0.1]])}
  state, found = tx.init(params), []
  for _ in range(steps):
    updates, state = tx.update({'kernel': jnp.full((1, 3), grad)}, state, params, grad=params)
    params = optax.apply_updates(params, updates)
    found.append(params['kernel'].ravel().tolist())
  return found


def build(chain, blocks):
  return optimizer.build(chain, blocks, CLOCK)


def near(expected):
  return pytest.approx(np.ravel(expected), abs=1e-6)


@pytest.mark.parametrize('name', ['proximal_l1', 'proximal_group_l1'])
@pytest.mark.parametrize(
  ('chain', 'others', 'momentum'),
  [
    (('scale_by_learning_rate',), {}, 0.0),
    (SGD, {}, 0.75),
    (('sgd',), {'sgd': {'learning_rate': 0.5}}, 0.0),
    (('sgd',), {'sgd': {'learning_rate': 0.5, 'momentum': 0.75}}, 0.75),
    (('trace', 'sgd'), {'sgd': {'learning_rate': 0.5, 'momentum': 0.5}}, 0.875),
    (('trace', 'sgd'), {'sgd': {'learning_rate': 0.5, 'momentum': None}}, 0.75),
  ],
)
def test_learning_rate_and_momentum_are_those_of_the_chain(name, chain, others, momentum):
  """A group of one entry, of a kernel of one input, is shortened as an entry is by L1."""
  threshold = 0.25 * 0.5 / (1 - momentum)
  found = train(build((*chain, name), blocks_with(**others)), 1)
  values = jnp.array([3.0, -2.0, 0.1])
  assert np.ravel(found) == near(sparsejax.soft_threshold(values, threshold))


def test_a_schedule_of_the_learning_rate_is_the_threshold_s_too():
  # 0.25 times 0.5, 0.25, 0.125 over 0.25
  rate = {'learning_rate': HALVES}
  found = train(build((*SGD, 'proximal_l1'), blocks_with(scale_by_learning_rate=rate)))
  assert np.ravel(found) == near([[2.5, -1.5, 0.0], [2.25, -1.25, 0.0], [2.125, -1.125, 0.0]])


def test_the_strength_may_be_a_schedule():
  chain = ('scale_by_learning_rate', 'proximal_l1')
  found = train(build(chain, blocks_with(l1={'strength': HALVES})), 2)
  assert np.ravel(found) == near([[2.75, -1.75, 0.0], [2.625, -1.625, 0.0]])


ADAPTIVE = {
  'adam': (
    {'learning_rate': 0.1, 'b2': 0.5, 'eps': 0.1},
    optax.adam(0.1, b2=0.5, eps=0.1),
    sparsejax.adam_metric(b2=0.5, eps=0.1),
    0.0,
  ),
  'adamw': ({'learning_rate': 0.1}, optax.adamw(0.1), sparsejax.adam_metric(), 0.0),
  'yogi': ({'learning_rate': 0.1}, optax.yogi(0.1), sparsejax.adam_metric(eps=1e-3), 0.0),
  'rmsprop': (
    {'learning_rate': 0.1, 'momentum': 0.5, 'eps': 0.1},
    optax.rmsprop(0.1, momentum=0.5, eps=0.1),
    sparsejax.rms_metric(eps=0.1),
    0.5,
  ),
  'amsgrad': (
    {'learning_rate': 0.1, 'eps': 0.1},
    optax.amsgrad(0.1, eps=0.1),
    sparsejax.amsgrad_metric(eps=0.1),
    0.0,
  ),
}


@pytest.mark.parametrize('link', ADAPTIVE)
def test_inside_the_metric_is_the_optimizers_by_its_own_settings(link):
  settings, inner, metric, momentum = ADAPTIVE[link]
  blocks = blocks_with(l1={'inner': (link,), 'strength': 1.0}, **{link: settings})
  found = train(build(('proximal_l1',), blocks), grad=0.5)
  by_hand = sparsejax.proximal_l1(1.0, 0.1, momentum, inner=inner, metric=metric, parameters='all')
  assert np.ravel(found) == near(train(by_hand, grad=0.5))


def test_every_link_with_a_metric_is_one_that_can_be_built():
  for link in proximal_links.METRICS:
    takes_rate = 'learning_rate' in inspect.signature(getattr(optax, link)).parameters
    inside = (link,) if takes_rate else (link, 'scale_by_learning_rate')
    blocks = blocks_with(group={'inner': inside})
    if takes_rate:
      blocks |= {link: {'learning_rate': 0.1}}
    found = train(build(('clip', 'proximal_group_l1'), blocks | {'clip': {'max_delta': 1.0}}), 1)
    assert np.isfinite(found).all()


def test_both_together_are_the_sparse_group_lasso():
  chain = ('scale_by_learning_rate', 'proximal_l1', 'proximal_group_l1')
  found = train(build(chain, blocks_with()), 1)
  assert np.ravel(found) == near([2.75, -1.75, 0.0])


def test_prune_stands_behind_it_or_around_it():
  prune = base.LINK_DEFAULTS['prune'] | {'begin_epochs': 0.0, 'end_epochs': 1.0, 'density': 0.5}
  behind = build((*SGD, 'proximal_l1', 'prune'), blocks_with(prune=prune))
  inner = {'inner': (*SGD, 'proximal_l1')}
  around = build(('prune',), blocks_with(prune=prune | inner))
  nested = {'inner': ('proximal_group_l1',)}
  adam = build(('prune',), blocks_with(group={'inner': ('adam',)}, prune=prune | nested))
  for tx in (behind, around, adam):
    assert train(tx, 1)[-1][2] == 0.0
  assert train(behind) == train(around)


def test_the_learning_rate_of_the_metrics_is_that_of_what_is_inside():
  blocks = blocks_with(l1={'inner': ('adam',)}, prune={'inner': ('proximal_l1',)})
  for chain in (('proximal_l1',), ('prune',)):
    assert links.learning_rate(chain, blocks, CLOCK)(3) == 0.5


@pytest.mark.parametrize(
  ('chain', 'changes', 'message'),
  [
    (
      ('adam', 'proximal_l1'),
      {},
      "config.chain: 'adam' divides by second moments, and so must the threshold of 'proximal_l1'; "
      'put adam and the links after it in proximal_l1.inner',
    ),
    (
      ('scale_by_lion', 'scale_by_learning_rate', 'proximal_group_l1'),
      {},
      "no threshold of 'proximal_group_l1' is right after 'scale_by_lion'; before it put only",
    ),
    (
      ('scale_by_learning_rate', 'proximal_group_l1', 'proximal_l1'),
      {},
      "no threshold of 'proximal_l1' is right after 'proximal_group_l1'",
    ),
    (
      ('proximal_l1',),
      {'l1': {'inner': SGD}},
      "proximal_l1.inner=('trace', 'scale_by_learning_rate'): 0 of them divide by second moments; "
      "exactly one must. Links without any belong before 'proximal_l1'",
    ),
    (
      ('proximal_l1',),
      {'l1': {'inner': ('scale_by_rms', 'adam')}},
      '2 of them divide by second moments',
    ),
    (
      ('proximal_l1',),
      {'l1': {'inner': ('adam',)}, 'adam': {'learning_rate': 0.1, 'b2': HALVES}},
      'adam.b2 is a schedule, but inside proximal_l1 it must be a number',
    ),
    (
      ('proximal_l1',),
      {'l1': {'inner': ('rmsprop',)}, 'rmsprop': {'learning_rate': 0.1, 'centered': True}},
      "rmsprop: leave out bias_correction and centered, which 'proximal_l1' does not support",
    ),
    (
      (*SGD, 'proximal_l1'),
      {'trace': {'decay': HALVES}},
      "the momentum before 'proximal_l1' is a schedule, but it must be a number",
    ),
    (
      ('proximal_l1', 'scale_by_learning_rate'),
      {},
      "'scale_by_learning_rate' must not stand after 'proximal_l1': it would move parameters",
    ),
    (
      (*SGD, 'prune', 'proximal_l1'),
      {},
      "'proximal_l1' must not stand after 'prune': it would move pruned weights away from zero",
    ),
    (('proximal_l1',), {}, '0 links take the learning rate'),
    (('proximal_l1',), {'l1': {'inner': ('adam', 'proximal_l1')}}, "'proximal_l1' stands twice"),
    (
      ('proximal_l1',),
      {'l1': {'inner': ('adm',)}},
      "unknown link of chain or inner 'adm': did you mean 'adam'?",
    ),
    (
      ('proximal_l1',),
      {'l1': {'inner': ('proximal_group_l1',)}, 'group': {'inner': ('proximal_l1',)}},
      "'proximal_l1' stands twice",
    ),
  ],
)
def test_a_chain_in_which_no_threshold_is_right_is_refused(chain, changes, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    build(chain, blocks_with(**changes))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'strength': -1.0}, 'strength=-1.0 must be a number of 0 or more, or a schedule'),
    ({'strength': None}, 'strength=None must be'),
    ({'strength': {'schedule': 'cosin', 'value': 1.0}}, "'cosin': did you mean 'cosine'?"),
    ({'strenght': 1.0}, "'proximal_group_l1.strenght': did you mean 'proximal_group_l1.strength'?"),
    ({'parameters': 'kernel'}, "unknown proximal_group_l1.parameters 'kernel': did you mean"),
    ({'exclude': ('(',)}, "proximal_group_l1.exclude='(' must be a regular expression"),
    ({'granularity': 'filter'}, "unknown granularity 'filter': did you mean 'filters'?"),
    ({'granularity': 'blocks', 'block': (0, 4)}, 'proximal_group_l1: blocks of 0x4'),
    ({'group_weight': 'sqrt'}, "unknown group_weight 'sqrt': did you mean 'sqrt_size'?"),
  ],
)
def test_impossible_settings_are_refused_by_name(change, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    build((*SGD, 'proximal_group_l1'), blocks_with(group=change))
  assert 'proximal_group_l1' in str(error.value) or 'schedule' in str(error.value)


@pytest.mark.parametrize('name', links.PROXIMAL)
def test_a_setting_that_is_missing_is_named(name):
  settings = blocks_with()[name]
  for missing in settings:
    rest = {key: value for key, value in settings.items() if key != missing}
    with pytest.raises(ValueError, match=rf'^{name}\.{missing} is missing'):
      build((*SGD, name), BLOCKS | {name: rest})


@pytest.mark.parametrize('name', links.PROXIMAL)
def test_the_defaults_of_the_configs_are_complete(name):
  config = base.get_config((*base.SGD, name)).to_dict()
  build(config['chain'], config)


def test_a_config_gives_the_links_inside_their_blocks():
  config = base.get_config(('proximal_l1', 'prune'))
  config.proximal_l1.inner = ('scale_by_adam', 'scale_by_learning_rate')
  settings = base.complete(config).to_dict()
  assert set(settings) & set(base.LINK_DEFAULTS) == {
    *('proximal_l1', 'prune', 'scale_by_adam', 'scale_by_learning_rate')
  }
  assert base.links({'chain': ('a',), 'a': {'inner': ('b', 'a')}, 'b': None}) == ['a', 'b']
