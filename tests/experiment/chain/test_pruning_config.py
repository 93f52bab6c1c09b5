"""From the block `prune` to the link: every name, every sensible combination, no nonsense."""

import functools
import itertools
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.experiment.chain import optimizer, pruning_links
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config import fields
from sparsejax.sparsity.counting.costs import mac_costs, weight_costs

CLOCK = Clock(examples=100, batch_size=10, epochs=4.0)  # 10 steps an epoch, 40 in all
PRUNE = {
  'schedule': 'one_shot',
  'begin_steps': 1,
  'end_steps': 30,
  'every_steps': 10,
  'density': 0.5,
  'round_fraction': 0.2,
  'threshold': 0.02,
  'density_of': 'groups',
  'allocation': 'global_rank',
  'criterion': 'magnitude',
  'granularity': 'weight',
  'block': (4, 4),
  'n': 2,
  'm': 4,
  'in_multiples': 1,
  'update_rule': 'nested',
  'drop_fraction': 0.3,
  'start': 'random',
  'parameters': 'all',
  'exclude': (),
  'floor': 1,
  'inner': (),
}
EXCHANGE = {'update_rule': 'set', 'schedule': 'periodic'}
ROUNDS = {'schedule': 'iterative'}
LAYERS = ('conv', 'mixed')


def network():
  """A convolution, and a layer of ten inputs and seven outputs."""
  rng = np.random.default_rng(0)
  shapes = {'conv': (2, 2, 3, 4), 'mixed': (10, 7)}
  return {
    name: {
      'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32),
      'bias': jnp.ones(shape[-1]),
    }
    for name, shape in shapes.items()
  }


POSITIONS = {'conv': 9, 'mixed': 1}


def costs(unit):
  return weight_costs(network()) if unit == 'weights' else mac_costs(network(), POSITIONS)


def build(change):
  return pruning_links.build(PRUNE | change, CLOCK, seed=0, inner=None, costs=costs)


# Settings and what they may be


CUBIC = {'schedule': 'cubic', 'begin_steps': 10, 'density': 0.1}
THRESHOLD = {'allocation': 'absolute_threshold'}
BY_LAYER = {'allocation': 'by_layer', 'density': 'conv=0.5,.*=0.2'}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'density': 0.0}, 'prune.density=0.0 must be in (0, 1]'),
    ({'density': 1.01}, 'prune.density=1.01 must be in (0, 1]'),
    ({'density': float('nan')}, 'prune.density=nan must be in (0, 1]'),
    (THRESHOLD | {'threshold': 1.0}, 'prune.threshold=1.0 must be in [0, 1)'),
    (THRESHOLD | {'threshold': -0.1}, 'prune.threshold=-0.1 must be in [0, 1)'),
    ({'begin_steps': 40}, 'prune.begin is step 40, but the run has 40 steps; it must be earlier'),
    (
      CUBIC | {'end_steps': 40},
      'prune.end is step 40, but the run has 40 steps; it must be',
    ),
    (CUBIC | {'end_steps': 10}, 'prune: from step 10 to step 10 every 10 steps: the end'),
    (CUBIC | {'every_steps': 0}, 'prune.every is 0 steps; it must be 1 or more'),
    ({'begin_steps': -1}, 'prune.begin_steps=-1 must be a number of steps, 0 or more'),
    ({'schedule': 'one_shoot'}, "unknown prune.schedule 'one_shoot': did you mean 'one_shot'?"),
    ({'criterion': 'magnitud'}, "unknown prune.criterion 'magnitud': did you mean 'magnitude'?"),
    ({'allocation': 'globalrank', 'density': 0.0}, "did you mean 'global_rank'?"),
    ({'granularity': 'weights'}, "did you mean 'weight'?"),
    ({'update_rule': 'nest'}, "did you mean 'nested'?"),
    ({'desnity': 0.1}, "unknown setting 'prune.desnity': did you mean 'prune.density'?"),
    ({'exclude': ('(',)}, "prune.exclude='(' must be a regular expression"),
    ({'floor': -1}, 'prune.floor=-1 must be an integer, 0 or more'),
    ({'schedule': 'periodic'}, "prune.schedule='periodic': nested masks would be cut once"),
    ({'update_rule': 'set'}, "prune.schedule='one_shot': the update rule 'set' exchanges weights"),
    ({'update_rule': 'rigl'}, "prune.schedule='one_shot': the update rule 'rigl' exchanges"),
    (EXCHANGE | THRESHOLD, 'prune: an update rule that grows weights at zero does not go with'),
    (EXCHANGE | {'drop_fraction': 1.5}, 'prune: drop_fraction=1.5 must be a share from 0 to 1'),
    (EXCHANGE | {'start': 'rndom'}, "unknown start 'rndom': did you mean 'random'?"),
    (
      EXCHANGE | {'begin_steps': 30},
      'prune: from step 30 to step 30 every 10 steps: the end must be',
    ),
    (
      ROUNDS | {'density': 0.01},
      'prune.last round is step 201, but the run has 40 steps; it',
    ),
    (ROUNDS | {'round_fraction': 0.0}, 'fraction=0.0: every must be 1 or more'),
    (ROUNDS | THRESHOLD, "prune.schedule='iterative' does not work with an absolute threshold"),
    (
      THRESHOLD | {'density_of': 'macs'},
      "prune.density_of='macs' must be 'groups' with an absolute",
    ),
    (
      THRESHOLD | {'density_of': 'weights'},
      "prune.density_of='weights' must be 'groups' with an abs",
    ),
    ({'allocation': 'by_layer'}, "prune.allocation='by_layer' must have a density for each layer"),
    (BY_LAYER | {'allocation': 'erk'}, "prune.allocation='erk' must be 'by_layer'"),
    (BY_LAYER | {'density': 'conv=0.0'}, 'prune.density=conv=0.0 must be in (0, 1]'),
    (
      BY_LAYER | {'density': '(=0.5'},
      "prune.density='(=0.5' must be numbers by regular expressions",
    ),
    (BY_LAYER | ROUNDS, "prune.schedule='iterative' does not work with a density for each layer"),
    (
      BY_LAYER | {'density_of': 'macs'},
      "prune.density_of='macs' must be 'groups' with densities by",
    ),
    ({'density_of': 'flops'}, "unknown prune.density_of 'flops'"),
    ({'granularity': 'blocks', 'block': (0, 4)}, 'prune: blocks of 0x4: both must be 1 or more'),
    ({'granularity': 'blocks', 'block': (4, 4, 4)}, 'prune: blocks() takes from 0 to 2'),
    ({'granularity': 'filters', 'in_multiples': 0}, 'prune: in_multiples: number=0 must be 1 or'),
    ({'granularity': 'n_m'}, "prune.allocation='global_rank' must be 'uniform' with"),
    (
      {'granularity': 'n_m', 'n': 5, 'allocation': 'uniform'},
      'prune: N:M sparsity with n=5, m=4: m must be 2 or more, and n from 1 to m',
    ),
  ],
)
def test_impossible_settings_of_prune_are_refused_by_name(change, message):
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    build(change)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('missing', sorted(PRUNE))
def test_a_setting_of_prune_that_is_missing_is_named(missing):
  block = {name: value for name, value in PRUNE.items() if name != missing}
  with pytest.raises(ValueError, match=rf'^prune\.{missing.partition("_steps")[0]} is missing'):
    pruning_links.build(block, CLOCK, seed=0, inner=None, costs=costs)


