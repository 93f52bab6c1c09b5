"""Every public transformation keeps the contract, and the contract notices one that does not.

A new transformation needs an entry in TRANSFORMATIONS: what it promises, and its forms.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import contract
import jax
import jax.numpy as jnp
import optax
import pytest
from contract import Moment

import sparsejax
from sparsejax import allocation, criteria, cubic, granularity, one_shot, prune, rewind, updates

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


class Entry(NamedTuple):
  """promise: asserts of a history of training what the method is there for.

  around: the optimizers that it takes as `inner`, or none.
  """

  promise: Callable[[list[Moment]], None]
  forms: dict[str, functools.partial]
  around: tuple[str, ...] = ()


# The optimizers


def schedule():
  return optax.linear_schedule(0.1, 0.01, 3)


OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
  'sgd': lambda: optax.sgd(0.05),
  'momentum': lambda: optax.sgd(0.05, momentum=0.9),
  'nesterov': lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
  'scheduled_sgd': lambda: optax.sgd(schedule()),
  'adam': lambda: optax.adam(0.05),
  'adamw': lambda: optax.adamw(0.05, weight_decay=0.1),
  'rmsprop': lambda: optax.rmsprop(0.02, momentum=0.9),
  'adagrad': lambda: optax.adagrad(0.1),
  'lion': lambda: optax.lion(0.02),
  'lamb': lambda: optax.lamb(0.05),
  'adafactor': lambda: optax.adafactor(0.05, min_dim_size_to_factor=2),
  'muon': lambda: optax.contrib.muon(0.05),
  'clipped': lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.05, momentum=0.9)),
  'multi_steps': lambda: optax.MultiSteps(
    optax.sgd(0.05, momentum=0.9), 2
  ).gradient_transformation(),
  'inject_hyperparams': lambda: optax.inject_hyperparams(optax.sgd)(
    learning_rate=schedule(), momentum=0.9
  ),
}


@functools.cache
def optimizer(name):
  return contract.jitted(optax.with_extra_args_support(OPTIMIZERS[name]()))


# The transformations


def removed_weights_are_zero(history: list[Moment]):
  """Exactly, wherever the mask is; and it is somewhere, though nowhere before."""
  before, *_, after = history
  was, masks = (optax.tree.get(moment.state, 'masks') for moment in (before, after))
  assert all(bool(jnp.all(mask)) for mask in jax.tree.leaves(was))
  outside = jax.tree.map(lambda p, mask: jnp.where(mask, 0, p), after.params, masks)
  assert not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(outside))
  assert 0 < int(jnp.sum(masks['kernel'])) < masks['kernel'].size
  assert bool(jnp.all(after.params['bias'] != 0))


def some_weights_are_zero(history: list[Moment]):
  before, *_, after = history
  assert bool(jnp.all(before.params['kernel'] != 0))
  assert int(jnp.sum(after.params['kernel'] == 0)) > 0
  assert bool(jnp.all(after.params['bias'] != 0))


def whole_units_are_zero(history: list[Moment]):
  some_weights_are_zero(history)
  zero = history[-1].params['kernel'] == 0
  assert bool(jnp.all(zero.all(0) == zero.any(0)))


def the_parameters_come_back(history: list[Moment]):
  """The last of the four updates sets them to what they were after the first."""
  chex.assert_trees_all_close(history[4].params, history[1].params, rtol=1e-6, atol=1e-6)
  assert bool(jnp.any(history[3].params['kernel'] != history[1].params['kernel']))


def the_divergences_gradient_is_in_the_updates(history: list[Moment]):
  """It is six times the parameters here, more than whatever else moves them."""
  before, *_, after = history
  grown = jax.tree.map(
    lambda a, b: jnp.all(jnp.abs(a) > 2 * jnp.abs(b)), after.params, before.params
  )
  assert all(bool(leaf) for leaf in jax.tree.leaves(grown))


def squares(params):
  return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def no_kernel_is_beyond_its_bound(history: list[Moment]):
  before, *_, after = history
  assert float(jnp.max(before.params['kernel'])) > 1.0
  assert float(jnp.max(after.params['kernel'])) <= 0.5 + 1e-6


GRADUAL = cubic(0, 3, 0.25, every=1)
PRUNING = {
  'magnitude': functools.partial(prune, one_shot(1, 0.25)),
  'saliency_filters_uniform': functools.partial(
    prune,
    cubic(0, 3, 0.5, every=1),
    criterion=criteria.saliency,
    granularity=granularity.filters(),
    allocation=allocation.uniform(),
  ),
  'fisher_blocks': functools.partial(
    prune, GRADUAL, criterion=criteria.fisher, granularity=granularity.blocks(2, 2)
  ),
  'set_n_of_m_erk': functools.partial(
    prune,
    sparsejax.PruningSchedule((1, 3), (0.5, 0.5)),
    granularity=granularity.n_of_m(4),
    allocation=allocation.erk(),
    update_rule=updates.set_(),
  ),
  'random_momentum': functools.partial(
    prune, GRADUAL, criterion=criteria.random, inner=optax.trace(0.9)
  ),
  'lamp': functools.partial(prune, GRADUAL, criterion=criteria.lamp),
  'rigl_momentum': functools.partial(
    prune, GRADUAL, update_rule=updates.rigl(4), inner=optax.sgd(0.05, momentum=0.9)
  ),
}
# One for each kind of state, since each is compiled with the link.
AROUND_PRUNING = (
  'momentum',
  'adam',
  'lion',
  'lamb',
  'adafactor',
  'muon',
  'clipped',
  'multi_steps',
  'inject_hyperparams',
)
ADAPTIVE = 'adam', 'adamw', 'rmsprop'
TRANSFORMATIONS = {
  'prune': Entry(removed_weights_are_zero, PRUNING, AROUND_PRUNING),
  'proximal_l1': Entry(
    some_weights_are_zero,
    {
      'descent': functools.partial(sparsejax.proximal_l1, 10.0, 0.04, 0.2),
      'adam': functools.partial(sparsejax.proximal_l1, 20.0, 0.05, inner=optax.adam(0.05)),
    },
    around=ADAPTIVE,
  ),
  'proximal_group_l1': Entry(
    whole_units_are_zero,
    {
      'units': functools.partial(sparsejax.proximal_group_l1, optax.constant_schedule(10.0), 0.05),
      'rmsprop': functools.partial(
        sparsejax.proximal_group_l1, 20.0, 0.05, inner=optax.rmsprop(0.05)
      ),
    },
    around=ADAPTIVE,
  ),
  'add_kl_gradients': Entry(
    the_divergences_gradient_is_in_the_updates,
    {
      'number': functools.partial(sparsejax.add_kl_gradients, 10, 30.0, kl=squares),
      'schedule': functools.partial(
        sparsejax.add_kl_gradients, 10, optax.linear_schedule(30.0, 60.0, 3), kl=squares
      ),
    },
  ),
  'bound_variances': Entry(
    no_kernel_is_beyond_its_bound,
    {
      'kernels': functools.partial(sparsejax.bound_variances, math.exp(0.5), parameters='kernels'),
      'all': functools.partial(sparsejax.bound_variances, math.exp(0.5), parameters='all'),
    },
  ),
  'rewind': Entry(
    the_parameters_come_back,
    {
      'weights': functools.partial(rewind, 1, [3]),
      'momentum': functools.partial(rewind, 1, [3], inner=optax.trace(0.9)),
    },
    around=('adam', 'adafactor', 'inject_hyperparams'),
  ),
}


def public_transformations(module: Any) -> dict[str, Callable]:
  """The functions of the index whose annotation says that they return a transformation."""

  def returns_one(value):
    annotation = inspect.signature(value, eval_str=True).return_annotation
    return inspect.isclass(annotation) and issubclass(annotation, optax.GradientTransformation)

  public = {name: getattr(module, name) for name in module.__all__}
  return {n: f for n, f in public.items() if inspect.isfunction(f) and returns_one(f)}


def without_examples(module: Any) -> list[str]:
  return [
    name
    for name, factory in public_transformations(module).items()
    if not any(form.func is factory for form in _forms(name))
  ]


def _forms(name):
  return TRANSFORMATIONS[name].forms.values() if name in TRANSFORMATIONS else ()


def cases():
  """Every form of every transformation at every point; at the costly ones the first and the last.

  So the last form is the one that has most of everything.
  """
  for name, entry in TRANSFORMATIONS.items():
    first, *_, last = entry.forms
    for title, form in entry.forms.items():
      for point in contract.POINTS:
        if point not in contract.COSTLY or title in (first, last):
          yield pytest.param(point, form, id=f'{point.__name__}-{name}-{title}')


# Finding them


def test_every_public_transformation_has_examples():
  assert public_transformations(sparsejax)
  assert without_examples(sparsejax) == []
  assert set(TRANSFORMATIONS) == set(public_transformations(sparsejax))


def test_a_transformation_without_examples_is_found():
  def forgotten() -> optax.GradientTransformation:
    return optax.identity()

  def no_transformation() -> float:
    return 0.0

  index = types.ModuleType('index')
  index.__all__ = ['prune', 'forgotten', 'no_transformation', 'cubic']
  index.__dict__.update(
    prune=prune, forgotten=forgotten, no_transformation=no_transformation, cubic=cubic
  )
  assert without_examples(index) == ['forgotten']


def test_every_public_function_says_what_it_returns():
  """A transformation without an annotation would not be found."""
  public = [getattr(sparsejax, name) for name in sparsejax.__all__]
  functions = [value for value in public if inspect.isfunction(value)]
  silent = [f.__name__ for f in functions if 'return' not in f.__annotations__]
  assert silent == []


@pytest.mark.parametrize('name', TRANSFORMATIONS)
def test_one_that_takes_inner_links_has_examples_with_and_without(name):
  takes_inner = 'inner' in inspect.signature(next(iter(_forms(name))).func).parameters
  assert {'inner' in form.keywords for form in _forms(name)} == {takes_inner, False}


# Keeping the contract


@pytest.mark.parametrize(('point', 'form'), list(cases()))
def test_it_keeps(point, form):
  point(form)


def bare(name):
  return [form for form in _forms(name) if 'inner' not in form.keywords]


@pytest.mark.parametrize('ahead', OPTIMIZERS)
@pytest.mark.parametrize('name', TRANSFORMATIONS)
def test_behind_every_optimizer(name, ahead):
  forms = bare(name)
  form = forms[list(OPTIMIZERS).index(ahead) % len(forms)]
  tx = optax.chain(optimizer(ahead), contract.trial(form).jitted)
  check(trained(tx), TRANSFORMATIONS[name].promise)


@pytest.mark.parametrize(
  ('name', 'inner'),
  [(name, inner) for name, entry in TRANSFORMATIONS.items() for inner in entry.around],
)
def test_around_every_optimizer_that_it_takes(name, inner):
  form = next(form for form in _forms(name) if 'inner' in form.keywords)
  tx = contract.jitted(form(inner=OPTIMIZERS[inner]()))
  check(trained(tx), TRANSFORMATIONS[name].promise)


def trained(tx):
  return contract.run(tx, contract.layer(), arriving=lambda grad: grad)


def check(history, promise):
  before, *_, after = history
  chex.assert_trees_all_equal_shapes_and_dtypes(after.params, before.params)
  chex.assert_trees_all_equal_shapes_and_dtypes(after.state, before.state)
  chex.assert_tree_all_finite(after.params)
  promise(history)


# Breaking the contract


class Sound(NamedTuple):
  count: jax.Array  # shape=(), dtype=int32
  average: optax.Updates
  inner_state: optax.OptState


def sound(*, inner: optax.GradientTransformation | None = None):
  """Keeps the contract: adds a running average of the updates, and pulls parameters to zero."""
  inner = optax.with_extra_args_support(inner or optax.identity())

  def init_fn(params):
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Sound(jnp.zeros([], jnp.int32), zeros, inner.init(params))

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(contract.NO_PARAMS_MSG)
    updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
    average = jax.tree.map(lambda a, u: (a + u) / 2, state.average, updates)
    updates = jax.tree.map(lambda u, a, p: u + a - p / 4, updates, average, params)
    return updates, Sound(optax.safe_increment(state.count), average, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def starting(change):
  """The sound one with its first state changed."""
  tx = sound()
  return tx._replace(init=lambda params: change(tx.init(params), params))


def moving(change):
  """The sound one with what its update returns changed."""
  tx = sound()

  def update_fn(updates, state, params=None, **extra_args):
    return change(*tx.update(updates, state, params, **extra_args))

  return tx._replace(update=update_fn)


def scaled(factor):
  return lambda updates, state: (jax.tree.map(lambda u: u * factor(u), updates), state)


def with_a_plain_tuple():
  tx = sound()

  def update_fn(updates, state, params=None, **extra_args):
    updates, state = tx.update(updates, Sound(*state), params, **extra_args)
    return updates, tuple(state)

  return optax.GradientTransformationExtraArgs(lambda params: tuple(tx.init(params)), update_fn)


def that_counts_in_floats():
  return moving(lambda updates, state: (updates, state._replace(count=state.count * 1.0)))


def with_wider_updates():
  return moving(lambda updates, state: (jax.tree.map(jnp.float16, updates), state))


def that_looks_whether_it_is_traced():
  return moving(scaled(lambda u: 1 if isinstance(u, jax.core.Tracer) else 2))


def that_asks_for_its_device():
  def own(u):
    try:
      return 1 + jax.lax.axis_index('batch')
    except NameError:  # the axis exists under pmap alone
      return 1

  return moving(scaled(own))


def that_is_traced_twice():
  """The first count is a Python number to JAX, which an array of the same dtype is not."""
  tx = starting(lambda state, params: state._replace(count=jnp.asarray(0)))
  assert tx.init({}).count.weak_type
  return tx


def without_extra_arguments():
  tx = sound()
  return optax.GradientTransformation(
    tx.init, lambda u, state, params=None: tx.update(u, state, params)
  )


def with_arguments_that_a_chain_does_not_pass_on():
  """An update with `grad` in a type of transformation to which optax.chain gives no more."""
  tx = sound()

  def update_fn(updates, state, params=None, grad=None, mean_squared_grad=None):
    updates, state = tx.update(updates, state, params)
    return jax.tree.map(jnp.add, updates, grad or updates), state

  return optax.GradientTransformation(tx.init, update_fn)


def that_swallows_what_its_inner_link_needs(*, inner):
  return sound(inner=optax.with_extra_args_support(optax.GradientTransformation(*inner)))


def with_a_message_of_its_own():
  tx = sound()

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError('parameters, please')
    return tx.update(updates, state, params, **extra_args)

  return tx._replace(update=update_fn)


def that_reckons_with_holes():
  def is_hole(node):
    return isinstance(node, optax.MaskedNode)

  def double(updates, state):
    return jax.tree.map(lambda u: 2 * u.astype(u.dtype), updates, is_leaf=is_hole), state

  return moving(double)


def that_takes_rows():
  return moving(scaled(lambda u: 1 + 0 * u[:1]))


def with_none_in_its_state():
  return starting(lambda state, params: state._replace(inner_state={'masks': None}))


def with_something_that_is_no_array():
  return starting(lambda state, params: state._replace(inner_state=jnp.zeros((0,))))


def in_float32_alone():
  def wider(updates, state):
    return updates, state._replace(average=jax.tree.map(jnp.float32, state.average))

  return moving(wider)


def that_keeps_the_parameters_themselves():
  return starting(lambda state, params: state._replace(average=params))


BROKEN = {
  contract.the_state_is_a_named_tuple: with_a_plain_tuple,
  contract.structure_shapes_and_dtypes_are_kept: with_wider_updates,
  contract.it_runs_in_a_loop_on_the_device: that_counts_in_floats,
  contract.without_jit_it_is_the_same: that_looks_whether_it_is_traced,
  contract.replicas_stay_identical: that_asks_for_its_device,
  contract.it_is_compiled_once: that_is_traced_twice,
  contract.unknown_extra_arguments_are_accepted: without_extra_arguments,
  contract.extra_arguments_reach_the_inner_links: functools.partial(
    that_swallows_what_its_inner_link_needs, inner=optax.trace(0.9)
  ),
  contract.without_parameters_the_message_is_optax_s: with_a_message_of_its_own,
  contract.in_a_chain_it_is_the_same: with_arguments_that_a_chain_does_not_pass_on,
  contract.under_masked_a_leaf_is_left_out: that_reckons_with_holes,
  contract.in_a_partition_every_part_has_its_own: that_reckons_with_holes,
  contract.a_whole_branch_may_be_left_out: that_reckons_with_holes,
  contract.every_kind_of_tree_is_taken: that_takes_rows,
  contract.the_state_holds_no_none: with_none_in_its_state,
  contract.the_state_comes_back_from_orbax: with_something_that_is_no_array,
  contract.bfloat16_is_taken: in_float32_alone,
  contract.the_state_can_be_donated: that_keeps_the_parameters_themselves,
}


SOUND = functools.partial(sound, inner=optax.trace(0.9))


@pytest.mark.parametrize('point', contract.POINTS, ids=lambda point: point.__name__)
def test_a_sound_transformation_passes(point):
  point(SOUND)


@pytest.mark.parametrize('point', contract.POINTS, ids=lambda point: point.__name__)
def test_one_that_breaks_this_point_is_caught(point):
  with pytest.raises(AssertionError):
    point(BROKEN[point])


def test_one_that_masks_only_the_updates_breaks_the_promise_of_pruning():
  """What is removed then stands still instead of being zero: the hook that was forgotten."""
  sparse = prune(one_shot(1, 0.25))

  def update_fn(updates, state, params=None, **extra_args):
    _, state = sparse.update(updates, state, params, **extra_args)
    return sparsejax.apply_masks(updates, state.masks), state

  tx = optax.chain(optax.sgd(0.05), sparse._replace(update=update_fn))
  with pytest.raises(AssertionError):
    check(trained(contract.jitted(tx)), removed_weights_are_zero)
