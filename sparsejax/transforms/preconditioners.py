"""The diagonal preconditioners of adaptive optimizers, read from their states.

A proximal step around such an optimizer is taken in the metric of its preconditioner.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

# A function from an optimizer's state after an update to what it divided the update by, a tree with
# the parameters' structure: sqrt(v_hat) + eps for Adam.
Metric = Callable[[optax.OptState], optax.Params]


def adam_metric(b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
  r"""Returns a function that reads from Adam's state what it divides its updates by.

  .. math:: \sqrt{\nu / (1 - b_2^{count}) + \epsilon_{root}} + \epsilon

  It fits `optax.adam`, `adamw`, `nadam`, `nadamw` and `scale_by_adam`, and `yogi` with `eps=1e-3`.
  `adamax` and `radam` have the same state but divide by something else.

  Args:
    b2: the decay of the second moment, as given to the optimizer.
    eps: the term added to the root, as given to the optimizer.
    eps_root: the term added under the root, as given to the optimizer.

  Example:
    >>> adam = optax.scale_by_adam(b2=0.75)
    >>> grad = {'kernel': jnp.array([[2.0, -4.0]])}
    >>> _, state = adam.update(grad, adam.init(grad))
    >>> adam_metric(b2=0.75)(state)['kernel'].tolist()
    [[2.0, 4.0]]
  """

  def metric(inner_state):
    state = _find_only(inner_state, optax.ScaleByAdamState)
    moments = optax.tree.bias_correction(state.nu, b2, state.count)
    return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, moments)

  return metric


def rms_metric(eps: float = 1e-8, eps_in_sqrt: bool = True) -> Metric:
  r"""Returns a function that reads from RMSProp's state what it divides its updates by.

  .. math:: \sqrt{\nu + \epsilon} \quad \text{or} \quad \sqrt{\nu} + \epsilon

  It fits `optax.rmsprop` and `scale_by_rms` without bias correction.

  Args:
    eps: the term added to avoid a division by zero, as given to the optimizer.
    eps_in_sqrt: whether it is added under the root, as given to the optimizer.

  Example:
    >>> rms = optax.scale_by_rms(decay=0.0)
    >>> grad = {'kernel': jnp.array([[2.0, -4.0]])}
    >>> _, state = rms.update(grad, rms.init(grad))
    >>> rms_metric()(state)['kernel'].tolist()
    [[2.0, 4.0]]
  """

  def metric(inner_state):
    inside, outside = (eps, 0.0) if eps_in_sqrt else (0.0, eps)
    moments = _find_only(inner_state, optax.ScaleByRmsState).nu
    return jax.tree.map(lambda v: jnp.sqrt(v + inside) + outside, moments)

  return metric


def amsgrad_metric(eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
  r"""Returns a function that reads from AMSGrad's state what it divides its updates by.

  .. math:: \sqrt{\nu_{max} + \epsilon_{root}} + \epsilon

  Args:
    eps: the term added to the root, as given to the optimizer.
    eps_root: the term added under the root, as given to the optimizer.

  Example:
    >>> amsgrad = optax.scale_by_amsgrad(b2=0.75)
    >>> grad = {'kernel': jnp.array([[2.0, -4.0]])}
    >>> _, state = amsgrad.update(grad, amsgrad.init(grad))
    >>> amsgrad_metric()(state)['kernel'].tolist()
    [[2.0, 4.0]]
  """

  def metric(inner_state):
    moments = _find_only(inner_state, optax.ScaleByAmsgradState).nu_max
    return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, moments)

  return metric


# {the state that a metric reads: the metric, with the defaults of Optax's optimizer}
_METRICS: dict[type, Callable[..., Metric]] = {
  optax.ScaleByAdamState: adam_metric,
  optax.ScaleByRmsState: rms_metric,
  optax.ScaleByAmsgradState: amsgrad_metric,
}


def default_metric(inner_state: optax.OptState) -> optax.Params:
  """Returns the metric of the only adaptive optimizer in `inner_state`, with Optax's defaults."""
  state = _find_only(inner_state, tuple(_METRICS))
  return _METRICS[type(state)]()(inner_state)


def _find_only(inner_state: optax.OptState, types: type | tuple[type, ...]) -> Any:
  """Returns the only state of one of these types within an optimizer's state.

  Raises:
    ValueError: it has none or several.
  """
  leaves = jax.tree.leaves(inner_state, is_leaf=lambda node: isinstance(node, types))
  matches = [leaf for leaf in leaves if isinstance(leaf, types)]
  if len(matches) == 1:
    return matches[0]
  types = types if isinstance(types, tuple) else (types,)
  names = ' or '.join(kind.__name__ for kind in types)
  advice = (
    'give each of them a proximal transformation of its own'
    if matches
    else 'an optimizer without second moments goes before the proximal transformation, not inside'
  )
  raise ValueError(f'inner has {len(matches)} states of {names}; it must have one: {advice}')
