"""Allocation: integers for each layer whose sum is exact, planned in float64 on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax
from sparsejax import granularity, one_shot
from sparsejax.sparsity.counting.costs import Costs, Layer, mac_costs, weight_costs
from sparsejax.sparsity.leaves import layout
from sparsejax.sparsity.parts import allocation

quick = settings(deadline=None, max_examples=100, derandomize=True, database=None)

RESNET50 = 23_520_842  # parameters of the log's network
FRACTIONS = {0.05: 1_176_042, 0.01: 235_208, 0.005: 117_604, 0.001: 23_521}


def sorted_reference(scores: np.ndarray, count: int) -> np.ndarray:
  """Returns the same counts by a stable sort, the obvious but slow way."""
  kept = np.zeros(scores.size, bool)
  kept[np.argsort(-scores, kind='stable')[:count]] = True
  return kept


def layers_of(sizes):
  """Returns layers that are vectors of these sizes, pruned by single weights."""
  return tuple(Layer(str(i), (int(size),), int(size)) for i, size in enumerate(sizes))


# The plan, on the host


@pytest.mark.parametrize(('fraction', 'total'), FRACTIONS.items())
def test_totals_of_a_network_of_23_million_are_exact(fraction, total):
  sizes = [9_408, 2_359_296, RESNET50 - 9_408 - 2_359_296 - 64, 64]
  assert allocation.total_to_keep(sizes, fraction, floor=1) == total
  assert allocation.global_rank().plan(layers_of(sizes), fraction, 1).tolist() == [0, total]
  counts = allocation.uniform().plan(layers_of(sizes), fraction, 1)
  assert counts.sum(dtype=np.int64) == total
  np.testing.assert_allclose(counts, fraction * np.array(sizes), atol=1.1)


def test_every_target_of_a_long_schedule_is_exact():
  """A float32 product of 23.5 million and a fraction is exact to one or two units only."""
  sizes = [RESNET50 // 3, RESNET50 // 3, RESNET50 - 2 * (RESNET50 // 3)]
  wrong = 0
  for density in np.linspace(0.0012345, 1, 200):
    exact = round(density * RESNET50)
    assert allocation.global_rank().plan(layers_of(sizes), density, 1).tolist() == [0, exact]
    assert allocation.uniform().plan(layers_of(sizes), density, 1).sum(dtype=np.int64) == exact
    wrong += exact != round(float(np.float32(density) * np.float32(RESNET50)))
  assert wrong > 50


def test_a_whole_and_an_empty_network():
  for plan in (allocation.uniform().plan, allocation.global_rank().plan):
    assert plan(layers_of([RESNET50, 7]), 1.0, 1).sum() == RESNET50 + 7
    assert plan(layers_of([10, 7]), 0.0, 0).sum() == 0
    assert plan(layers_of([10, 7]), 0.0, 1).sum() == 2


@pytest.mark.parametrize('density', [-0.1, 1.5, 5.0, float('nan')])
@pytest.mark.parametrize('rule', [allocation.uniform, allocation.global_rank])
def test_a_fraction_outside_0_to_1_is_refused_by_value(rule, density):
  with pytest.raises(ValueError, match=rf'density={density} must be an active fraction'):
    rule().plan(layers_of([10, 10]), density, 1)


def test_uniform_by_hand():
  plan = allocation.uniform().plan
  assert plan(layers_of([10, 10, 5]), 0.5, 1).tolist() == [5, 5, 2]
  assert plan(layers_of([100, 100, 2]), 0.1, 1).tolist() == [
    10,
    9,
    1,
  ]  # one for the floor
  assert plan(layers_of([90, 10]), 0.01, 3).tolist() == [3, 3]
  assert plan(layers_of([90, 2]), 0.01, 3).tolist() == [3, 2]


sizes_strategy = st.lists(st.integers(1, 5_000), min_size=1, max_size=12)


@quick
@given(sizes=sizes_strategy, density=st.floats(0, 1), floor=st.integers(0, 20))
def test_uniform_is_exact_within_its_bounds_and_close_to_the_fraction(sizes, density, floor):
  counts = allocation.uniform().plan(layers_of(sizes), density, floor)
  sizes = np.array(sizes)
  lowest = np.minimum(sizes, floor)
  assert counts.sum() == max(round(density * sizes.sum()), lowest.sum())
  assert np.all((lowest <= counts) & (counts <= sizes))
  if floor == 0:
    # One rate fits all counts within half a weight; it differs from the density by rounding.
    slack = 0.5 + len(sizes) * sizes / sizes.sum()
    assert np.all(np.abs(counts - density * sizes) <= slack + 1e-9)


@quick
@given(sizes=sizes_strategy, densities=st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_uniform_gives_no_layer_more_when_the_density_falls(sizes, densities):
  rows = [
    allocation.uniform().plan(layers_of(sizes), t, 2) for t in sorted(densities, reverse=True)
  ]
  assert np.all(np.diff(np.array(rows), axis=0) <= 0)


def test_apportion_shares_by_weight_within_bounds():
  zeros, many = np.zeros(3, int), np.full(3, 99)
  weights = np.array([6.0, 3.0, 1.0])
  assert allocation.apportion(weights, 20, zeros, many).tolist() == [12, 6, 2]
  # The excess of a full layer goes to the others, still two to one.
  assert allocation.apportion(weights[[1, 0, 2]], 20, zeros, np.array([99, 8, 99])).tolist() == [
    9,
    8,
    3,
  ]
  assert allocation.apportion(np.ones(3), 4, zeros, many).tolist() == [2, 1, 1]


# The counts, on the device


def counted(rule, scores, row, floor, sizes=None):
  """Returns the counts of leaves that hold one layer each."""
  sizes = sizes or [1] * len(scores)
  return [n[0] for n in rule.counts([score[None] for score in scores], row, floor, sizes)]


GLOBAL_RANK, ABSOLUTE_THRESHOLD = allocation.global_rank(), allocation.absolute_threshold()
COMPILED = {
  rule: jax.jit(
    lambda scores, row, floor, rule=rule: counted(rule, scores, row, floor), static_argnums=2
  )
  for rule in (GLOBAL_RANK, ABSOLUTE_THRESHOLD)
}


def counts_of(rule, scores, density, floor):
  row = jnp.asarray(rule.plan(layers_of([s.size for s in scores]), density, floor))
  counts = COMPILED[rule](scores, row, floor)
  assert all(count.shape == () and count.dtype == jnp.int32 for count in counts)
  return [int(count) for count in counts]


def test_global_rank_by_hand():
  scores = [jnp.array([5.0, 1.0, 4.0]), jnp.array([[2.0, 9.0], [3.0, 0.5]]), jnp.array([0.1])]
  assert counts_of(GLOBAL_RANK, scores, 0.5, 0) == [2, 2, 0]  # 9 5 4 3
  assert counts_of(GLOBAL_RANK, scores, 0.5, 1) == [2, 1, 1]  # 9 5 4, and 0.1 by the floor
  assert counts_of(GLOBAL_RANK, scores, 0.0, 1) == [1, 1, 1]
  assert counts_of(GLOBAL_RANK, scores, 0.0, 2) == [2, 2, 1]
  assert counts_of(GLOBAL_RANK, scores, 1.0, 1) == [3, 4, 1]


def test_global_rank_takes_the_first_of_equals():
  assert counts_of(GLOBAL_RANK, [jnp.zeros(3), jnp.zeros(3)], 0.5, 0) == [3, 0]
  assert counts_of(GLOBAL_RANK, [jnp.zeros(3), jnp.zeros(3)], 0.5, 1) == [2, 1]


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(
  seed=st.integers(0, 99),
  ties=st.booleans(),
  density=st.floats(0, 1),
  floor=st.sampled_from([0, 1, 3]),
)
def test_global_rank_is_the_ranking_of_all_scores(seed, ties, density, floor):
  rng = np.random.default_rng(seed)
  scores = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 5), (7,), (2, 2, 3), (1,))]
  scores = [np.round(s) if ties else s for s in scores]
  counts = counts_of(GLOBAL_RANK, scores, density, floor)
  total = max(round(density * 40), sum(min(s.size, floor) for s in scores))
  assert sum(counts) == total
  assert all(n >= min(s.size, floor) for n, s in zip(counts, scores, strict=True))
  if floor == 0:
    kept = sorted_reference(np.concatenate([s.ravel() for s in scores]), total)
    assert counts == [k.sum() for k in np.split(kept, np.cumsum([20, 7, 12]))]


def test_absolute_threshold_keeps_scores_strictly_above_it():
  scores = [jnp.array([0.02, 0.03, 0.01]), jnp.array([0.0, 0.02]), jnp.array([0.5, 0.6])]
  assert counts_of(ABSOLUTE_THRESHOLD, scores, 0.02, 0) == [1, 0, 2]
  assert counts_of(ABSOLUTE_THRESHOLD, scores, 0.02, 1) == [1, 1, 2]
  assert counts_of(ABSOLUTE_THRESHOLD, scores, 0.02, 5) == [3, 2, 2]


def test_a_threshold_may_be_any_number():
  """Scores such as -log alpha need negative thresholds; removed weights stay below."""
  scores = [jnp.array([-2.0, -4.0, -jnp.inf])]
  assert counts_of(ABSOLUTE_THRESHOLD, scores, -3.0, 0) == [1]


# Erdos-Renyi-Kernel


def kernels_of(**shapes):
  return tuple(Layer(name, shape, int(np.prod(shape))) for name, shape in shapes.items())


def test_erk_of_lenet_300_100_at_a_tenth():
  layers = kernels_of(fc1=(784, 300), fc2=(300, 100), fc3=(100, 10))
  counts = allocation.erk().plan(layers, 0.1, 1)
  densities = counts / np.array([layer.groups for layer in layers])
  np.testing.assert_allclose(densities, [0.0796, 0.2302, 1], atol=5e-5)
  assert counts.sum() == round(0.1 * 266_200)


def test_erk_counts_the_sides_of_a_kernel_and_a_depthwise_one_has_a_single_input():
  layers = kernels_of(conv=(3, 3, 8, 16), depthwise=(3, 3, 1, 64), dense=(40, 50))
  counts = allocation.erk().plan(layers, 0.05, 0)
  rates = counts / np.array([3 + 3 + 8 + 16, 3 + 3 + 1 + 64, 40 + 50])
  np.testing.assert_allclose(rates, rates.mean(), rtol=0.02)


def test_erk_gives_a_scalar_the_density_of_a_vector_of_one():
  """The kernels share 799 as the sums of their sides, 64 to 52, and the scalar stays."""
  plan = allocation.erk().plan
  as_scalar = plan(kernels_of(a=(32, 32), c=(16, 36), t=()), 0.5, 1).tolist()
  as_vector = plan(kernels_of(a=(32, 32), c=(16, 36), t=(1,)), 0.5, 1).tolist()
  assert as_scalar == as_vector == [441, 358, 1]
  params = {'a': jnp.ones((32, 32)), 'c': jnp.ones((16, 36)), 't': jnp.ones(())}
  tx = sparsejax.prune(one_shot(0, 0.5), parameters='all', allocation=allocation.erk())
  masks = tx.update(params, tx.init(params), params)[1].masks
  assert [int(mask.sum()) for mask in masks.values()] == as_scalar


EMPTY = {'a': (4, 5), 'none': (0, 4), 'no_unit': (4, 0), 'c': (5, 2)}
RULES = {
  'global_rank': allocation.global_rank(),
  'uniform': allocation.uniform(),
  'erk': allocation.erk(),
  'absolute_threshold': allocation.absolute_threshold(),
}


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize(
  'parts', [granularity.weight(), granularity.filters(), granularity.blocks(2, 2)]
)
def test_empty_leaves_change_nothing(rule, parts):
  rng = np.random.default_rng(0)
  params = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in EMPTY.items()}

  def masks(params):
    tx = sparsejax.prune(one_shot(0, 0.5), allocation=RULES[rule], granularity=parts)
    updates, state = tx.update(params, tx.init(params), params)
    assert {name: u.shape for name, u in updates.items()} == {n: EMPTY[n] for n in params}
    return state.masks

  full, alone = masks(params), masks({name: params[name] for name in 'ac'})
  for name in 'ac':
    np.testing.assert_array_equal(full[name], alone[name])
  masks({'none': params['none']})


@pytest.mark.parametrize('rule', [allocation.global_rank, allocation.uniform, allocation.erk])
@pytest.mark.parametrize('parts', [None, granularity.filters()])
def test_prune_to_leaves_empty_leaves_unchanged(rule, parts):
  params = {'a': jnp.arange(1.0, 21.0).reshape(4, 5), 'none': jnp.ones((0, 4))}
  pruned = sparsejax.prune_to(params, sparsity=0.6, allocation=rule, granularity=parts)
  assert int(jnp.sum(pruned['a'] != 0)) == 8
  empty = {'none': params['none']}
  assert sparsejax.prune_to(empty, sparsity=0.6, allocation=rule)['none'].shape == (0, 4)


def test_plans_of_layers_without_a_group():
  layers = kernels_of(a=(4, 5), none=(0, 4))
  for rule in (allocation.uniform, allocation.erk):
    assert rule().plan(layers, 0.5, 1).tolist() == [10, 0]
    assert rule().plan((), 0.5, 1).tolist() == []


# Targets of the whole network


def network_costs(shapes, positions=None):
  params = {name: {'kernel': np.empty(shape)} for name, shape in shapes.items()}
  return weight_costs(params) if positions is None else mac_costs(params, positions)


def test_costs_take_layouts_as_prune_does():
  """A leaf without inputs is no kernel."""
  params = {'w': jnp.ones((3, 4)), 'alpha': jnp.ones((3, 4))}
  for layouts in ({'alpha': 'stack out'}, {'alpha': layout.Layout('stack out')}):
    assert weight_costs(params, layouts) == ({'alpha': 0, 'w': 1}, 12)
    assert mac_costs(params, {'w': 5}, layouts) == ({'alpha': 0, 'w': 5}, 60)


SHAPES = {'conv': (3, 3, 4, 8), 'wide': (8, 100), 'head': (100, 10)}
POSITIONS = {'conv': 64, 'wide': 1, 'head': 1}


def layers_by_filter(*names):
  return tuple(Layer(f'{name}/kernel', SHAPES[name], SHAPES[name][-1]) for name in names)


@pytest.mark.parametrize('rule', [allocation.uniform, allocation.erk, allocation.global_rank])
@pytest.mark.parametrize('positions', [None, POSITIONS])
@pytest.mark.parametrize('density', [0.9, 0.6])
def test_a_share_of_the_whole_networks_cost_is_used_up_and_not_exceeded(rule, positions, density):
  """Filters have different sizes, and the head costs but is not pruned."""
  costs = network_costs(SHAPES, positions)
  layers = layers_by_filter('conv', 'wide')
  rng = np.random.default_rng(0)
  scores = [jnp.asarray(rng.uniform(size=n.groups), jnp.float32) for n in layers]
  row = jnp.asarray(rule(costs).plan(layers, density, 1))
  sizes = [layer.weights // layer.groups for layer in layers]
  counts = [int(n) for n in counted(rule(costs), scores, row, 1, sizes)]
  prices = [costs.price(n) * size for n, size in zip(layers, sizes, strict=True)]
  spent = np.dot(counts, prices) + costs.of_weight['head/kernel'] * 1000
  if positions is None:
    assert prices == [36, 8]
    assert costs.total == 288 + 800 + 1000
  else:
    assert prices == [36 * 64, 8]
    assert costs.total == 288 * 64 + 800 + 1000
  assert density * costs.total - max(prices) < spent <= density * costs.total
  assert min(counts) >= 1


def test_a_target_below_the_cost_of_other_layers_is_refused():
  costs = network_costs(SHAPES)
  with pytest.raises(ValueError, match=r'must be more than 0\.4789, .* not pruned \(head/kernel\)'):
    allocation.uniform(costs).plan(layers_by_filter('conv', 'wide'), 0.4, 1)


def test_a_layer_of_unknown_cost_is_named():
  with pytest.raises(ValueError, match="costs must have an entry for 'conv/kernel'; "):
    allocation.erk(Costs({'a': 1}, 10)).plan(layers_by_filter('conv'), 0.5, 1)


# By layer


def by_path(**shapes):
  return {name: jnp.arange(1.0, 1 + np.prod(s)).reshape(s) for name, s in shapes.items()}


def test_by_layer_uses_the_first_match_and_keeps_other_layers_whole():
  params = by_path(conv_a=(4, 5), conv_b=(4, 5), fc=(4, 5))
  tx = sparsejax.prune(sparsejax.cubic(0, 2, {'b$': 0.25, '^conv': 0.5}, every=1))
  state = tx.init(params)
  kept = []
  for _ in range(3):
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    params = optax.apply_updates(params, updates)
    kept.append([int((leaf != 0).sum()) for leaf in params.values()])
  assert kept == [[20, 20, 20], [11, 7, 20], [10, 5, 20]]
  assert params['conv_a'].ravel()[-10:].tolist() == list(range(11, 21))


def test_by_layer_goes_with_groups_and_with_rules_that_grow():
  params = by_path(first=(4, 8), other=(4, 8))
  tx = sparsejax.prune(
    sparsejax.periodic(0, 3, {'first': 0.5, 'other': 0.25}, every=1),
    granularity=sparsejax.granularity.filters(),
    update_rule=sparsejax.update_rules.set_(0.5),
    layouts={'.': 'in out'},
    inner=optax.sgd(0.1),
  )
  state = tx.init(params)
  for _ in range(3):
    _, state = tx.update(params, state, params)
    assert [int(mask.all(0).sum()) for mask in state.masks.values()] == [4, 2]


def test_by_layer_keeps_a_floor():
  pruned = sparsejax.prune_to(by_path(a=(4, 5)), sparsity={'a': 0.99}, floor=3)
  assert int((pruned['a'] != 0).sum()) == 3


def test_by_layer_leaves_no_choice_of_an_allocation():
  with pytest.raises(ValueError, match=r'^densities by layer leave nothing to allocate'):
    sparsejax.prune(sparsejax.one_shot(0, {'a': 0.5}), allocation=allocation.uniform())
  with pytest.raises(ValueError, match=r'^allocation by_layer must have densities by layer, as in'):
    sparsejax.prune(sparsejax.one_shot(0, 0.5), allocation=allocation.by_layer())
