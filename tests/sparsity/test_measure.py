"""Every figure of a report equals the one counted by hand, on small networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import granularity, one_shot, prune, prune_to
from sparsejax.sparsity.counting import measure
from sparsejax.sparsity.leaves import tree

NETWORK = {
  'conv1': {
    'kernel': jnp.array([1.0, 0.0, -3.0, 0.0]).reshape(2, 2, 1, 1),
    'bias': jnp.array([0.0]),
  },
  'bn1': {'scale': jnp.array([1.0]), 'bias': jnp.array([0.0])},
  'head': {'kernel': jnp.array([[0.0, 0.0, 5e-4]]), 'bias': jnp.array([0.0, 1.0, -1.0])},
}


def test_report_by_hand():
  assert measure.report(NETWORK, {'conv1': 9, 'head': 1}) == {
    'parameters': 13,
    'active_parameters': 6,
    'weights': 7,
    'active_weights': 3,
    'active_fraction': 6 / 13,
    'scales': 1,
    'active_scales': 1,
    'sparsity': 1 - 3 / 7,
    'compression': 7 / 3,
    'layers': {
      'conv1': {'weights': 4, 'active_weights': 2, 'units': 1, 'active_units': 1},
      'head': {'weights': 3, 'active_weights': 1, 'units': 3, 'active_units': 1},
    },
    'macs': 9 * 4 + 3,
    'active_macs': 9 * 2 + 1,
    'theoretical_speedup': 39 / 19,
  }


def test_without_positions_no_operations_are_counted():
  assert not {'macs', 'active_macs', 'theoretical_speedup'} & measure.report(NETWORK).keys()


def test_figures_are_plain_numbers_for_json():
  for value in measure.report(NETWORK, {'conv1': 9, 'head': 1}).values():
    assert type(value) in (int, float, dict)


def test_a_network_without_weights_has_infinite_compression():
  gone = jax.tree.map(jnp.zeros_like, NETWORK)
  figures = measure.report(gone, {'conv1': 9, 'head': 1})
  assert figures['sparsity'] == 1
  assert figures['active_parameters'] == 0
  assert figures['compression'] == figures['theoretical_speedup'] == float('inf')


def test_layers_sum_to_the_whole_even_with_several_kernels():
  cell = {'gru': {'w_i': jnp.ones((2, 6)), 'w_h': jnp.zeros((2, 6)), 'b': jnp.ones(6)}}
  figures = measure.report(cell, {'gru': 5})
  assert figures['weights'] == 24
  assert figures['layers'] == {
    'gru': {'weights': 24, 'active_weights': 12, 'units': 12, 'active_units': 6}
  }
  assert figures['macs'] == 5 * 24


def test_a_kernel_outside_any_layer_is_its_own():
  figures = measure.report({'first': jnp.ones((2, 2)), 'second': jnp.zeros((2, 3))})
  assert figures['layers'] == {
    'first': {'weights': 4, 'active_weights': 4, 'units': 2, 'active_units': 2},
    'second': {'weights': 6, 'active_weights': 0, 'units': 3, 'active_units': 0},
  }


def test_count_above_counts_absolute_values_strictly_above():
  counts = measure.count_above(NETWORK, (0.0, measure.NEARLY_ZERO, 1.0))
  assert counts.dtype == jnp.int32
  assert counts.tolist() == [6, 5, 1]


def test_counts_are_the_same_under_jit():
  counted = jax.jit(lambda params: measure.count_above(params, (0.0, 1.0)))(NETWORK)
  np.testing.assert_array_equal(counted, measure.count_above(NETWORK, (0.0, 1.0)))
  assert jax.device_get(jax.jit(measure.count_active)(NETWORK)) == {
    'bn1/bias': 0,
    'bn1/scale': 1,
    'conv1/bias': 0,
    'conv1/kernel': 2,
    'head/bias': 2,
    'head/kernel': 1,
  }


def test_weights_are_active_unless_exactly_zero():
  tiny = jnp.array([[2e-38, -0.0, jnp.nan]])  # subnormals are zero to XLA on CPU
  assert measure.report({'w': {'kernel': tiny}})['active_weights'] == 2


def test_only_floating_leaves_are_counted():
  params = {'w': jnp.ones((2, 2), jnp.bfloat16), 'seed': jnp.ones(3, jnp.uint32)}
  assert measure.sizes(params) == {'w': 4}
  assert measure.count_above(params, (0.0,)).tolist() == [4]


def models():
  return eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(0))


def test_count_macs_says_which_arguments_it_needs():
  x, (of_equinox, of_nnx) = jnp.ones(2), models()
  for arguments, message in (
    ((NETWORK,), r'^count_macs\(params, positions\): positions must be a dict'),
    ((NETWORK, x), r'^count_macs\(params, positions\): positions must be a dict'),
    ((of_equinox, of_equinox, x), r'^count_macs: of=MLP\(\.\.\.\), .* must be a function of'),
    ((of_nnx, x), r'^count_macs: of=Linear\(\.\.\.\), .* must be a function of'),
    ((lambda params: params,), r'^count_macs\(function\) must be given the params'),
  ):
    with pytest.raises(ValueError, match=message) as error:
      measure.count_macs(*arguments)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'take',
  [
    measure.report,
    lambda model: prune_to(model, sparsity=0.5),
    lambda model: prune_to(model, sparsity=0.5, granularity=granularity.filters()),
    lambda model: prune(one_shot(0, 0.5)).init(model),
  ],
)
def test_a_model_with_functions_among_its_leaves_is_refused(take):
  model, _ = models()
  with pytest.raises(ValueError, match=r"^'activation' is the function relu and must be"):
    take(model)
  take(eqx.filter(model, eqx.is_array))


def test_a_report_needs_concrete_parameters():
  with pytest.raises(ValueError, match="has 'batch_stats' beside 'params': give it variables"):
    measure.report({'params': NETWORK, 'batch_stats': {'bn1': {'mean': jnp.ones(1)}}})
  stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), NETWORK)
  with pytest.raises(ValueError, match="needs concrete arrays, but 'bn1/bias' is traced: call it"):
    jax.vmap(measure.report)(stacked)


def test_scales_of_every_library_are_found():
  equinox = eqx.filter({'n': eqx.nn.LayerNorm(24), 'l': models()[0]}, eqx.is_array)
  flax = nnx.split(nnx.List([nnx.LayerNorm(24, rngs=nnx.Rngs(0)), models()[1]]), nnx.Param)[1]
  for params in (equinox, flax):
    found = measure.report(params)
    assert (found['scales'], found['active_scales']) == (24, 24)
  linear = eqx.nn.WeightNorm(eqx.nn.Linear(6, 4, key=jax.random.key(0)))
  found = measure.report(eqx.filter(linear, eqx.is_array))
  assert (found['weights'], found['scales']) == (24, 4)  # g, of shape (4, 1)


@pytest.mark.parametrize('dtype', [jnp.int8, jnp.complex64])
def test_kernels_that_are_not_floating_point_are_refused_by_name(dtype):
  params = {'fc': {'w': jnp.ones((2, 3), dtype), 'n': jnp.ones((), jnp.int32)}}
  name = jnp.dtype(dtype).name
  with pytest.raises(ValueError, match=rf"'fc/w' has dtype {name} and must have a floating one"):
    measure.count_macs(lambda p, x: x @ p['fc']['w'], params, jnp.ones((1, 2), dtype))
  with pytest.raises(ValueError, match=rf"'fc/w' has dtype {name} and must have a floating one"):
    measure.count_macs(params, {'fc': 1})
  beside = {'fc': {'kernel': jnp.ones((2, 3)), 'index': jnp.ones((4, 4), jnp.int32)}}
  assert measure.count_macs(beside, {'fc': 1})['macs'] == 6
  with pytest.raises(ValueError, match=rf'fc/w \(2, 3\) {name} is a kernel.* a floating dtype'):
    tree.choose(params)
  params['out'] = jnp.ones((3, 2))
  counted = measure.count_macs(lambda p, x: p['fc']['n'] * (x @ p['out']), params, jnp.ones((1, 3)))
  assert counted['macs'] == 6


@pytest.mark.parametrize(
  ('path', 'layer'), [('a/b/kernel', 'a/b'), ('fc/bias', 'fc'), ('kernel', 'kernel')]
)
def test_the_layer_that_owns_a_parameter(path, layer):
  assert measure.layer_of(path) == layer


def test_counts_are_right_beyond_the_integers_of_the_device():
  """In int8, up to 127, each of three slices of 100 fits, but not their sum of 299."""
  params = {'w': jnp.ones((3, 100)).at[0, 0].set(0.0), 'b': jnp.ones(()), 'n': jnp.arange(3)}
  for dtype in (jnp.int8, jnp.int32):
    assert measure._active_sizes(params, dtype) == {'b': 1, 'w': 299}
