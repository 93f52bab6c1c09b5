"""Proximal steps as a link behind the learning rate: L1 and the group lasso with exact zeros."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from sparsejax.internal.lookup import lookup
from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity import prox
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.parts import granularity as granularities
from sparsejax.sparsity.parts.units import units
from sparsejax.sparsity.placement import placed_like
from sparsejax.transforms.inner.running import running_inside
from sparsejax.transforms.inner.slots import is_hole
from sparsejax.transforms.preconditioners import Metric, default_metric


class ProximalState(NamedTuple):
  """State of `proximal_l1` and `proximal_group_l1`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made
  inner_state: optax.OptState


def proximal_l1(
  strength: optax.ScalarOrSchedule,
  learning_rate: optax.ScalarOrSchedule,
  momentum: float = 0.0,
  *,
  inner: optax.GradientTransformation | None = None,
  metric: Metric | None = None,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
  r"""L1 regularisation by the proximal step: exact zeros, where a subgradient makes none.

  .. math:: u' = S_t(p + u) - p, \quad S_t(v) = \mathrm{sign}(v) \max(|v| - t, 0)

  where the threshold t is the strength times the step that the chain ahead gives a constant unit
  gradient: :math:`t = \text{strength} \cdot \text{learning\_rate} / (1 - \text{momentum})`. With it
  the training converges to a minimum of loss(p) + strength * sum |p|, whatever the momentum.

  Place it **behind the learning rate**, and ahead of `prune`. An optimizer that divides by second
  moments goes inside, as `inner`: there t is divided by :math:`d_i = \sqrt{\hat v_i} + \epsilon`,
  as the gradient was. Of Optax these are the ones of `adam_metric`, `rms_metric` and
  `amsgrad_metric`. Behind an optimizer that forgets the gradient's size (sign, Lion) no threshold
  makes the strength mean what it says. `optax.MultiSteps` goes around the whole chain: ahead of
  this link or inside, the threshold would be taken off in each of its small steps.

  Args:
    strength: the penalty's, in loss per unit of a parameter; a number, or a schedule (count ->
      number) that is read as Optax reads learning rates: the first update uses count 0.
    learning_rate: that of the chain ahead or of `inner`, the same number or schedule.
    momentum: the decay of `optax.trace` ahead or inside, Nesterov's or not; an average (Adam's b1)
      has a gain of one and counts nothing.
    inner: the transformation to run inside, with its learning rate: adaptive ones only.
    metric: what `inner` divides by, read from its state; by default that of the optimizers named
      above with their default b2 and eps, recognised by their states: with other values, or
      around one that shares Adam's state (Yogi, Adamax, RAdam), give it.
    parameters: 'kernels', 'all' (biases and BatchNorm too), or a function of (path, leaf).
    exclude: regular expressions (or one) over paths; each must match something.

  Returns:
    A transformation whose updates are of the wider dtype of updates and parameters, where chosen.

  Raises:
    ValueError: at once, for a value outside its range; at `init`, for a choice that matches
      nothing or an `inner` without second moments or with `optax.MultiSteps`; at `update`, without
      `params`.

  Example:
    >>> params = {'kernel': jnp.array([[1.0, -3.0, 0.1]])}
    >>> chain = optax.chain(optax.sgd(0.1), proximal_l1(strength=5.0, learning_rate=0.1))
    >>> updates, _ = chain.update({'kernel': jnp.zeros((1, 3))}, chain.init(params), params)
    >>> optax.apply_updates(params, updates)['kernel'].tolist()
    [[0.5, -2.5, 0.0]]

    Around Adam, with its own settings:

    >>> from sparsejax import adam_metric
    >>> adam = optax.adam(1e-3, b2=0.99)
    >>> tx = proximal_l1(1e-4, 1e-3, inner=adam, metric=adam_metric(b2=0.99))

  References:
    Daubechies, Defrise and De Mol 2004, https://arxiv.org/abs/math/0307152
    Duchi, Hazan and Singer 2011 (the metric), https://jmlr.org/papers/v12/duchi11a.html
  """

  def shrink(values, threshold, divisor, unit):
    del unit
    if divisor is None:
      return prox.soft_threshold(values, threshold)
    smallest = jnp.finfo(divisor.dtype).tiny  # 0 / 0 where neither gradient nor threshold is
    return prox.soft_threshold(values, threshold / jnp.maximum(divisor, smallest))

  return _proximal(shrink, strength, learning_rate, momentum, inner, metric, parameters, exclude)


def proximal_group_l1(
  strength: optax.ScalarOrSchedule,
  learning_rate: optax.ScalarOrSchedule,
  momentum: float = 0.0,
  *,
  granularity: granularities.Granularity | None = None,
  group_weight: str = 'sqrt_size',
  inner: optax.GradientTransformation | None = None,
  metric: Metric | None = None,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  layouts: Mapping[str, str | Layout] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""The group lasso by the proximal step: whole filters or units become exactly zero.

  .. math:: u' = G_t(p + u) - p, \quad G_t(v)_g = v_g \max(1 - t w_g / \|v_g\|, 0)

  with the threshold t of `proximal_l1`. The training converges to a minimum of loss(p) + strength *
  sum_g w_g ||p_g||. Inside an `inner` with second moments the step is taken in its metric, by
  `shrinkage.group_soft_threshold_in_metric`.

  Place it **behind the learning rate**, and ahead of `prune`.

  Args:
    strength: the penalty's, in loss per unit of a group's length; a number or a schedule.
    learning_rate: that of the chain ahead or of `inner`, the same number or schedule.
    momentum: the decay of `optax.trace` ahead or inside.
    granularity: what is a group; `filters()`, every filter and unit by its outgoing side, by
      default.
    group_weight: w_g, 'sqrt_size' (the root of the number of weights in the group) or 'one'.
    inner: the transformation to run inside, with its learning rate: adaptive ones only.
    metric: what `inner` divides by, as in `proximal_l1`.
    parameters: 'kernels', 'all' (entries of a bias are groups of one), or a function of (path,
      leaf).
    exclude: regular expressions (or one) over paths; each must match something.
    layouts: {regular expression over paths: which axes are what}, as of `prune`.

  Returns:
    A transformation whose updates are of the wider dtype of updates and parameters, where chosen.

  Raises:
    ValueError: as `proximal_l1`, and at once for an unknown group weight or N:M, no granularity of
      groups.

  Example:
    >>> params = {'kernel': jnp.array([[3.0, 0.3], [4.0, 0.4]])}
    >>> link = proximal_group_l1(strength=10.0, learning_rate=0.1, group_weight='one')
    >>> chain = optax.chain(optax.sgd(0.1), link)
    >>> updates, _ = chain.update({'kernel': jnp.zeros((2, 2))}, chain.init(params), params)
    >>> optax.apply_updates(params, updates)['kernel'].tolist()
    [[2.4..., 0.0], [3.2..., 0.0]]

  References:
    Yuan and Lin 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x
    Wen et al. 2016, https://arxiv.org/abs/1608.03665
  """
  lookup('group_weight', group_weight, prox.GROUP_WEIGHTS)
  granularity = granularity or granularities.filters()
  if granularity.evenly:
    raise ValueError('granularity n_m: its groups are single weights; use proximal_l1')

  if granularity.belongings is not None:
    raise ValueError(
      'granularity filters with bias= or norms=: a group is in one leaf here, and must be filters()'
    )
  if granularity.view == 'by_head':
    raise ValueError(
      'granularity heads: a group is in one leaf here, and must be one of the others'
    )
  told = axes.given(layouts)

  def layer(values, threshold, divisor):
    if divisor is None:
      return prox.group_soft_threshold(values, threshold, granularity, group_weight)
    return prox.group_soft_threshold_in_metric(
      values, threshold, divisor, granularity, group_weight
    )

  def shrink(values, threshold, divisor, groups):
    [leaf] = groups.leaves

    @placed_like(values)
    def shrunk(values, threshold, divisor):
      view = functools.partial(groups.view, leaf)
      layers = jax.vmap(layer, in_axes=(0, None, 0))
      found = layers(view(values), threshold, jax.tree.map(view, divisor))
      return groups.restore(leaf, found)

    return shrunk(values, threshold, divisor)

  def units_of(params, chosen):
    found = iter(units(params, chosen, granularity, told))
    return jax.tree.map(lambda c: next(found).groups if c else None, chosen)

  return _proximal(
    shrink, strength, learning_rate, momentum, inner, metric, parameters, exclude, units_of
  )


def _proximal(
  shrink, strength, learning_rate, momentum, inner, metric, parameters, exclude, units_of=None
):
  """The link of one operator: (values, threshold, the metric's leaf or None, unit) -> values."""
  strength, learning_rate = _rate('strength', strength), _rate('learning_rate', learning_rate)
  _check('momentum', momentum, 1, 'a number in [0, 1)')
  if inner is None and metric is not None:
    raise ValueError('metric= is given without inner=; it must be what an inner link divides by')
  metric = metric or (default_metric if inner is not None else None)
  inner = running_inside(inner)

  def divisors(inner_state, chosen):
    """The metric's leaf for each chosen one, None for the others; without a metric, for all."""
    if metric is None:
      return jax.tree.map(lambda _: None, chosen)
    found = metric(inner_state)
    return jax.tree_util.tree_map_with_path(_pick_divisor, found, chosen, is_leaf=is_hole)

  def init_fn(params):
    inner_state = inner.init(params)
    _refuse_multi_steps(inner_state)
    # Not of the placeholder by which optax.tree.map_params finds a state's parameters.
    if all(hasattr(leaf, 'shape') for leaf in jax.tree.leaves(params)):
      chosen = tree.choose(params, parameters, exclude)
      jax.eval_shape(lambda state: divisors(state, chosen), inner_state)
      if units_of is not None:
        units_of(params, chosen)  # or what is wrong is said here
    return ProximalState(jnp.zeros([], jnp.int32), inner_state)

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
    gain = learning_rate(state.count) / (1 - momentum)
    threshold = strength(state.count) * gain

    def move(chosen, update, param, divisor, unit):
      if not chosen:
        return update
      update, param = jnp.asarray(update), jnp.asarray(param)
      # In the wider of the two dtypes: -p rounded to narrower updates would not bring p to zero.
      # And in float32 at least, as squares and the sum p + u lose too much in bfloat16.
      with jax.numpy_dtype_promotion('standard'):
        wider = jnp.promote_types(update.dtype, param.dtype)
        precise = jnp.promote_types(wider, jnp.float32)
      values = param.astype(precise) + update.astype(precise)
      divisor = None if divisor is None else divisor.astype(precise)
      shrunk = shrink(values, jnp.asarray(threshold, precise), divisor, unit)
      return (shrunk - param.astype(precise)).astype(wider)

    chosen = tree.choose(params, parameters, exclude)
    found = jax.tree.map(lambda _: None, chosen) if units_of is None else units_of(params, chosen)
    updates = jax.tree.map(move, chosen, updates, params, divisors(inner_state, chosen), found)
    return updates, ProximalState(optax.safe_increment(state.count), inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _refuse_multi_steps(inner_state: optax.OptState) -> None:
  """Inside it makes a step in k, and the threshold would be taken off k times."""

  def is_multi(node):
    return isinstance(node, optax.MultiStepsState)

  if any(is_multi(leaf) for leaf in jax.tree.leaves(inner_state, is_leaf=is_multi)):
    raise ValueError('inner holds optax.MultiSteps; put that around the whole chain')


def _pick_divisor(path, divisor: Any, chosen: Any) -> Any:
  """The leaf where it is chosen; where `optax.masked` keeps a part from `inner`, nothing may be."""
  if not is_hole(divisor):
    return divisor if chosen else None
  if any(jax.tree.leaves(chosen)):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    raise ValueError(f"inner keeps no second moments of '{name}'; exclude it")
  return jax.tree.map(lambda _: None, chosen)


def _rate(name: str, value: Any) -> optax.Schedule:
  if callable(value):
    return value
  _check(name, value, np.inf, 'a number of 0 or more, or a schedule')
  return lambda count: value


def _check(name: str, value: Any, bound: float, allowed: str) -> None:
  """Refuses a number outside [0, bound); one that is being traced (injected) has no value yet."""
  if isinstance(value, Tracer):
    return
  is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
  # By NumPy, which computes at once also while others trace.
  if not is_number or np.ndim(value) or not 0 <= np.asarray(value) < bound:
    raise ValueError(f'{name}={value} must be {allowed}')
