"""Granularity: pooling and spreading by hand, N:M against a sort, for leaves of any shape."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import (
  cubic,
  proximal_group_l1,
  prune,
  prune_to,
  sparsity_report,
  update_rules,
)
from sparsejax.sparsity.parts.granularity import (
  blocks,
  filters,
  heads,
  in_multiples,
  input_channels,
  n_m,
  weight,
)

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

MATRIX = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # two inputs, three outputs
KERNEL = jnp.arange(8.0).reshape(2, 1, 2, 2)  # HWIO: [[0, 1], [2, 3]] above [[4, 5], [6, 7]]
DEPTHWISE = jnp.ones((3, 3, 1, 2)) * jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2)
VECTOR = jnp.array([3.0, 1.0, 2.0])

GRANULARITIES = {
  'weight': weight(),
  'filters': filters(),
  'input_channels': input_channels(),
  'blocks of 2x3': blocks(2, 3),
  'n_m': n_m(2, 4),
}
SHAPES = [(), (7,), (5, 7), (3, 3, 1, 5), (1, 2, 5, 4)]


# Sums over groups


@pytest.mark.parametrize(
  ('groups', 'values', 'sums'),
  [
    (weight(), MATRIX, MATRIX.tolist()),
    (filters(), MATRIX, [5, 7, 9]),
    (input_channels(), MATRIX, [6, 15]),
    (blocks(1, 2), MATRIX, [[3, 3], [9, 6]]),
    (blocks(2, 2), MATRIX, [[12, 9]]),
    (blocks(4, 4), MATRIX, [[21]]),
    (filters(), KERNEL, [12, 16]),
    (input_channels(), KERNEL, [10, 18]),
    (blocks(2, 2), KERNEL, [[[[6]]], [[[22]]]]),
    (blocks(1, 2), KERNEL, [[[[1], [5]]], [[[9], [13]]]]),
    (filters(), DEPTHWISE, [9, 18]),
    (input_channels(), DEPTHWISE, [27]),
    (blocks(4, 4), DEPTHWISE, np.full((3, 3, 1, 1), 3).tolist()),
    (filters(), VECTOR, [3, 1, 2]),
    (input_channels(), VECTOR, [3, 1, 2]),
    (blocks(4, 2), VECTOR, [[4, 2]]),
    (filters(), jnp.float32(5), 5),
    (input_channels(), jnp.float32(5), 5),
    (blocks(), jnp.float32(5), [[5]]),
  ],
)
def test_pool_sums_the_weights_of_each_group(groups, values, sums):
  assert groups.pool(values).tolist() == sums


@pytest.mark.parametrize(
  ('groups', 'of', 'shape', 'spread'),
  [
    (weight(), [[1, 2]], (1, 2), [[1, 2]]),
    (filters(), [1, 2, 3], (2, 3), [[1, 2, 3], [1, 2, 3]]),
    (input_channels(), [1, 2], (2, 3), [[1, 1, 1], [2, 2, 2]]),
    (blocks(1, 2), [[1, 2], [3, 4]], (2, 3), [[1, 1, 2], [3, 3, 4]]),
    (filters(), [1, 2], (2, 1, 2, 2), [[[[1, 2]] * 2]] * 2),
    (input_channels(), [1, 2], (2, 1, 2, 2), [[[[1, 1], [2, 2]]]] * 2),
    (blocks(2, 2), [[[[1]]], [[[2]]]], (2, 1, 2, 2), [[[[1, 1]] * 2], [[[2, 2]] * 2]]),
    (blocks(4, 2), [[1, 2]], (3,), [1, 1, 2]),
    (blocks(), [[5]], (), 5),
  ],
)
def test_spread_gives_every_weight_the_value_of_its_group(groups, of, shape, spread):
  assert groups.spread(jnp.array(of), shape).tolist() == spread


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('name', GRANULARITIES)
def test_groups_partition_the_weights_and_pool_inverts_spread(name, shape):
  groups = GRANULARITIES[name]
  sizes = groups.pool(jnp.ones(shape))
  assert int(sizes.sum()) == np.prod(shape, dtype=int)
  assert sizes.size == groups.groups(shape)
  values = jnp.arange(1.0, sizes.size + 1).reshape(sizes.shape)  # a number for each group
  spread = groups.spread(values, shape)
  assert spread.shape == shape
  np.testing.assert_array_equal(groups.pool(spread), values * sizes)
  np.testing.assert_array_equal(groups.mean(spread), values)
  found, counts = np.unique(np.asarray(spread), return_counts=True)
  np.testing.assert_array_equal(found, values.ravel())
  np.testing.assert_array_equal(counts, sizes.ravel())


def test_the_mean_does_not_favour_the_larger_of_two_groups():
  # Columns 1 and 2, and column 3: sums 10 and 6, means 2.5 and 3.
  groups = blocks(2, 2)
  values = jnp.array([[3.0, 2.0, 3.0], [3.0, 2.0, 3.0]])
  assert groups.pool(values).tolist() == [[10, 6]]
  assert groups.mean(values).tolist() == [[2.5, 3]]


@pytest.mark.parametrize(
  ('groups', 'shape', 'count'),
  [
    (weight(), (3, 3, 4, 6), 216),
    (filters(), (3, 3, 4, 6), 6),
    (input_channels(), (3, 3, 4, 6), 4),
    (blocks(), (3, 3, 4, 6), 9 * 1 * 2),
    (n_m(2, 4), (3, 3, 4, 6), 216),
  ],
)
def test_the_number_of_groups(groups, shape, count):
  assert groups.groups(shape) == count


def test_granularities_without_a_pattern_keep_the_largest():
  for groups in (weight(), filters(), input_channels(), blocks()):
    assert groups.select(VECTOR, 2).tolist() == [True, False, True]


# N:M


def test_two_of_four_by_hand():
  column = jnp.array([[1.0], [4.0], [2.0], [3.0], [9.0], [8.0], [7.0], [6.0]])
  kept = n_m(2, 4).select(column, 4)
  assert kept.ravel().tolist() == [False, True, False, True, True, True, False, False]


def test_groups_run_along_the_inputs_of_each_output():
  scores = jnp.array([[1.0, 9.0], [2.0, 8.0]])
  assert n_m(1, 2).select(scores, 2).tolist() == [[False, True], [True, False]]


def test_the_channels_of_a_convolution_are_adjacent():
  # (0, 0, c) is one group of two and (0, 1, c) the other; across the width 3 and 4 would stay.
  scores = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
  assert n_m(1, 2).select(scores, 2).ravel().tolist() == [False, True, False, True]


def test_a_remainder_goes_to_the_group_with_the_highest_next_score():
  column = jnp.array([[1.0], [4.0], [3.0], [9.0]])
  assert n_m(1, 2).select(column, 3).ravel().tolist() == [False, True, True, True]


def test_removed_weights_hold_no_place_in_their_group():
  """The first group is removed: the exact number is kept from the second."""
  gone = jnp.array([[-jnp.inf], [-jnp.inf], [1.0], [2.0]])
  select = jax.jit(n_m(1, 2).select)
  assert select(gone, 1).ravel().tolist() == [False, False, False, True]
  assert select(gone, 2).ravel().tolist() == [False, False, True, True]
  assert select(gone, 3)[2:].ravel().tolist() == [True, True]


def test_a_layer_of_ten_classes():
  """Groups of 4, 4 and 2 inputs; at six of ten each keeps two, and the last is whole."""
  scores = jnp.asarray(np.random.default_rng(0).normal(size=(10, 10)), jnp.float32)
  select = jax.jit(n_m(2, 4).select)
  kept = select(scores, 60)
  assert all(part.sum(0).tolist() == [2] * 10 for part in (kept[:4], kept[4:8], kept[8:]))
  assert int(select(scores, 37).sum()) == 37


def by_sorting(scores, count, m):
  """Returns the N:M mask the obvious but slow way: the best of each group, then the second, ..."""
  columns = scores.reshape(-1, scores.shape[-1] if scores.ndim > 1 else 1)
  places = np.zeros(columns.shape, int)
  for start in range(0, len(columns), m):
    order = np.argsort(-columns[start : start + m], axis=0, kind='stable')
    places[start : start + m] = np.argsort(order, axis=0)
  places, flat = places.ravel(), columns.ravel()
  kept = np.zeros(flat.size, bool)
  alive_first = np.lexsort((np.arange(flat.size), -flat, places, flat == -np.inf))
  kept[alive_first[:count]] = True
  return (kept & (flat > -np.inf)).reshape(scores.shape)


@pytest.mark.parametrize('m', [2, 4])
@pytest.mark.parametrize('shape', [(), (7,), (10, 3), (2, 2, 3, 2), (3, 3, 1, 4)])
def test_any_count_is_met_exactly_and_in_every_group_equally(shape, m):
  rng = np.random.default_rng(0)
  size = int(np.prod(shape))
  whole = np.asarray(rng.choice([0.5, 1.0, 2.0, 3.0], shape), np.float32)  # with many ties
  thinned = np.where(rng.random(shape) < 0.4, -np.inf, whole).astype(np.float32)
  select = jax.jit(jax.vmap(n_m(1, m).select, in_axes=(None, 0)))
  for scores in (whole, thinned):
    alive = scores > -np.inf
    for count, found in enumerate(np.asarray(select(scores, np.arange(size + 1)))):
      np.testing.assert_array_equal(found & alive, by_sorting(scores, count, m))
      assert found.sum() == count
  for found in np.asarray(select(whole, np.arange(size + 1))):
    columns = found.reshape(-1, shape[-1] if len(shape) > 1 else 1)
    full = len(columns) // m
    in_full = columns[: full * m].reshape(full, m, columns.shape[1]).sum(1)
    in_last = columns[full * m :].sum(0)
    assert np.max(in_full, initial=0) - np.min(in_full, initial=m) <= 1
    assert np.all(in_last <= np.min(in_full, initial=m) + 1)


# Multiples


def test_a_count_is_rounded_down_to_a_multiple_but_to_at_least_one():
  select = jax.jit(in_multiples(4).select)
  scores = jnp.arange(10.0)
  counts = [int(select(scores, count).sum()) for count in range(11)]
  assert counts == [0, 4, 4, 4, 4, 4, 4, 4, 8, 8, 10]
  assert np.flatnonzero(select(scores, 6)).tolist() == [6, 7, 8, 9]
  assert [int(in_multiples(4).select(jnp.ones(3), n).sum()) for n in range(4)] == [0, 3, 3, 3]


def convolutions():
  rng = np.random.default_rng(0)
  shapes = {'conv1': (3, 3, 2, 24), 'conv2': (3, 3, 24, 40), 'fc': (40, 10)}
  return {k: {'kernel': jnp.asarray(rng.normal(size=s), jnp.float32)} for k, s in shapes.items()}


def alive(params):
  kernels = [layer['kernel'] for layer in params.values()]
  return [int(jnp.any(k != 0, tuple(range(k.ndim - 1))).sum()) for k in kernels]


@pytest.mark.parametrize('sparsity', [0.3, 0.6])
def test_filters_are_left_in_multiples_and_the_target_is_met_from_below(sparsity):
  params = convolutions()
  pruned = prune_to(params, sparsity=sparsity, exclude='fc', granularity=in_multiples(8))
  *convs, head = alive(pruned)
  assert [n % 8 for n in convs] == [0, 0]
  assert head == 10
  assert min(convs) >= 8
  assert sparsity_report(pruned)['sparsity'] >= sparsity


def test_masks_stay_nested_in_multiples():
  """Even when pruned gradually, and when filters are exchanged for others."""
  for rule in (update_rules.nested(), update_rules.set_(0.5, start='criterion')):
    params = convolutions()
    tx = prune(
      cubic(0, 4, 0.3, every=1), granularity=in_multiples(8), exclude='fc', update_rule=rule
    )
    state, left = tx.init(params), []
    for _ in range(5):
      updates, state = tx.update(params, state, params)
      params = optax.apply_updates(params, updates)
      masks = [state.masks[name]['kernel'].all((0, 1, 2)) for name in ('conv1', 'conv2')]
      left.append([int(mask.sum()) for mask in masks])
    assert not np.any(np.array(left) % 8)
    assert np.all(np.diff(left, axis=0) <= 0)
    assert left[0] == [24, 40]
    assert sum(left[-1]) < 40


def test_other_groups_come_in_multiples_too():
  assert in_multiples(2, input_channels()).select(jnp.arange(5.0), 3).tolist() == [
    *[False] * 3,
    *[True] * 2,
  ]
  assert in_multiples(2, heads()).view == 'by_head'


# Filters with their biases and normalisations


def residual_free():
  """Returns two convolutions, each with a bias and a BatchNorm, and a classifier."""
  rng = np.random.default_rng(0)

  def conv(*shape):
    kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {'kernel': kernel, 'bias': jnp.asarray(rng.normal(size=shape[-1:]), jnp.float32)}

  def norm(size):
    return {'scale': jnp.full(size, 0.1), 'bias': jnp.full(size, 0.2)}

  return {
    **{'conv1': conv(3, 3, 2, 8), 'norm1': norm(8), 'conv2': conv(3, 3, 8, 6), 'norm2': norm(6)},
    'head': conv(6, 4),
  }


NORMS = {r'conv(\d)': r'norm\1'}


def channels(layer):
  return {name: np.asarray(leaf != 0).any(tuple(range(leaf.ndim - 1))) for name, leaf in layer}


def test_a_removed_filter_takes_its_bias_scale_and_shift_with_it():
  params = residual_free()
  pruned, masks = prune_to(
    params,
    sparsity=0.5,
    granularity=filters(bias=True, norms=NORMS),
    exclude='head',
    return_masks=True,
  )
  gone = 0
  for i in '12':
    leaves = [*pruned[f'conv{i}'].items(), *pruned[f'norm{i}'].items()]
    alive = [mask.tolist() for mask in channels(leaves[:2]).values()]
    alive += [mask.tolist() for mask in channels(leaves[2:]).values()]
    assert all(mask == alive[0] for mask in alive)
    gone += alive[0].count(False)
    assert masks[f'norm{i}']['scale'].tolist() == alive[0]
  assert gone
  np.testing.assert_array_equal(pruned['head']['bias'], params['head']['bias'])


def test_the_bias_alone_and_only_where_it_is_asked_for():
  params = residual_free()
  with_bias = prune_to(params, sparsity=0.5, granularity=filters(bias=True))
  assert bool(jnp.all(with_bias['norm1']['scale'] != 0))
  for name in ('conv1', 'conv2', 'head'):
    kernel, bias = channels(with_bias[name].items()).values()
    np.testing.assert_array_equal(kernel, bias)
  without = prune_to(params, sparsity=0.5, granularity=filters())
  assert all(bool(jnp.all(without[name]['bias'] != 0)) for name in ('conv1', 'conv2', 'head'))


def test_the_score_is_the_mean_over_all_leaves_of_a_filter():
  """By the kernel alone the second filter would be removed, but its bias is large."""
  params = {'fc': {'kernel': jnp.array([[2.0, 1.0]]), 'bias': jnp.array([0.0, 9.0])}}
  pruned = prune_to(params, sparsity=0.5, granularity=filters(bias=True))
  assert pruned['fc']['kernel'].tolist() == [[0.0, 1.0]]


def test_a_removed_channel_stays_removed_in_training_and_in_multiples():
  params = residual_free()
  tx = prune(
    cubic(0, 2, 0.5, every=1),
    granularity=in_multiples(2, filters(bias=True, norms=NORMS)),
    parameters='all',
    exclude='head',
    inner=optax.sgd(0.1, momentum=0.9),
  )
  state = tx.init(params)
  for _ in range(4):
    updates, state = jax.jit(tx.update)(params, state, params)
    params = optax.apply_updates(params, updates)
  for i in '12':
    leaves = [*params[f'conv{i}'].items(), ('scale', params[f'norm{i}']['scale'])]
    alive = [mask.tolist() for mask in channels(leaves).values()]
    assert alive[0] == alive[1] == alive[2]
    assert alive[0].count(True) in (2, 4, 6)


@pytest.mark.parametrize('name', ['equinox', 'stacked'])
def test_outputs_may_be_on_any_axis(name):
  if name == 'equinox':
    told = {'weight': 'out in position position', 'bias': 'out position position'}
    weight = jnp.arange(1.0, 25.0).reshape(4, 6, 1, 1)
    params = {'c': {'weight': weight, 'bias': jnp.ones((4, 1, 1))}}
  else:
    told = {'w': 'stack in out', 'b': 'stack out'}
    params = {'c': {'w': jnp.arange(1.0, 25.0).reshape(2, 3, 4), 'b': jnp.ones((2, 4))}}
  pruned = prune_to(params, sparsity=0.5, granularity=filters(bias=True), layouts=told)
  kernel, bias = sorted(pruned['c'].values(), key=lambda leaf: -leaf.size)
  axes = (1, 2, 3) if name == 'equinox' else (1,)
  alive = np.asarray(kernel != 0).any(axes)
  np.testing.assert_array_equal(alive.ravel(), np.asarray(bias != 0).ravel())
  assert alive.sum() == alive.size // 2


@pytest.mark.parametrize(
  ('norms', 'message'),
  [
    (
      {'conv9': 'norm1'},
      "norms: 'conv9' must match the module of a kernel that is pruned: did you mean",
    ),
    (
      {'conv1': 'nrm1'},
      "norms: 'nrm1', given for 'conv1', must hold a parameter: did you mean",
    ),
    (
      {'conv.': 'norm1'},
      "norms: 'norm1/bias' belongs to 'conv1/kernel' and 'conv2/kernel'",
    ),
    (
      {'conv1': 'norm2'},
      "granularity filters: 'norm2/bias' has 6 channels and must have 8, the number of filters of",
    ),
  ],
)
def test_missing_normalisations_are_refused(norms, message):
  with pytest.raises(ValueError) as error:
    prune_to(residual_free(), sparsity=0.5, granularity=filters(norms=norms))
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)


def test_the_group_lasso_is_of_one_leaf():
  with pytest.raises(ValueError, match='groups over several leaves'):
    proximal_group_l1(1.0, 0.1, granularity=filters(bias=True))


# Bad arguments


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: blocks(0, 4), 'blocks of 0x4: both must be 1 or more'),
    (lambda: blocks(4, -1), 'blocks of 4x-1: both must be 1 or more'),
    (lambda: blocks(2.5, 4), 'blocks: inputs=2.5 must be an integer'),
    (lambda: blocks(4, None), 'blocks: outputs=None must be an integer'),
    (
      lambda: filters(norms='bn'),
      "norms='bn' must be a dict of modules, such as {'conv1': 'norm1'}",
    ),
    (lambda: filters(norms={'a': 1}), "norms={'a': 1} must have strings, the paths of modules"),
    (lambda: in_multiples(2.5), 'in_multiples: number=2.5 must be an integer'),
    (lambda: in_multiples(0), 'in_multiples: number=0 must be 1 or more'),
    (
      lambda: in_multiples(8, n_m(2, 4)),
      'in_multiples: granularity n_m must have whole groups, as filters() does',
    ),
    (lambda: n_m(2, 4.0), 'n_m: m=4.0 must be an integer'),
    (lambda: n_m(1, 1), 'N:M sparsity with n=1, m=1: m must be 2 or more, and n from 1 to m'),
    (lambda: n_m(5, 4), 'N:M sparsity with n=5, m=4: m must be 2 or more, and n from 1 to m'),
  ],
)
def test_groups_of_no_size_are_refused(make, message):
  with pytest.raises(ValueError) as error:
    make()
  assert str(error.value) == message
