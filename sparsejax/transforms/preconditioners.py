"""What an adaptive optimizer divides by, read from its state: the metric of a proximal step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

# From the state of an optimizer after an update to what that update was divided by, a tree as the
# parameters': sqrt(v_hat) + eps of Adam.
Metric = Callable[[optax.OptState], optax.Params]


def adam_metric(b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
  r"""What Adam divides by: :math:`\sqrt{\nu / (1 - b_2^{count}) + \epsilon_{root}} + \epsilon`.

  Of `optax.adam`, `adamw`, `nadam`, `nadamw` and `scale_by_adam`. `yogi` keeps the same state with
  eps 1e-3; `adamax` and `radam` do too, and divide by something else.

  Args:
    b2: as given to the optimizer, and so the others.
    eps: added to the root.
    eps_root: added inside it.

  Example:
    >>> adam = optax.scale_by_adam(b2=0.75)
    >>> grad = {'kernel': jnp.array([[2.0, -4.0]])}
    >>> _, state = adam.update(grad, adam.init(grad))
    >>> adam_metric(b2=0.75)(state)['kernel'].tolist()
    [[2.0, 4.0]]
  """

  def metric(inner_state):
    state = _only(inner_state, optax.ScaleByAdamState)
    moments = optax.tree.bias_correction(state.nu, b2, state.count)
    return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, moments)

  return metric


def rms_metric(eps: float = 1e-8, eps_in_sqrt: bool = True) -> Metric:
  r"""What RMSProp divides by: :math:`\sqrt{\nu + \epsilon}`, or :math:`\sqrt{\nu} + \epsilon`.

  Of `optax.rmsprop` and `scale_by_rms`, without their bias correction.

  Args:
    eps: as given to the optimizer.
    eps_in_sqrt: likewise.

  Example:
    >>> rms = optax.scale_by_rms(decay=0.0)
    >>> grad = {'kernel': jnp.array([[2.0, -4.0]])}
    >>> _, state = rms.update(grad, rms.init(grad))
    >>> rms_metric()(state)['kernel'].tolist()
    [[2.0, 4.0]]
  """

  def metric(inner_state):
    inside, outside = (eps, 0.0) if eps_in_sqrt else (0.0, eps)
    moments = _only(inner_state, optax.ScaleByRmsState).nu
    return jax.tree.map(lambda v: jnp.sqrt(v + inside) + outside, moments)

  return metric


def amsgrad_metric(eps: float = 1e-8, eps_root: float = 0.0) -> Metric:
  r"""What AMSGrad divides by: :math:`\sqrt{\nu_{max} + \epsilon_{root}} + \epsilon`.

  Args:
    eps: as given to the optimizer.
    eps_root: likewise.

  Example:
    >>> amsgrad = optax.scale_by_amsgrad(b2=0.75)
    >>> grad = {'kernel': jnp.array([[2.0, -4.0]])}
    >>> _, state = amsgrad.update(grad, amsgrad.init(grad))
    >>> amsgrad_metric()(state)['kernel'].tolist()
    [[2.0, 4.0]]
  """

  def metric(inner_state):
    moments = _only(inner_state, optax.ScaleByAmsgradState).nu_max
    return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, moments)

  return metric


# By the state that it reads, each of them with the defaults of Optax's functions.
_METRICS: dict[type, Callable[..., Metric]] = {
  optax.ScaleByAdamState: adam_metric,
  optax.ScaleByRmsState: rms_metric,
  optax.ScaleByAmsgradState: amsgrad_metric,
}


def default_metric(inner_state: optax.OptState) -> optax.Params:
  """The metric of the one adaptive optimizer in `inner_state`, with Optax's default settings."""
  state = _only(inner_state, tuple(_METRICS))
  return _METRICS[type(state)]()(inner_state)


def _only(inner_state: optax.OptState, kinds: type | tuple[type, ...]) -> Any:
  """The one state of these kinds, wherever it is in the inner state."""
  leaves = jax.tree.leaves(inner_state, is_leaf=lambda node: isinstance(node, kinds))
  found = [leaf for leaf in leaves if isinstance(leaf, kinds)]
  if len(found) == 1:
    return found[0]
  kinds = kinds if isinstance(kinds, tuple) else (kinds,)
  names = ' or '.join(kind.__name__ for kind in kinds)
  advice = (
    'several of them each need a proximal link of their own'
    if found
    else 'put the proximal link behind an optimizer without second moments instead of around it'
  )
  raise ValueError(f'inner holds {len(found)} of {names}; it must hold one: {advice}')
