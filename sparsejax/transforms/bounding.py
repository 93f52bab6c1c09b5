"""An upper bound on posterior variances, as a transformation after the learning rate."""

import math

import jax
import jax.numpy as jnp
import optax

from sparsejax import posterior
from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import tree


def bound_variances(
  maximum: float, *, parameters: tree.Choice = posterior.is_weight_variance
) -> optax.GradientTransformationExtraArgs:
  r"""Limits updates so that posterior variances stay at or below a maximum.

  .. math:: u' = \min(p + u, \log v_{max}) - p

  for the log-variances p. Without a bound, a first layer may prune inputs that the layers after it
  have not learned to use yet. Place it **after the learning rate**.

  Args:
    maximum: v_max, the largest variance, above 0.
    parameters: a function (path, leaf) -> bool that chooses the leaves to bound: by default the
      log-variances of all kernels and biases, but not those of scales.
      `posterior.weight_variances('^fc1/')` chooses those of one layer.

  Returns:
    A stateless transformation. Updates of chosen leaves have the wider dtype of updates and
    parameters.

  Raises:
    ValueError: when called, if `maximum` is not above 0; at `init`, if no leaf is chosen; at
      `update`, if `params` are missing.

  Example:
    >>> tx = bound_variances(1.0)
    >>> params = {'fc': {'kernel_log_variance': jnp.array([-0.1, -3.0])}}
    >>> ups = jax.tree.map(jnp.ones_like, params)
    >>> updates, _ = tx.update(ups, tx.init(params), params)
    >>> optax.apply_updates(params, updates)['fc']['kernel_log_variance'].tolist()
    [0.0, -2.0]

  References:
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665
  """
  if not 0 < maximum < math.inf:
    raise ValueError(f'maximum={maximum} must be a variance above 0')

  def init_fn(params):
    if all(hasattr(leaf, 'shape') for leaf in jax.tree.leaves(params)):
      tree.choose(params, parameters)
    return optax.EmptyState()

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    if params is None:
      raise ValueError(NO_PARAMS_MSG)

    def bound(chosen, update, param):
      if not chosen:
        return update
      wider = jnp.promote_types(update.dtype, param.dtype)
      param = param.astype(wider)
      return jnp.minimum(param + update, jnp.asarray(math.log(maximum), wider)) - param

    return jax.tree.map(bound, tree.choose(params, parameters), updates, params), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
