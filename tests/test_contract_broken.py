"""The contract notices a transformation that breaks it at any point, and lets a sound one pass."""

import functools
from typing import NamedTuple

import contract
import jax
import jax.numpy as jnp
import optax
import pytest
import trials
from transformations import check, removed_weights_are_zero, trained

import sparsejax
from sparsejax import one_shot, prune
from sparsejax.internal.private import NO_PARAMS_MSG

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


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
      raise ValueError(NO_PARAMS_MSG)
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


def that_scales_by_its_count():
  return moving(lambda u, s: (jax.tree.map(lambda leaf: leaf * s.count, u), s))


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
  contract.no_dtype_is_promoted_silently: that_scales_by_its_count,
  contract.the_state_can_be_donated: that_keeps_the_parameters_themselves,
}


SOUND = functools.partial(sound, inner=optax.trace(0.9))


@pytest.mark.parametrize('point', contract.POINTS, ids=lambda point: point.__name__)
def test_a_sound_transformation_passes(point):
  point(SOUND)


@pytest.mark.parametrize('point', contract.POINTS, ids=lambda point: point.__name__)
def test_one_that_breaks_this_point_is_caught(point):
  BROKEN[point]()  # what is asserted while it is made is no finding of the point's
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
    check(trained(trials.jitted(tx)), removed_weights_are_zero)
