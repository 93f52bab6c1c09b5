"""Shrinkage: the proximal operators of the L1 penalty and of the group lasso, on one array.

A proximal operator maps values v to the x that minimises |x - v|^2 / 2 + penalty(x). L1 sets single
weights to exactly zero, and the group lasso whole groups.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.parts import granularity as granularities

# {name: the weight w_g of a group's norm, from its size}: Yuan and Lin 2006, Wen et al. 2016.
GROUP_WEIGHTS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'sqrt_size': jnp.sqrt,
  'one': jnp.ones_like,
}
# Newton's iteration approaches the root from below and converges quadratically. In metrics that
# span eight decades within a group, 8 steps reached a relative error of 2e-5 at worst, and 10 the
# precision of float32.
# A step from within the tolerance is the last: its error is about the tolerance squared.
NEWTON_STEPS = 12
NEWTON_TOLERANCE = 1e-4


def soft_threshold(values: jax.Array, threshold: jax.Array | np.ndarray | float) -> jax.Array:
  r"""Shrinks every value towards zero by the threshold, and sets smaller ones to zero.

  .. math:: x_i = \mathrm{sign}(v_i) \max(|v_i| - t, 0)
            = \arg\min_x \tfrac12 (x - v_i)^2 + t |x|

  Args:
    values: an array of any shape.
    threshold: t, 0 or more; a scalar, or one threshold for each value.

  Returns:
    An array with the shape of the values.

  Example:
    >>> soft_threshold(jnp.array([3.0, -0.5, -2.0]), 1.0).tolist()
    [2.0, 0.0, -1.0]
  """
  # Unlike sign(v) max(|v| - t, 0), this never returns -0.0.
  return values - jnp.clip(values, -threshold, threshold)


def group_soft_threshold(
  values: jax.Array,
  threshold: jax.typing.ArrayLike,
  granularity: granularities.Granularity | None = None,
  group_weight: str = 'sqrt_size',
) -> jax.Array:
  r"""Shortens every group by the threshold times its weight, and sets shorter ones to zero.

  .. math:: x_g = v_g \max(1 - t w_g / \|v_g\|, 0)
            = \arg\min_x \tfrac12 \|x - v_g\|^2 + t w_g \|x\|

  Args:
    values: v, one kernel of shape (..., inputs, outputs).
    threshold: t, a scalar, 0 or more.
    granularity: the groups; `filters()` by default.
    group_weight: w_g, 'sqrt_size' (the root of the number of weights in the group) or 'one'.

  Returns:
    An array with the shape of the values. A group of zeros stays zero, and its gradient is finite,
    even if the threshold is 0.

  Raises:
    ValueError: `group_weight` is unknown.

  Example:
    >>> kernel = jnp.array([[3.0, 0.3], [4.0, 0.4]])  # two filters, of length 5 and 0.5
    >>> group_soft_threshold(kernel, 1.0, group_weight='one').tolist()
    [[2.4..., 0.0], [3.2..., 0.0]]

  References:
    Yuan and Lin 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x
    Wen et al. 2016, https://arxiv.org/abs/1608.03665
  """
  granularity = granularity or granularities.filters()
  bound = threshold * _group_weights(values, granularity, group_weight)
  square = granularity.pool(jnp.square(values))
  is_nonzero = square > 0
  # The derivative of sqrt at 0 is infinite, and would make the gradient NaN even where unused.
  norm = jnp.sqrt(jnp.where(is_nonzero, square, 1.0))
  factor = jnp.where(is_nonzero, jnp.maximum(1.0 - bound / norm, 0.0), 0.0)
  return values * granularity.spread(factor, values.shape)


def group_soft_threshold_in_metric(
  values: jax.Array,
  threshold: jax.typing.ArrayLike,
  metric: jax.Array,
  granularity: granularities.Granularity | None = None,
  group_weight: str = 'sqrt_size',
) -> jax.Array:
  r"""Returns the group lasso's proximal operator in a diagonal metric, such as Adam's.

  .. math:: x_g = \arg\min_x \tfrac12 \sum_{i \in g} d_i (x_i - v_i)^2 + t w_g \|x\|

  With k = t w_g, the solution is zero if :math:`\|d v\| \le k`, and else :math:`x_i = v_i d_i r /
  (d_i r + k)` with r = ||x||. There is no closed form for r, but it is the root of :math:`\sum_i
  (d_i v_i)^2 / (d_i r + k)^2 = 1`, which Newton's iteration finds in a few steps, for all groups at
  once.

  Args:
    values: v, one kernel of shape (..., inputs, outputs).
    threshold: t, a scalar, 0 or more.
    metric: d, with the shape of the values, 0 or more; for Adam sqrt(v_hat) + eps.
    granularity: the groups; `filters()` by default.
    group_weight: w_g, 'sqrt_size' or 'one'.

  Returns:
    An array with the shape of the values.

  Raises:
    ValueError: `group_weight` is unknown.

  Example:
    >>> kernel = jnp.array([[3.0, 0.3], [4.0, 0.4]])
    >>> group_soft_threshold_in_metric(kernel, 4.0, jnp.full((2, 2), 4.0), None, 'one').tolist()
    [[2.4..., 0.0], [3.2..., 0.0]]

  References:
    Conn, Gould and Toint 2000, Trust-Region Methods, section 7.3 (the same equation)
  """
  granularity = granularity or granularities.filters()
  bound = threshold * _group_weights(values, granularity, group_weight)  # k, for each group
  weighted_norm = jnp.sqrt(granularity.pool(jnp.square(metric * values)))
  is_nonzero = weighted_norm > bound
  bound_of_weight = granularity.spread(bound, values.shape)
  tiny = jnp.finfo(values.dtype).tiny

  def newton_step(carry):
    """Takes one step on s(r)^-1/2 = 1, with s the sum above.

    s^-1/2 is concave in r, so that an iteration that starts below the root stays below it.
    """
    steps, length, _ = carry
    inverse = 1.0 / jnp.maximum(
      metric * granularity.spread(length, values.shape) + bound_of_weight, tiny
    )
    square = jnp.square(metric * values * inverse)
    total = jnp.where(is_nonzero, granularity.pool(square), 1.0)
    slope = jnp.where(is_nonzero, granularity.pool(square * metric * inverse), 1.0)
    length = length + total / slope * (jnp.sqrt(total) - 1.0)
    return steps + 1, length, jnp.any(total > 1.0 + NEWTON_TOLERANCE)

  def is_unfinished(carry):
    steps, _, is_unsolved = carry
    return (steps < NEWTON_STEPS) & is_unsolved

  # The start is below the root: it is the root if every d_i is replaced by ||d||, which is larger.
  metric_norm = jnp.sqrt(granularity.pool(jnp.square(metric)))
  start = (weighted_norm - bound) / jnp.where(is_nonzero, metric_norm, 1.0)
  start = jnp.where(is_nonzero, start, 0.0)
  _, length, _ = jax.lax.while_loop(is_unfinished, newton_step, (0, start, jnp.any(is_nonzero)))
  scaled = metric * granularity.spread(jnp.where(is_nonzero, length, 0.0), values.shape)
  shrunk = values * scaled / jnp.maximum(scaled + bound_of_weight, tiny)
  return jnp.where(bound_of_weight > 0, shrunk, values)  # exactly the values at threshold 0


def _group_weights(values, granularity, group_weight):
  """Returns w_g for each group, from the number of its weights."""
  weigh = lookup('group_weight', group_weight, GROUP_WEIGHTS)
  return weigh(granularity.pool(jnp.ones_like(values)))
