"""Parameters that lie on several devices: the masks of one device, placed as the parameters are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax
from sparsejax import allocation, criteria, granularity, update_rules

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

SPECS = {
  'in': P('model', None),
  'out': P(None, 'model'),
  'stack': P(None, None, 'model'),
  'layers': P('model', None, None),
}
SHAPES = {'in': (8, 6), 'out': (6, 8), 'stack': (3, 4, 8), 'layers': (4, 6, 5)}
LAYOUTS = {'stack': 'stack in out', 'layers': 'stack in out'}
METHODS = {
  'magnitude': {},
  'uniform': {'allocation': allocation.uniform()},
  'filters': {'granularity': granularity.filters()},
  '2:4': {'granularity': granularity.n_of_m(4)},
  'blocks': {'granularity': granularity.blocks(2, 2)},
  'lamp': {'criterion': criteria.lamp},
  'saliency': {'criterion': criteria.saliency},
  'rigl': {'update_rule': update_rules.rigl(4), 'inner': optax.sgd(0.1, momentum=0.9)},
}


def mesh_of(kind):
  if jax.device_count() < 2:
    pytest.skip('one device')
  return jax.make_mesh((2,), ('model',), axis_types=(kind,))


def arrays(seed):
  rng = np.random.default_rng(seed)
  return {path: jnp.asarray(rng.normal(size=s), jnp.float32) for path, s in SHAPES.items()}


def steps(chain, params, grads):
  state = chain.init(params)
  for grad in grads:
    changes, state = chain.update(grad, state, params, grad=grad)
    params = optax.apply_updates(params, changes)
  return params, state.masks


@pytest.mark.parametrize('kind', [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize('name', METHODS)
def test_masks_are_those_of_one_device(name, kind):
  mesh = mesh_of(kind)
  schedule = sparsejax.cubic(0, 2, 0.3, every=1)
  chain = sparsejax.prune(schedule, layouts=LAYOUTS, **METHODS[name])
  params, grads = arrays(0), [arrays(i) for i in range(1, 4)]
  run = functools.partial(steps, chain)
  alone, masks = jax.jit(run)(params, grads)

  def place(tree):
    return {p: jax.device_put(x, NamedSharding(mesh, SPECS[p])) for p, x in tree.items()}

  with jax.set_mesh(mesh):
    there, masks_there = jax.jit(run)(place(params), [place(grad) for grad in grads])
  for path in params:
    np.testing.assert_array_equal(masks[path], masks_there[path])
    np.testing.assert_allclose(alone[path], there[path], rtol=1e-6)
    if kind is AxisType.Explicit:
      assert masks_there[path].sharding.spec == SPECS[path]


@pytest.mark.parametrize('kind', [AxisType.Explicit, AxisType.Auto])
def test_masks_lie_as_their_parameters_from_init_on(kind):
  mesh = mesh_of(kind)
  params = {p: jax.device_put(x, NamedSharding(mesh, SPECS[p])) for p, x in arrays(0).items()}
  state = sparsejax.prune(sparsejax.one_shot(0, 0.5), layouts=LAYOUTS).init(params)
  for path, mask in state.masks.items():
    assert mask.sharding.is_equivalent_to(params[path].sharding, mask.ndim)


def test_replicas_of_a_shard_map_make_the_same_masks():
  mesh = mesh_of(AxisType.Auto)
  chain = sparsejax.prune(sparsejax.one_shot(0, 0.3), layouts=LAYOUTS)
  params = arrays(0)
  zeros = jax.tree.map(jnp.zeros_like, params)

  def step(params):
    return chain.update(zeros, chain.init(params), params)[1].masks

  there = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
  for path, mask in step(params).items():
    np.testing.assert_array_equal(there(params)[path], mask)