def test_the_widest_densities_are_allowed():
  for change in ({'density': 1.0}, {'density': 1e-6}, THRESHOLD | {'threshold': 0.0}):
    schedule = pruning_links.pruning_schedule(PRUNE | change, CLOCK)
    assert schedule == ((1,), (next(reversed(change.values())),))


def test_the_cubic_schedule_of_a_fraction_falls_from_one_and_of_a_threshold_rises_from_zero():
  # at 10 + 10, 10 + 20 of 40 steps, halfway: 1/8 of the way is left
  change = {'schedule': 'cubic', 'begin_epochs': 1.0, 'end_steps': 30, 'density': 0.2}
  block = {name: value for name, value in PRUNE.items() if name != 'begin_steps'} | change
  assert pruning_links.pruning_schedule(block, CLOCK) == ((20, 30), (pytest.approx(0.3), 0.2))
  rising = pruning_links.pruning_schedule(block | THRESHOLD | {'threshold': 0.2}, CLOCK)
  assert rising == ((20, 30), (pytest.approx(0.175), 0.2))


# Layers and groups


def test_each_layer_keeps_what_its_own_expression_says():
  """Half of the convolution's 48 weights, and a fifth of the 70 of whatever else there is."""
  link = build(BY_LAYER | {'begin_steps': 0, 'parameters': 'kernels'})
  params = network()
  _, state = link.update(jax.tree.map(jnp.zeros_like, params), link.init(params), params)
  assert {name: int(state.masks[name]['kernel'].sum()) for name in LAYERS} == {
    'conv': 24,
    'mixed': 14,
  }


def test_the_first_expression_counts_and_one_without_a_layer_is_refused_by_name():
  dense = build(BY_LAYER | {'density': 'mix=1.0,.*=0.5', 'parameters': 'kernels'})
  assert dense.init(network()).table.tolist() == [[24, 70]]
  with pytest.raises(ValueError, match=r"^prune\.density: the pattern 'conf' .*mean 'conv'\?$"):
    build(BY_LAYER | {'density': 'conf=0.5', 'parameters': 'kernels'}).init(network())


