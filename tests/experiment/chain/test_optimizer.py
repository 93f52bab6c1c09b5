"""The chain from its names: PyTorch's SGD by hand, and no order that undoes itself."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_pruning_config import PRUNE

from sparsejax.experiment.chain import foreign, links, optimizer
from sparsejax.experiment.chain.durations import Clock

CLOCK = Clock(examples=100, batch_size=10, epochs=4.0)  # 10 steps an epoch, 40 in all
SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
BLOCKS = {
  'add_decayed_weights': {'weight_decay': 0.1},
  'trace': {'decay': 0.9, 'nesterov': False},
  'scale_by_learning_rate': {'learning_rate': 0.5},
}


def train(chain, blocks, params, grads):
  """The parameters after each update, each made in a jitted step with the extra argument grad."""
  tx = optimizer.build(chain, blocks, CLOCK)
  params = jnp.array(params)
  state = tx.init({'w': params})

  @jax.jit
  def step(params, state, grad):
    updates, state = tx.update({'w': grad}, state, {'w': params}, grad={'w': grad})
    return optax.apply_updates({'w': params}, updates)['w'], state

  found = []
  for grad in grads:
    params, state = step(params, state, jnp.array(grad))
    found.append(params.tolist())
  return found, state


def near(expected):
  return pytest.approx(expected, rel=1e-6)


def test_the_chain_of_sgd_is_pytorchs_rule():
  # p = 2, g = 1: d = g + 0.1 p = 1.2, v = 1.2, p = 2 - 0.6; then d = 1.14, v = 1.08 + 1.14.
  found, _ = train(SGD, BLOCKS, [2.0], [[1.0], [1.0]])
  assert np.ravel(found) == near([1.4, 1.4 - 0.5 * 2.22])


def test_and_with_nesterov():
  # d = 1.2, v = 1.2, step d + 0.9 v = 2.28; then d = 0.5 + 0.086, v = 1.08 + 0.586.
  blocks = BLOCKS | {'trace': {'decay': 0.9, 'nesterov': True}}
  found, _ = train(SGD, blocks, [2.0], [[1.0], [0.5]])
  assert np.ravel(found) == near([2 - 1.14, 0.86 - 0.5 * (0.586 + 0.9 * 1.666)])


def test_weight_decay_behind_the_momentum_is_decoupled():
  # AdamW's place: v = 1, p = 2 - 0.5 (1 + 0.2); then v = 0.9 + 1, and 0.1 p with today's p.
  chain = ('trace', 'add_decayed_weights', 'scale_by_learning_rate')
  found, _ = train(chain, BLOCKS, [2.0], [[1.0], [1.0]])
  assert np.ravel(found) == near([1.4, 1.4 - 0.5 * (1.9 + 0.14)])


HALVES = {'schedule': 'step_decay', 'factor': 0.5, 'every_steps': 1}


@pytest.mark.parametrize(
  ('link', 'setting', 'value', 'expected'),
  [
    ('scale_by_learning_rate', 'learning_rate', 0.5, [2 - 0.5 * 1.2, 1.4 - 0.25 * 2.22]),
    ('add_decayed_weights', 'weight_decay', 0.1, [1.4, 1.4 - 0.5 * (1.08 + 1 + 0.05 * 1.4)]),
    # through optax.inject_hyperparams, since optax.trace takes no schedule; decay 0.9 then 0.45
    ('trace', 'decay', 0.9, [1.4, 1.4 - 0.5 * (0.45 * 1.2 + 1.14)]),
  ],
)
def test_a_schedule_may_stand_where_a_number_may(link, setting, value, expected):
  blocks = BLOCKS | {link: BLOCKS[link] | {setting: HALVES | {'value': value}}}
  found, _ = train(SGD, blocks, [2.0], [[1.0], [1.0]])
  assert np.ravel(found) == near(expected)


def test_a_schedule_beside_a_setting_that_the_factory_branches_on():
  decay = {'schedule': 'constant', 'value': 0.9}
  for nesterov in (False, True):
    plain = BLOCKS | {'trace': {'decay': 0.9, 'nesterov': nesterov}}
    scheduled = BLOCKS | {'trace': {'decay': decay, 'nesterov': nesterov}}
    runs = [train(SGD, blocks, [2.0], [[1.0], [0.5]])[0] for blocks in (plain, scheduled)]
    assert np.ravel(runs[0]) == near(np.ravel(runs[1]).tolist())
  adafactor = {'learning_rate': 0.1, 'decay_rate': decay, 'min_dim_size_to_factor': 2}
  optimizer.build(('adafactor',), {'adafactor': adafactor}, CLOCK)


def test_a_link_without_a_block_takes_its_own_defaults():
  chain = ('scale_by_sign', 'scale_by_learning_rate')
  found, _ = train(chain, BLOCKS, [2.0, 2.0], [[3.0, -0.1]])
  assert found == [[1.5, 2.5]]


def test_the_raw_gradient_reaches_a_criterion_behind_every_other_link():
  # By |p g| the second stays, by |p| and by |p u| (u the sign) the first would.
  blocks = BLOCKS | {'prune': PRUNE | {'criterion': 'saliency', 'begin_steps': 0}}
  chain = ('scale_by_sign', 'scale_by_learning_rate', 'prune')
  found, _ = train(chain, blocks, [2.0, 1.0], [[0.1, 3.0]])
  assert found == [[0.0, 0.5]]


def test_prune_cuts_last_and_holds():
  blocks = BLOCKS | {'prune': PRUNE}
  found, state = train((*SGD, 'prune'), blocks, [2.0, 1.0], [[1.0, 0.0]] * 3)
  assert found[0] == near([1.4, 0.95])
  assert [after[1] for after in found[1:]] == [0.0, 0.0]
  assert all(after[0] != 0 for after in found)
  masks = optax.tree.get(state, 'masks')
  assert masks['w'].tolist() == [True, False]


@pytest.mark.parametrize('inner', [(), ('trace', 'scale_by_learning_rate')], ids=['last', 'around'])
def test_hold_keeps_the_zeros_that_training_starts_from(inner):
  # A step of 0.5 on a gradient of 1; where the weight is 0 it stays so, whatever its gradient.
  ahead = tuple(name for name in SGD[1:] if name not in inner)
  blocks = BLOCKS | {'hold': {'parameters': 'all', 'exclude': (), 'inner': inner}}
  found, state = train((*ahead, 'hold'), blocks, [2.0, 0.0], [[1.0, 7.0]])
  assert found == [[1.5, 0.0]]
  assert optax.tree.get(state, 'masks')['w'].tolist() == [True, False]


def test_hold_needs_its_settings_and_refuses_weights_that_come_back():
  with pytest.raises(ValueError, match=r'^hold\.inner is missing; hold needs parameters, exclude'):
    optimizer.build((*SGD, 'hold'), BLOCKS | {'hold': {'parameters': 'all', 'exclude': ()}}, CLOCK)
  hold = {'parameters': 'all', 'exclude': (), 'inner': ()}
  prune = PRUNE | {'update_rule': 'set', 'schedule': 'periodic', 'inner': SGD[1:]}
  with pytest.raises(ValueError, match=r"'hold' keeps weights at zero that prune\.update_rule"):
    optimizer.build(('prune', 'hold'), BLOCKS | {'prune': prune, 'hold': hold}, CLOCK)


def test_inner_links_run_inside_the_masks_in_their_order():
  """The clip inside sees only what is kept: outside, the cut weight would eat the norm."""
  blocks = BLOCKS | {
    'clip_by_global_norm': {'max_norm': 1.0},
    'prune': PRUNE | {'begin_steps': 0, 'inner': ('clip_by_global_norm', 'scale_by_learning_rate')},
  }
  inside, _ = train(('prune',), blocks, [2.0, 1.0], [[3.0, 4.0]])
  assert inside == [[1.5, 0.0]]
  blocks['prune'] = blocks['prune'] | {'inner': ()}
  chain = ('clip_by_global_norm', 'scale_by_learning_rate', 'prune')
  outside, _ = train(chain, blocks, [2.0, 1.0], [[3.0, 4.0]])
  assert outside[0] == near([2 - 0.5 * 0.6, 0.0])


def test_the_inner_momentum_of_a_cut_weight_is_forgotten():
  blocks = BLOCKS | {'prune': PRUNE | {'inner': ('trace', 'scale_by_learning_rate')}}
  _, state = train(('add_decayed_weights', 'prune'), blocks, [2.0, 1.0], [[1.0, 1.0]] * 2)
  trace = optax.tree.get(state, 'trace')['w'].tolist()
  assert trace[0] == near(2.22)
  assert trace[1] == 0


@pytest.mark.parametrize(
  ('chain', 'inner', 'message'),
  [
    (
      ('add_decayed_weights', 'prune', 'trace', 'scale_by_learning_rate'),
      (),
      "'trace' must not stand after 'prune': it would move pruned weights away from zero",
    ),
    (
      ('scale_by_learning_rate', 'prune', 'keep_params_nonnegative'),
      (),
      "'keep_params_nonnegative' must not stand after 'prune'",
    ),
    (
      ('trace', 'scale_by_learning_rate', 'add_decayed_weights'),
      (),
      "'add_decayed_weights' must not stand after 'scale_by_learning_rate': it would change the "
      'sign or the size of the step already taken',
    ),
    (
      ('keep_params_nonnegative', 'scale_by_learning_rate'),
      (),
      "'scale_by_learning_rate' must not stand after 'keep_params_nonnegative': it would move "
      'parameters that were just set',
    ),
    (('sgd', 'scale_by_learning_rate'), (), '2 links take the learning rate; exactly one must'),
    (('trace',), (), '0 links take the learning rate; exactly one must'),
    (('scale_by_rprop',), (), '0 links take the learning rate; exactly one must'),
    ((), (), '0 links take the learning rate; exactly one must'),
    (
      ('trace', 'trace', 'scale_by_learning_rate'),
      (),
      "'trace' stands twice; it must stand",
    ),
    (('trace', 'prune'), ('trace', 'scale_by_learning_rate'), "'trace' stands twice"),
    (('prune',), ('scale_by_learning_rate', 'prune'), "'prune' stands twice"),
    (
      ('prune',),
      ('scale_by_learning_rate', 'trace'),
      "'trace' must not stand after 'scale_by_learning_rate'",
    ),
    (
      ('scale_by_learning_rate', 'prune'),
      ('trace',),
      "'trace' must not stand after 'scale_by_learning_rate'",
    ),
    (('prune', 'scale_by_learning_rate'), ('trace',), "must not stand after 'prune'"),
  ],
)
def test_an_order_that_makes_no_sense_is_refused_and_told_why(chain, inner, message):
  blocks = BLOCKS | {'prune': PRUNE | {'inner': inner}}
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    optimizer.build(chain, blocks, CLOCK)
  assert 'config.chain=' in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('chain', 'blocks', 'message'),
  [
    (('tracce', 'sgd'), {}, "unknown link of chain or inner 'tracce': did you mean 'trace'?"),
    (('prune',), {'prune': PRUNE | {'inner': ('sdg',)}}, "'sdg': did you mean 'sgd'?"),
    (('masked', 'sgd'), {}, "unknown link of chain or inner 'masked'"),
    (('chain', 'sgd'), {}, "unknown link of chain or inner 'chain'"),
    (SGD, {'trace': {'decai': 0.5}}, "'trace.decai': did you mean 'trace.decay'?"),
    (('sgd',), {'sgd': {}}, 'sgd.learning_rate is missing: it must be a number of 0'),
    (
      ('lbfgs',),
      {},
      'config.chain: lbfgs: scale_by_zoom_linesearch.<locals>.update_fn() missing 2',
    ),
    (SGD, {'trace': {'decay': {'schedule': 'cosin'}}}, "'cosin': did you mean 'cosine'?"),
  ],
)
def test_unknown_links_and_settings_are_refused_with_the_nearest_name(chain, blocks, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    optimizer.build(chain, BLOCKS | blocks, CLOCK)
  assert '\n' not in str(error.value)


NAN, ENDLESS = float('nan'), float('inf')
RISING = {'schedule': 'linear', 'initial': -0.1, 'final': 0.1}


@pytest.mark.parametrize(
  ('link', 'setting', 'values', 'expected'),
  [
    ('adam', 'learning_rate', (NAN, ENDLESS, -1, 'nope', '', None, True, [], {1}), 'a number of 0'),
    ('adam', 'b1', (NAN, 1.0, -0.1, '0.9', None, (0.9,)), 'a number of 0 or more and below 1, or'),
    ('adam', 'eps', (NAN, -1e-8, 'x', None), 'a number of 0 or more, or a'),
    ('adam', 'nesterov', (1, 'True', None, ()), 'True or False'),
    ('adam', 'mu_dtype', (5, 'float', 'int8', {1}), 'one of float32, bfloat16, float16, or None'),
    ('sgd', 'momentum', (NAN, 1, 'x', [0.9]), "and below 1, or a schedule's block, or None"),
    ('adafactor', 'min_dim_size_to_factor', (0, 1.5, None), 'an integer of 1 or more'),
    ('noisy_sgd', 'key', (-1, 'x', 2**32), 'an integer of 0 or more, up to 4294967295, or None'),
    ('adamw', 'mask', ('kernel', 1), 'True or False, or None'),
  ],
)
def test_a_setting_of_a_link_of_optax_is_refused_by_its_name(link, setting, values, expected):
  for value in values:
    block = {'learning_rate': 0.1, setting: value}
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
      optimizer.build((link,), {link: block}, CLOCK)
    assert str(error.value).startswith(f'{link}.{setting}=')
    assert '\n' not in str(error.value)


def test_of_a_schedule_it_is_refused_by_its_own_name():
  with pytest.raises(ValueError, match=re.escape('adam.learning_rate.initial=-0.1 must be')):
    optimizer.build(('adam',), {'adam': {'learning_rate': RISING}}, CLOCK)


@pytest.mark.parametrize('name', sorted({*links.known()} - {*links.OURS}))
def test_the_defaults_of_a_link_of_optax_are_what_its_settings_may_be(name):
  factory = links.known()[name]
  for key, parameter in inspect.signature(factory).parameters.items():
    kind, default = foreign.parameter_kind(parameter), parameter.default
    if kind and isinstance(default, bool | int | float | str | None):
      assert kind.convert(default) == default, key


def test_the_learning_rate_of_the_metrics_is_that_of_the_chain():
  assert links.learning_rate(SGD, BLOCKS, CLOCK)(7) == 0.5
  inner = BLOCKS | {'prune': PRUNE | {'inner': ('trace', 'scale_by_learning_rate')}}
  assert links.learning_rate(('prune',), inner, CLOCK)(7) == 0.5
  falling = {'sgd': {'learning_rate': HALVES | {'value': 0.5}}}
  assert float(links.learning_rate(('sgd',), falling, CLOCK)(1)) == 0.25
  for own in ({}, {'adafactor': {'learning_rate': None}}):
    assert np.isnan(links.learning_rate(('adafactor',), own, CLOCK)(0))
