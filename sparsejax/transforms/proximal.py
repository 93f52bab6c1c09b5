"""Proximal steps after the learning rate: L1 and the group lasso, with exact zeros."""

import functools
import math
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
from sparsejax.sparsity.parts.units import Groups, Unit, units
from sparsejax.sparsity.placement import placed_like
from sparsejax.transforms.inner.running import running_inside
from sparsejax.transforms.inner.slots import is_hole
from sparsejax.transforms.preconditioners import Metric, default_metric


class ProximalState(NamedTuple):
  """State of `proximal_l1` and `proximal_group_l1`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: the number of updates so far
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
  r"""Applies L1 regularisation as a proximal step, which makes exact zeros.

  .. math:: u' = S_t(p + u) - p, \quad S_t(v) = \mathrm{sign}(v) \max(|v| - t, 0)

  The threshold is :math:`t = \text{strength} \cdot \text{learning\_rate} / (1 - \text{momentum})`:
  the strength times the step that a constant gradient of 1 leads to. Training then converges to a
  minimum of loss(p) + strength * sum |p|, whatever the momentum.

  Place it **after the learning rate** and before `prune`. Give an optimizer that divides by second
  moments as `inner` instead: the threshold is then divided as the gradient is, by :math:`d_i =
  \sqrt{\hat v_i} + \epsilon`. `adam_metric`, `rms_metric` and `amsgrad_metric` list the optimizers
  that this works for. For optimizers that discard the gradient's size (sign, Lion) no threshold
  gives the penalty above. Place `optax.MultiSteps` around the whole chain: before this
  transformation or in `inner`, it would let the threshold be subtracted in every small step.

  Args:
    strength: the weight of the penalty, in loss per unit of a parameter; a number, or a schedule
      (count -> number) whose first count is 0, as for Optax's learning rates.
    learning_rate: the learning rate of the optimizer before it or in `inner`: the same number or
      schedule.
    momentum: the decay of `optax.trace` before it or in `inner`, with Nesterov's momentum or
      without. A moving average such as Adam's b1 does not scale the step, and is left out.
    inner: an adaptive optimizer to run inside, with its learning rate.
    metric: a function that reads from the state of `inner` what it divides by. By default that of
      `adam_metric`, `rms_metric` or `amsgrad_metric` with Optax's b2 and eps, chosen by the state's
      type. Give it for other values, and for Yogi, Adamax and RAdam, which have Adam's state.
    parameters: 'kernels', 'all' (biases and BatchNorm too), or a function of (path, leaf).
    exclude: regular expressions (or one) over paths; each must match a leaf.

  Returns:
    A transformation. Updates of chosen leaves have the wider dtype of updates and parameters.

  Raises:
    ValueError: when called, if a value is outside its range; at `init`, if no leaf is chosen, or
      `inner` has no second moments or has `optax.MultiSteps`; at `update`, if `params` are missing.

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

  def shrink(values, threshold, divisors, groups):
    del groups
    [value], [divisor] = values, divisors
    if divisor is None:
      return [prox.soft_threshold(value, threshold)]
    tiny = jnp.finfo(divisor.dtype).tiny  # avoids 0 / 0 if the threshold and all gradients are zero
    return [prox.soft_threshold(value, threshold / jnp.maximum(divisor, tiny))]

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
  r"""Applies the group lasso as a proximal step, which sets whole filters or units to zero.

  .. math:: u' = G_t(p + u) - p, \quad G_t(v)_g = v_g \max(1 - t w_g / \|v_g\|, 0)

  with the threshold t of `proximal_l1`. Training converges to a minimum of loss(p) + strength *
  sum_g w_g ||p_g||. With an adaptive `inner`, the step is taken in the metric of its second
  moments, by `prox.group_soft_threshold_in_metric`.

  Place it **after the learning rate** and before `prune`.

  Args:
    strength: the weight of the penalty, in loss per unit of a group's length; a number or a
      schedule.
    learning_rate: the learning rate of the optimizer before it or in `inner`: the same number or
      schedule.
    momentum: the decay of `optax.trace` before it or in `inner`.
    granularity: the groups; with `tied` a group spans several leaves and has one norm; by default
      `filters()`, all weights into one filter or neuron.
    group_weight: w_g, 'sqrt_size' (the root of the number of weights in the group) or 'one'.
    inner: an adaptive optimizer to run inside, with its learning rate.
    metric: a function that reads what `inner` divides by, as in `proximal_l1`.
    parameters: 'kernels', 'all' (each entry of a bias is a group of one), or a function of (path,
      leaf).
    exclude: regular expressions (or one) over paths; each must match a leaf.
    layouts: {regular expression over paths: layout}, as in `prune`.

  Returns:
    A transformation. Updates of chosen leaves have the wider dtype of updates and parameters.

  Raises:
    ValueError: as for `proximal_l1`, and when called, if `group_weight` is unknown or the
      granularity is N:M, heads, or filters with biases or norms.

  Example:
    >>> params = {'kernel': jnp.array([[3.0, 0.3], [4.0, 0.4]])}
    >>> lasso = proximal_group_l1(strength=10.0, learning_rate=0.1, group_weight='one')
    >>> chain = optax.chain(optax.sgd(0.1), lasso)
    >>> updates, _ = chain.update({'kernel': jnp.zeros((2, 2))}, chain.init(params), params)
    >>> optax.apply_updates(params, updates)['kernel'].tolist()
    [[2.4..., 0.0], [3.2..., 0.0]]

  References:
    Yuan and Lin 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x
    Wen et al. 2016, https://arxiv.org/abs/1608.03665
  """
  lookup('group_weight', group_weight, prox.GROUP_WEIGHTS)
  granularity = granularity or granularities.filters()
  given_layouts = axes.given(layouts)
  if granularity.evenly:
    raise ValueError('granularity n_m has single weights as groups; use proximal_l1')
  if granularity.belongings is not None:
    raise ValueError(
      'granularity filters with bias= or norms= has groups over several leaves; use filters()'
    )
  if granularity.view == 'by_head':
    raise ValueError('granularity heads has groups over several leaves; use another granularity')

  def shrink_layer(values, threshold, divisor, granularity=granularity):
    if divisor is None:
      return prox.group_soft_threshold(values, threshold, granularity, group_weight)
    return prox.group_soft_threshold_in_metric(
      values, threshold, divisor, granularity, group_weight
    )

  def shrink_layers(groups, values, threshold, divisors):
    [leaf], [value], [divisor] = groups.leaves, values, divisors
    view = functools.partial(groups.view, leaf)  # (layers that the leaf stacks, *layer)
    shrink_each = jax.vmap(shrink_layer, in_axes=(0, None, 0))
    shrunk = shrink_each(view(value), threshold, jax.tree.map(view, divisor))
    return [groups.restore(leaf, shrunk)]

  def shrink_together(groups, values, threshold, divisors):
    flat = _Flat(groups)
    given = [None if some[0] is None else flat.joined(some) for some in (values, divisors)]
    shrunk = shrink_layer(given[0], threshold, given[1], flat.granularity())
    parts = zip(values, flat.parted(shrunk), flat.is_tied(), strict=True)
    return [jnp.where(is_tied, new, old) for old, new, is_tied in parts]

  def shrink(values, threshold, divisors, groups):
    how = shrink_together if groups.numbers else shrink_layers
    return placed_like(values)(functools.partial(how, groups))(values, threshold, divisors)

  def find_units(params, chosen):
    return units(params, chosen, granularity, given_layouts)

  return _proximal(
    shrink, strength, learning_rate, momentum, inner, metric, parameters, exclude, find_units
  )