@pytest.mark.parametrize(('granularity', 'axes'), [('filters', (0, 1, 2)), ('input_channels', 3)])
def test_each_layer_keeps_a_multiple_of_what_it_is_told(granularity, axes):
  """Of 4 filters and 7 units 60 % stay: 2 of 4 and 4 of 7, as 2.4 and 4.2 are rounded down."""
  group = {'granularity': granularity, 'allocation': 'uniform', 'density': 0.6, 'floor': 0}
  kept = {}
  for number in (1, 2):
    link = build(group | {'in_multiples': number, 'begin_steps': 0, 'parameters': 'kernels'})
    params = network()
    _, state = link.update(jax.tree.map(jnp.zeros_like, params), link.init(params), params)
    mask = state.masks['mixed']['kernel']
    side = 0 if granularity == 'filters' else 1
    kept[number] = int(mask.any(side).sum())
  assert kept == ({1: 4, 2: 4} if granularity == 'filters' else {1: 6, 2: 6})


# Whole networks


def test_a_density_below_what_unpruned_layers_cost_is_refused_before_training():
  """The convolution costs 48 weights at nine positions each, 432 of 502."""
  change = {'density_of': 'macs', 'parameters': 'kernels', 'exclude': ('conv',)}
  link = build(change | {'density': 0.9})
  jax.eval_shape(link.init, network())
  for density in (0.8, 0.5):
    with pytest.raises(ValueError) as error:
      build(change | {'density': density}).init(network())
    assert f'density={density} must be more than 0.8606' in str(error.value)
    assert 'layers that are not pruned (conv/kernel)' in str(error.value)
    assert '\n' not in str(error.value)


def test_without_costs_a_unit_that_needs_them_is_refused():
  blocks = {'sgd': {'learning_rate': 0.1}, 'prune': PRUNE | {'density_of': 'macs'}}
  with pytest.raises(
    ValueError, match=r"prune\.density_of='macs': what the network costs is not known"
  ):
    optimizer.build(('sgd', 'prune'), blocks, CLOCK)


# Rewinding


def chain_with_rewind(rewind, prune=PRUNE):
  blocks = {'sgd': {'learning_rate': 0.5}, 'rewind': rewind, 'prune': prune}
  return optimizer.build(('sgd', 'rewind', 'prune') if prune else ('sgd', 'rewind'), blocks, CLOCK)


def test_weights_are_rewound_at_every_cut():
  """Two rounds, at the steps 2 and 4, back to step 1: -0.5 each step, and the smallest go."""
  rounds = ROUNDS | {'begin_steps': 2, 'every_steps': 2, 'density': 0.34, 'round_fraction': 0.4}
  tx = chain_with_rewind({'to_steps': 1}, PRUNE | rounds)
  params = {'w': jnp.array([[4.0, 5.0, 6.0]])}
  state, update, seen = tx.init(params), jax.jit(tx.update), []
  for _ in range(6):
    moved, state = update({'w': jnp.ones((1, 3))}, state, params)
    params = optax.apply_updates(params, moved)
    seen.append(params['w'].tolist()[0])
  assert seen[:3] == [[3.5, 4.5, 5.5], [3.0, 4.0, 5.0], [0.0, 4.5, 5.5]]
  assert seen[3:] == [[0.0, 4.0, 5.0], [0.0, 0.0, 5.5], [0.0, 0.0, 5.0]]


@pytest.mark.parametrize(
  ('rewind', 'prune', 'message'),
  [
    ({'to_steps': 0}, None, "config.chain: 'rewind' acts at the cuts of 'prune'"),
    ({}, PRUNE, 'rewind.to is missing: give to_epochs, to_steps or to_examples'),
    ({'to_steps': 1}, PRUNE, 'rewind.to is step 1, but it must be before prune.begin, step 1'),
    ({'to_epochs': 2.0}, PRUNE, 'rewind.to is step 20, but it must be before prune.begin, step 1'),
    ({'to_steps': 0, 'too': 1}, PRUNE, "'rewind.too': did you mean 'rewind.to'?"),
    ({'to_steps': -1}, PRUNE, 'rewind.to_steps=-1 must be a number of steps, 0 or more'),
    ({'to_steps': 0, 'inner': ()}, PRUNE, "unknown setting 'rewind.inner'"),
  ],
)
def test_a_rewind_that_goes_nowhere_is_refused_in_one_line(rewind, prune, message):
  with pytest.raises(ValueError) as error:
    chain_with_rewind(rewind, prune)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


# Every combination


NAMES = {
  'criterion': tuple(pruning_links.CRITERIA),
  'granularity': tuple(pruning_links.GRANULARITIES),
  'allocation': ('global_rank', 'uniform', 'erk', 'absolute_threshold'),  # which have one density
  'update_rule': tuple(pruning_links.UPDATE_RULES),
  'schedule': fields.PRUNING_SCHEDULES['prune'],
  'start': ('random', 'criterion'),
  'density_of': fields.DENSITY_UNITS,
}


