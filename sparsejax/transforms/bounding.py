"""Bounds on posterior variances as a link behind the learning rate."""

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
  r"""Keeps posterior variances from growing beyond a maximum.

  .. math:: u' = \min(p + u, \log v_{max}) - p

  for the log-variances p. A first layer whose noise may grow lets go of inputs that it needs,
  before the others have learned to use them. Place it **behind the learning rate**.

  Args:
    maximum: v_max, the largest variance, above 0.
    parameters: which leaves are bounded, a function of (path, leaf): by default the log-variances
      of all kernels and biases, not those of scales. `posterior.weight_variances('^fc1/')` chooses
      a layer's.

  Returns:
    A transformation without a state, whose updates are of the wider dtype of updates and
    parameters, where chosen.

  Raises:
    ValueError: at once, a maximum that is not above 0; at `init`, a choice of nothing; at `update`,
      without `params`.

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

    def move(chosen, update, param):
      if not chosen:
        return update
      wider = jnp.promote_types(update.dtype, param.dtype)
      param = param.astype(wider)
      return jnp.minimum(param + update, jnp.asarray(math.log(maximum), wider)) - param

    return jax.tree.map(move, tree.choose(params, parameters), updates, params), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
