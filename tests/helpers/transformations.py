"""The public transformations: what each promises, and the forms in which it is tested.

A new transformation needs an entry in TRANSFORMATIONS.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import trials
from trials import Moment, layer

import sparsejax
from sparsejax import (
  allocation,
  compact,
  criteria,
  cubic,
  granularity,
  one_shot,
  prune,
  rewind,
  update_rules,
)
from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import tree


class Entry(NamedTuple):
  """promise: asserts that a history of training shows what the method is for.

  around: the optimizers that it takes as `inner`, or none.
  start: the layer that is trained for it to keep its promise.
  """

  promise: Callable[[list[Moment]], None]
  forms: dict[str, functools.partial]
  around: tuple[str, ...] = ()
  start: Callable[[], dict[str, jax.Array]] = layer


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
  return trials.jitted(optax.with_extra_args_support(OPTIMIZERS[name]()))


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


def half_of_a_layer(dtype=jnp.float32):
  """The smaller half of the weights at zero."""
  params = layer(dtype)
  return params | {'kernel': jnp.where(jnp.abs(params['kernel']) > 1, params['kernel'], 0)}


def zeros_stay_zero(history: list[Moment]):
  before, *_, after = history
  was, now = before.params['kernel'] != 0, after.params['kernel'] != 0
  assert 0 < int(jnp.sum(was)) < was.size
  assert bool(jnp.all(was == now))
  assert bool(jnp.all(after.params['kernel'][was] != before.params['kernel'][was]))


def a_shared_layer(dtype=jnp.float32):
  """The smaller half of the weights at zero, the others at four values."""
  params = half_of_a_layer(dtype)
  return params | {'kernel': jnp.asarray(sparsejax.shipping.share(params, 2).params['kernel'])}


def clusters_move_together(history: list[Moment]):
  zeros_stay_zero(history)
  was, now = (np.asarray(history[i].params['kernel']) for i in (0, -1))
  before, after = (np.unique(kernel[was != 0], return_inverse=True) for kernel in (was, now))
  assert len(before[0]) == len(after[0]) == 4
  assert len(set(zip(before[1], after[1], strict=True))) == 4


def the_network_is_what_masks_leave_of_dense_weights(history: list[Moment]):
  removed_weights_are_zero(history)
  before, *_, after = history
  dense, masks = (optax.tree.get(after.state, name) for name in ('dense', 'masks'))
  cut = sparsejax.apply_masks(dense, masks)
  chex.assert_trees_all_close(after.params, cut, rtol=1e-6)
  removed = ~masks['kernel']
  assert bool(jnp.all(dense['kernel'][removed] != before.params['kernel'][removed]))


def squares(params):
  return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def no_kernel_is_beyond_its_bound(history: list[Moment]):
  before, *_, after = history
  assert float(jnp.max(before.params['kernel'])) > 1.0
  assert float(jnp.max(after.params['kernel'])) <= 0.5 + 1e-6


GRADUAL = cubic(0, 3, 0.25, every=1)


def in_pairs(make, *arguments, **options):
  """A transformation whose units are each two outputs of a kernel, whatever parameters it gets."""

  @functools.cache
  def made(shapes):
    ties = [
      compact.Tie({path: {len(shape) - 1: tuple(range(first, first + 2))}}, False)
      for path, shape in shapes
      for first in range(0, shape[-1] - 1, 2)
    ]
    return make(*arguments, granularity=granularity.tied(ties), **options)

  def of(params):
    kernels = tree.kernels(params)
    return made(tuple((path, jnp.shape(leaf)) for path, leaf in kernels.items()))

  def update(updates, state, params=None, **extra):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    return of(params).update(updates, state, params, **extra)

  return optax.GradientTransformationExtraArgs(lambda params: of(params).init(params), update)


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
    granularity=granularity.n_m(2, 4),
    allocation=allocation.erk(),
    update_rule=update_rules.set_(),
  ),
  'random_momentum': functools.partial(
    prune, GRADUAL, criterion=criteria.random, inner=optax.trace(0.9)
  ),
  'tied': functools.partial(in_pairs, prune, cubic(0, 3, 0.5, every=1)),
  'lamp': functools.partial(prune, GRADUAL, criterion=criteria.lamp),
  'granet_by_layer': functools.partial(
    prune,
    cubic(0, 3, {'kernel': 0.25}, every=1),
    update_rule=update_rules.granet(4),
    inner=optax.sgd(0.05, momentum=0.9),
  ),
  'rigl_momentum': functools.partial(
    prune, GRADUAL, update_rule=update_rules.rigl(4), inner=optax.sgd(0.05, momentum=0.9)
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
      'tied': functools.partial(in_pairs, sparsejax.proximal_group_l1, 10.0, 0.05),
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
  'hold': Entry(
    zeros_stay_zero,
    {
      'kernels': functools.partial(sparsejax.hold),
      'momentum': functools.partial(sparsejax.hold, inner=optax.sgd(0.05, momentum=0.9)),
    },
    AROUND_PRUNING,
    half_of_a_layer,
  ),
  'straight_through': Entry(
    the_network_is_what_masks_leave_of_dense_weights,
    {
      'magnitude': functools.partial(sparsejax.straight_through, one_shot(1, 0.25)),
      'random_n_of_m': functools.partial(
        sparsejax.straight_through,
        cubic(0, 3, 0.5, every=1),
        criterion=criteria.random,
        granularity=granularity.n_m(2, 4),
      ),
      'saliency_filters': functools.partial(
        sparsejax.straight_through,
        cubic(0, 2, 0.5, every=1),
        every=2,
        criterion=criteria.saliency,
        granularity=granularity.filters(),
        allocation=allocation.uniform(),
      ),
      'momentum': functools.partial(
        sparsejax.straight_through,
        GRADUAL,
        inner=optax.sgd(0.05, momentum=0.9),
      ),
    },
    AROUND_PRUNING,
  ),
  'rewind': Entry(
    the_parameters_come_back,
    {
      'weights': functools.partial(rewind, 1, [3]),
      'momentum': functools.partial(rewind, 1, [3], inner=optax.trace(0.9)),
    },
    around=('adam', 'adafactor', 'inject_hyperparams'),
  ),
  'share_weights': Entry(
    clusters_move_together,
    {
      'kernels': functools.partial(sparsejax.share_weights),
      'momentum': functools.partial(
        sparsejax.share_weights, 7, inner=optax.sgd(0.05, momentum=0.9)
      ),
    },
    AROUND_PRUNING,
    a_shared_layer,
  ),
  'with_grad': Entry(
    removed_weights_are_zero,
    {
      'saliency': functools.partial(
        sparsejax.with_grad, prune(GRADUAL, criterion=criteria.saliency)
      ),
      'rigl_momentum': functools.partial(
        sparsejax.with_grad,
        inner=prune(GRADUAL, update_rule=update_rules.rigl(4), inner=optax.sgd(0.05, momentum=0.9)),
      ),
    },
  ),
}


def trained(tx, start=layer):
  return trials.run(tx, start(), arriving=lambda grad: grad)


def check(history, promise):
  before, *_, after = history
  chex.assert_trees_all_equal_shapes_and_dtypes(after.params, before.params)
  chex.assert_trees_all_equal_shapes_and_dtypes(after.state, before.state)
  chex.assert_tree_all_finite(after.params)
  promise(history)


def forms_of(name):
  return TRANSFORMATIONS[name].forms.values() if name in TRANSFORMATIONS else ()
