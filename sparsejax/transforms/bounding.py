"""Bounds on posterior variances as a link behind the learning rate."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax._src.base import NO_PARAMS_MSG

from sparsejax.sparsity import posterior, tree


def bound_variances(maximum: float, *, where: str = '') -> optax.GradientTransformation:
  r"""Keeps posterior variances from growing beyond a maximum.

  .. math:: u' = \min(p + u, \log v_{max}) - p

  for the log-variances p. A first layer whose noise may grow lets go of inputs that it needs,
  before the others have learned to use them. Place it **behind the learning rate**.

  Args:
    maximum: v_max, the largest variance, above 0.
    where: a regular expression searched for in the paths of the log-variances that are bounded; all
      of the kernels' and biases' by default, never those of scales.

  Returns:
    A transformation without a state.

  Raises:
    ValueError: at once, a maximum that is not above 0 or no regular expression; at `init`, one that
      no log-variance matches; at `update`, without `params`.

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
    raise ValueError(f'maximum={maximum}: allowed is a variance above 0')
  [pattern] = tree.patterns(where)

  def is_bounded(path: str, leaf: Any) -> bool:
    del leaf
    return path.rsplit('/', 1)[-1] in BOUNDED and bool(re.search(pattern, path))

  def init_fn(params):
    named = tree.named_leaves(params)
    if named and not any(is_bounded(path, leaf) for path, leaf in named.items()):
      raise ValueError(
        f'bound_variances: where={where!r} matches no log-variance; there are: '
        f'{", ".join(p for p in named if p.endswith(posterior.VARIANCE)) or "none"}'
      )
    return optax.EmptyState()

  def update_fn(updates, state, params=None):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    bounded = jax.tree.unflatten(
      jax.tree.structure(params),
      [is_bounded(path, leaf) for path, leaf in tree.named_leaves(params).items()],
    )

    def move(chosen, update, param):
      if not chosen:
        return update
      return (jnp.minimum(param + update, math.log(maximum)) - param).astype(update.dtype)

    return jax.tree.map(move, bounded, updates, params), state

  return optax.GradientTransformation(init_fn, update_fn)


BOUNDED = ('kernel_log_variance', 'bias_log_variance')
