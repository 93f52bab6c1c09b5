"""prune_to: a single call, whose density is that of the whole network."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax
from sparsejax import allocation, criteria, granularity, prune_to, sparsity_report
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

POSITIONS = {'conv': 64, 'fc': 1, 'head': 1}


def network():
  rng = np.random.default_rng(0)
  shapes = {'conv': (3, 3, 4, 16), 'fc': (64, 50), 'head': (50, 10)}
  return {
    name: {
      'kernel': jnp.asarray(rng.normal(size=shape), jnp.float32),
      'bias': jnp.ones(shape[-1]),
    }
    for name, shape in shapes.items()
  }


TOTAL = 576 + 3200 + 500


@pytest.mark.parametrize('rule', [allocation.global_rank, allocation.uniform, allocation.erk])
@pytest.mark.parametrize('exclude', [(), ('^head',)])
def test_the_sparsity_of_the_network_is_exact(rule, exclude):
  params = network()
  pruned = prune_to(params, sparsity=0.8, allocation=rule, exclude=exclude)
  assert sparsity_report(pruned)['active_weights'] == round(0.2 * TOTAL)
  heads = pruned['head']['kernel'], params['head']['kernel']
  assert bool(jnp.all(heads[0] == heads[1])) == bool(exclude)
  for layer, before in zip(pruned.values(), params.values(), strict=True):
    np.testing.assert_array_equal(layer['bias'], before['bias'])
    changed = layer['kernel'] != before['kernel']
    assert not bool(jnp.any(layer['kernel'][changed]))


def test_compression_is_another_form_of_sparsity():
  assert sparsity_report(prune_to(network(), compression=5.0))['active_weights'] == round(TOTAL / 5)


def active(params):
  return {name: int((layer['kernel'] != 0).sum()) for name, layer in params.items()}


@pytest.mark.parametrize('parts', [None, granularity.filters()])
def test_layers_may_have_their_own_targets(parts):
  pruned = prune_to(network(), sparsity={'^conv': 0.5, 'fc': 0.9}, granularity=parts)
  assert active(pruned) == {'conv': 288, 'fc': 320, 'head': 500}
  pruned = prune_to(network(), compression={'head': 5, '.*': 2}, granularity=parts)
  assert active(pruned) == {'conv': 288, 'fc': 1600, 'head': 100}


@pytest.mark.parametrize('exclude', [(), ('^head',)])
@pytest.mark.parametrize('parameters', [1000, 3333, TOTAL + 76])
def test_a_target_of_parameters_counts_the_whole_network(parameters, exclude):
  pruned = prune_to(network(), parameters=parameters, exclude=exclude)
  assert sparsity_report(pruned)['active_parameters'] == parameters


def test_masks_are_returned_on_request():
  params = network()
  pruned, masks = prune_to(params, sparsity=0.8, exclude='head', return_masks=True)
  jax.tree.map(np.testing.assert_array_equal, pruned, sparsejax.apply_masks(params, masks))
  jax.tree.map(
    np.testing.assert_array_equal, pruned, prune_to(params, sparsity=0.8, exclude='head')
  )
  shapes = {path: mask.shape for path, mask in tree.named_leaves(masks).items()}
  whole = dict.fromkeys(('conv/bias', 'fc/bias', 'head/bias', 'head/kernel'), ())
  assert shapes == {'conv/kernel': (3, 3, 4, 16), 'fc/kernel': (64, 50)} | whole
  assert (
    int(masks['conv']['kernel'].sum() + masks['fc']['kernel'].sum()) == round(0.2 * TOTAL) - 500
  )


@pytest.mark.parametrize('rule', [allocation.global_rank, allocation.uniform, allocation.erk])
@pytest.mark.parametrize('parts', [None, granularity.filters()])
@pytest.mark.parametrize('share', [0.5, 0.2])
def test_macs_are_used_up_and_not_exceeded(rule, parts, share):
  pruned = prune_to(network(), macs=share, positions=POSITIONS, allocation=rule, granularity=parts)
  report = sparsity_report(pruned, POSITIONS)
  dearest = 64 * (1 if parts is None else 36)
  assert share * report['macs'] - dearest < report['active_macs'] <= share * report['macs']
  figures = sparsejax.count_macs(pruned, POSITIONS)
  assert figures == {name: report[name] for name in figures}


def test_filters_of_different_sizes_are_counted_in_weights():
  pruned = prune_to(network(), sparsity=0.5, granularity=granularity.filters())
  active = sparsity_report(pruned)['active_weights']
  assert 0.5 * TOTAL - 64 < active <= 0.5 * TOTAL
  alive = jnp.any(pruned['fc']['kernel'] != 0, axis=0)
  assert bool(jnp.all((pruned['fc']['kernel'] != 0) == alive[None]))


def test_two_of_four():
  pruned = prune_to(
    {'kernel': jnp.arange(1.0, 9.0)[:, None]}, sparsity=0.5, granularity=granularity.n_m(2, 4)
  )
  assert pruned['kernel'].ravel().tolist() == [0, 0, 3, 4, 0, 0, 7, 8]


def test_a_criterion_may_read_the_gradient():
  params = {'kernel': jnp.array([[1.0, 2.0, 3.0]])}
  grad = {'kernel': jnp.array([[9.0, 1.0, 1.0]])}
  pruned = prune_to(params, compression=3, criterion=criteria.saliency, grad=grad)
  assert pruned['kernel'].tolist() == [[1.0, 0.0, 0.0]]
  with pytest.raises(ValueError, match=r"the criterion needs \['grad'\] and got nothing"):
    prune_to(params, compression=3, criterion=criteria.saliency)


def test_it_runs_under_jit():
  jitted = jax.jit(lambda params: prune_to(params, sparsity=0.9))
  np.testing.assert_array_equal(
    jitted(network())['fc']['kernel'], prune_to(network(), sparsity=0.9)['fc']['kernel']
  )


@pytest.mark.parametrize('dtype', [jnp.int32, jnp.uint32])
def test_a_traced_seed_draws_the_same_as_its_number(dtype):
  def draw(seed):
    return prune_to(network(), sparsity=0.9, criterion=criteria.random, seed=seed)['fc']['kernel']

  for seed in (3, 4):
    np.testing.assert_array_equal(jax.jit(draw)(dtype(seed)), draw(seed))
  assert bool(jnp.any(draw(3) != draw(4)))
  # Any integer is a seed, even below 0 or beyond 32 bits.
  np.testing.assert_array_equal(draw(-1), draw(2**32 - 1))
  np.testing.assert_array_equal(draw(jnp.int32(-1)), draw(-1))


@pytest.mark.parametrize(
  ('densities', 'message'),
  [
    ({}, 'give one of sparsity, compression, macs, parameters'),
    ({'sparsity': 0.5, 'compression': 2}, 'give one of'),
    ({'sparsity': 1.0}, r'sparsity=1\.0 must be a share in \[0, 1\)'),
    ({'compression': 0.5}, r'compression=0\.5 must be a number, 1 or more'),
    ({'sparsity': '0.5'}, "^sparsity='0.5' must be a number$"),
    ({'sparsity': 0.5, 'seed': None}, '^seed=None must be an integer$'),
    (
      {'sparsity': 0.5, 'granularity': granularity.filters},
      r'^granularity=filters must be what a function of sparsejax\.granularity returns, as filters',
    ),
    ({'macs': 0.5}, 'macs needs positions='),
    (
      {'sparsity': {'conf': 0.5}},
      r"^density: the pattern 'conf' must match a layer that is pruned: did you mean 'conv'\?$",
    ),
    ({'sparsity': {'conv': 1.0}}, r"^sparsity of 'conv'=1\.0 must be a share in \[0, 1\)$"),
    ({'sparsity': {}}, r'^sparsity=\{\} must name a layer'),
    ({'sparsity': {'(': 0.5}}, r"^sparsity='\(' must be a regular expression: "),
    ({'macs': {'conv': 0.5}}, r"^macs=\{'conv': 0\.5\} must be a number$"),
    (
      {'sparsity': {'conv': 0.5}, 'allocation': allocation.erk},
      '^densities by layer leave nothing to allocate: give no allocation=$',
    ),
    ({'parameters': 'kernels'}, "^parameters='kernels' must be a number$"),
    (
      {'parameters': 76},
      r'^parameters=76 must be a whole number, more than 76, the number outside kernels, and ',
    ),
    ({'parameters': 4353}, r'^parameters=4353 must be a whole number'),
    ({'parameters': 0.5}, r'^parameters=0\.5 must be a whole number'),
    (
      {'sparsity': 0.95, 'exclude': 'head'},
      r'density=0\.05 must be more than 0\.1169, the part of the network',
    ),
  ],
)
def test_impossible_targets_are_refused(densities, message):
  with pytest.raises(ValueError, match=message):
    prune_to(network(), **densities)


def test_a_layer_with_hardly_a_weight_left_is_named():
  params = {'big': jnp.full((40, 50), 9.0), 'small': jnp.linspace(0.1, 0.3, 40).reshape(4, 10)}
  with pytest.warns(UserWarning, match='^prune_to leaves 1 of the 40 weights of small; a floor'):
    prune_to(params, sparsity=0.9)
  with pytest.warns(UserWarning, match='^prune_to leaves 0 of the 40 weights of small; '):
    prune_to(params, sparsity=0.9, floor=0)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    prune_to(params, sparsity=0.99)  # an even share of 0.4 weights
    prune_to(params, sparsity=0.9, floor=2)
    prune_to(params, sparsity=0.9, allocation=allocation.uniform)


@pytest.mark.parametrize(
  ('grad', 'message'),
  [
    ({'w': jnp.ones((4, 1))}, r"grad of 'w' has shape \(4, 1\) and must have shape \(4, 4\)"),
    ({'v': jnp.ones((4, 4))}, r"grad of 'w' is missing and must have shape \(4, 4\)"),
  ],
)
def test_a_gradient_of_another_shape_is_not_broadcast(grad, message):
  params = {'w': jnp.ones((4, 4))}
  with pytest.raises(ValueError, match=message):
    sparsejax.prune_to(params, sparsity=0.5, criterion=sparsejax.criteria.saliency, grad=grad)


def test_n_m_takes_only_its_own_density():
  params = {'a': {'kernel': jnp.arange(1.0, 9.0)[:, None]}, 'b': {'kernel': jnp.ones((4, 4))}}
  two_of_four = granularity.n_m(2, 4)
  pruned = sparsejax.prune_to(params, sparsity=0.5, exclude='b', granularity=two_of_four)
  assert (pruned['a']['kernel'] != 0).reshape(2, 4).sum(1).tolist() == [2, 2]
  assert bool((pruned['b']['kernel'] == 1).all())
  with pytest.raises(ValueError, match=r'density=0\.3 must be 0\.5, the n / m of the granu'):
    sparsejax.prune_to(params, sparsity=0.7, granularity=two_of_four)
  with pytest.raises(ValueError, match=r'density=0\.25 must end at 0\.5, the n'):
    sparsejax.prune(sparsejax.one_shot(0, 0.25), granularity=two_of_four)