class _Flat:
  """The leaves of tied groups as one vector, for operators on one array."""

  def __init__(self, groups: Groups):
    self._groups = groups
    self._sizes = [math.prod(leaf.shape) for leaf in groups.leaves]

  def joined(self, values: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([value.reshape(-1) for value in values])

  def parted(self, vector: jax.Array) -> list[jax.Array]:
    parts = jnp.split(vector, np.cumsum(self._sizes)[:-1])
    return [part.reshape(f.shape) for part, f in zip(parts, self._groups.leaves, strict=True)]

  def is_tied(self) -> list[jax.Array]:
    """Returns, for each leaf, which of its entries belong to a group."""
    gone = jnp.zeros((1, self._groups.tied_groups), bool)
    return [jnp.logical_not(kept) for kept in self._groups.spread(gone)]

  def granularity(self) -> granularities.Granularity:
    return granularities.Granularity(
      pool=lambda vector: self._groups.pool(self.parted(vector))[0],
      spread=lambda groups, shape: self.joined(self._groups.spread(groups[None])),
    )


def _proximal(
  shrink, strength, learning_rate, momentum, inner, metric, parameters, exclude, find_units=None
):
  """Returns the transformation that applies a proximal operator to the chosen leaves.

  Args:
    shrink: the operator, (values, threshold, divisors or Nones, groups) -> values, each a list of
      the leaves that are shrunk together.
    strength: the weight of the penalty, as in `proximal_l1`.
    learning_rate: the learning rate, as in `proximal_l1`.
    momentum: the decay of `optax.trace`, as in `proximal_l1`.
    inner: an adaptive optimizer to run inside; None runs nothing inside.
    metric: reads from the state of `inner` what it divides by; None for `default_metric`.
    parameters: the choice of leaves, as in `proximal_l1`.
    exclude: the paths that are not chosen, as in `proximal_l1`.
    find_units: (params, chosen) -> the units to shrink, each of one or several leaves; None shrinks
      each chosen leaf alone.
  """
  strength = _make_schedule('strength', strength)
  learning_rate = _make_schedule('learning_rate', learning_rate)
  _check('momentum', momentum, 1, 'a number in [0, 1)')
  if inner is None and metric is not None:
    raise ValueError('metric= needs inner=: it reads what the optimizer given as inner divides by')
  metric = metric or (default_metric if inner is not None else None)
  inner = running_inside(inner)

  def divisors(inner_state, chosen):
    """Returns the metric of each chosen leaf; None for the others, and for all without a metric."""
    if metric is None:
      return jax.tree.map(lambda _: None, chosen)
    preconditioner = metric(inner_state)
    return jax.tree_util.tree_map_with_path(_pick_divisor, preconditioner, chosen, is_leaf=is_hole)

  def shrunk_together(params):
    chosen = tree.choose(params, parameters, exclude)
    if find_units is not None:
      return find_units(params, chosen)
    return [Unit((path,)) for path, is_chosen in tree.named_leaves(chosen).items() if is_chosen]

  def init_fn(params):
    inner_state = inner.init(params)
    _refuse_multi_steps(inner_state)
    # optax.tree.map_params calls init with placeholders that have no shape: nothing to check there.
    if all(hasattr(leaf, 'shape') for leaf in jax.tree.leaves(params)):
      found = shrunk_together(params)  # raises here, before training, if a layout is not clear
      jax.eval_shape(lambda state: divisors(state, _within(found, params)), inner_state)
    return ProximalState(jnp.zeros([], jnp.int32), inner_state)

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
    gain = learning_rate(state.count) / (1 - momentum)
    threshold = strength(state.count) * gain

    found = shrunk_together(params)
    structure = jax.tree.structure(params)
    changed = structure.flatten_up_to(updates)
    of_leaf = tree.named_leaves(params)
    metrics = structure.flatten_up_to(divisors(inner_state, _within(found, params)))
    places = {path: i for i, path in enumerate(of_leaf)}
    for unit in found:
      at = [places[path] for path in unit.paths]
      taken = [_step_of(changed[i], of_leaf[path]) for i, path in zip(at, unit.paths, strict=True)]
      values = [value for value, *_ in taken]
      with jax.numpy_dtype_promotion('standard'):
        widest = jnp.result_type(*values)
      scales = [None if metrics[i] is None else metrics[i].astype(widest) for i in at]
      values = [value.astype(widest) for value in values]
      shrunk = shrink(values, jnp.asarray(threshold, widest), scales, unit.groups)
      for i, new, (_, param, wider) in zip(at, shrunk, taken, strict=True):
        changed[i] = (new - param.astype(widest)).astype(wider)
    updates = jax.tree.unflatten(structure, changed)
    return updates, ProximalState(optax.safe_increment(state.count), inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _within(found: Sequence[Unit], params: Any) -> Any:
  """Returns a tree of bools: whether each leaf belongs to one of the units."""
  paths = {path for unit in found for path in unit.paths}
  return jax.tree.unflatten(jax.tree.structure(params), [p in paths for p in tree.paths(params)])


def _step_of(update: Any, param: Any) -> tuple[jax.Array, jax.Array, Any]:
  """Returns p + u, p, and the dtype of the result.

  That is the wider of the two: -p, rounded to a narrower update, would not give zero. The sum is in
  float32 at least: squares and the sum lose too much in bfloat16.
  """
  update, param = jnp.asarray(update), jnp.asarray(param)
  with jax.numpy_dtype_promotion('standard'):
    wider = jnp.promote_types(update.dtype, param.dtype)
    precise = jnp.promote_types(wider, jnp.float32)
  return param.astype(precise) + update.astype(precise), param, wider


def _refuse_multi_steps(inner_state: optax.OptState) -> None:
  """Raises a ValueError if `inner` has MultiSteps: k small steps would subtract k thresholds."""

  def is_multi(node):
    return isinstance(node, optax.MultiStepsState)

  if any(is_multi(leaf) for leaf in jax.tree.leaves(inner_state, is_leaf=is_multi)):
    raise ValueError('inner has optax.MultiSteps; place that around the whole chain instead')


def _pick_divisor(path, divisor: Any, chosen: Any) -> Any:
  """Returns the divisor of a chosen leaf, and None for one that is not chosen.

  Raises:
    ValueError: a leaf is chosen that `optax.masked` hides from `inner`.
  """
  if not is_hole(divisor):
    return divisor if chosen else None
  if any(jax.tree.leaves(chosen)):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    raise ValueError(f"inner has no second moments of '{name}'; exclude it")
  return jax.tree.map(lambda _: None, chosen)


def _make_schedule(name: str, value: Any) -> optax.Schedule:
  if callable(value):
    return value
  _check(name, value, np.inf, 'a number of 0 or more, or a schedule')
  return lambda count: value


def _check(name: str, value: Any, bound: float, allowed: str) -> None:
  """Raises a ValueError for a number outside [0, bound); a traced one can't be checked.

  A number is traced if `optax.inject_hyperparams` injects it.
  """
  if isinstance(value, Tracer):
    return
  is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
  # NumPy computes the comparison at once, where jnp would trace it inside of jit.
  if not is_number or np.ndim(value) or not 0 <= np.asarray(value) < bound:
    raise ValueError(f'{name}={value} must be {allowed}')