def makes_sense(change):
  nested, threshold = change['update_rule'] == 'nested', 'absolute' in change['allocation']
  return (
    change['schedule'] != ('periodic' if nested else 'one_shot')
    and not (threshold and (not nested or change['density_of'] != 'groups'))
    and not (threshold and change['schedule'] == 'iterative')
    and not (nested and change['start'] == 'random')  # has none
    and not (change['granularity'] == 'n_m' and change['allocation'] != 'uniform')
    and not (change['granularity'] == 'n_m' and change['density_of'] != 'groups')
  )


def combinations():
  product = [dict(zip(NAMES, names, strict=True)) for names in itertools.product(*NAMES.values())]
  return [change for change in product if makes_sense(change)]


def sample(size):
  """So many combinations, in which every name stands, and the rarest as often as may be."""
  left, chosen, times = combinations(), [], {}
  random.Random(0).shuffle(left)
  for _ in range(size):
    best = min(left, key=lambda change: sum(times.get(item, 0) for item in change.items()))
    left.remove(best)
    chosen.append(best)
    for item in best.items():
      times[item] = times.get(item, 0) + 1
  assert set(times) == {(key, name) for key, names in NAMES.items() for name in names}
  return chosen


def test_every_combination_that_makes_no_sense_is_refused_and_any_other_is_built():
  product = [dict(zip(NAMES, names, strict=True)) for names in itertools.product(*NAMES.values())]
  refused = 0
  for change in random.Random(1).sample(product, 300):
    is_nested = change['update_rule'] == 'nested'  # without a start, whatever it is said to be
    sensible = makes_sense(change | ({'start': 'criterion'} if is_nested else {}))
    try:
      build(change | {'density': 0.5})
    except ValueError:
      refused += 1
      assert not sensible, change
    else:
      assert sensible, change
  assert 50 < refused < 250


@pytest.mark.parametrize('change', sample(24), ids=lambda change: '-'.join(change.values()))
def test_a_combination_keeps_whole_groups_in_exact_numbers_and_prunes_to_zero(change):
  """Three steps of which the last two renew the masks, or all; every choice of the five parts."""
  density = 0.5 if change['granularity'] == 'n_m' else 0.6
  timing = {'begin_steps': 0, 'end_steps': 3, 'every_steps': 1, 'round_fraction': 0.4}
  timing |= {'density': density, 'parameters': 'kernels', 'floor': 2, 'block': (2, 3)}
  settings = PRUNE | timing | change
  tx = optax.chain(optax.sgd(0.1), build(timing | change))
  group = pruning_links.GRANULARITIES[change['granularity']](settings)

  @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
  def step(params, state, t):
    grad = jax.tree.map(lambda p: jnp.cos(3 * p + t) + 2, params)
    squares = jax.tree.map(jnp.square, grad)
    moved, state = tx.update(grad, state, params, grad=grad, mean_squared_grad=squares)
    return optax.apply_updates(params, moved), state

  params, masks = network(), None
  state = tx.init(params)
  for t in range(4):
    before = masks
    params, state = step(params, state, jnp.float32(t))
    found = jax.device_get(optax.tree.get(state, 'masks'))
    masks = {name: found[name]['kernel'] for name in LAYERS}
    for name, mask in masks.items():
      kernel = np.asarray(params[name]['kernel'])
      assert np.all(np.isfinite(kernel))
      assert np.all(kernel[~mask] == 0)
      assert np.all(np.asarray(params[name]['bias']) != 0)
      if before and change['update_rule'] == 'nested':
        assert not np.any(mask & ~before[name])
  kept, sizes = {}, {}
  for name, mask in masks.items():
    groups = np.asarray(group.mean(jnp.asarray(mask, jnp.float32)))
    assert set(np.unique(groups)) <= {0.0, 1.0}  # whole or gone
    kept[name], sizes[name] = groups.sum(), groups.size
    assert kept[name] >= min(2, groups.size)
  if 'absolute' in change['allocation']:
    return
  if change['density_of'] == 'groups':
    assert sum(kept.values()) == max(
      round(density * sum(sizes.values())), sum(min(2, size) for size in sizes.values())
    )
  else:
    price = costs(change['density_of'])
    groups_cost = {
      name: price.of_weight[f'{name}/kernel'] * masks[name].size / sizes[name] for name in LAYERS
    }
    spent = sum(groups_cost[name] * kept[name] for name in LAYERS)
    least = sum(groups_cost[name] * min(2, sizes[name]) for name in LAYERS)
    assert spent <= max(density * price.total, least) + 1e-3
    assert spent > min(density * price.total, least) - 1e-3
