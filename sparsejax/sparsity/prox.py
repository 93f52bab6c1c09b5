"""Shrinkage: the proximal operators of L1 and of the group lasso, on one array.

A proximal operator answers: which x is near the values and has a small penalty? Both of these give
exact zeros, the one of single weights, the other of whole groups.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.parts import granularity as granularities

# Weights of the groups' norms, from their sizes: Yuan and Lin 2006, and Wen et al. 2016.
GROUP_WEIGHTS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'sqrt_size': jnp.sqrt,
  'one': jnp.ones_like,
}
# Newton's steps rise to the root without passing it, and double the digits near it: in metrics that
# span eight decades within a group, 8 reached 2e-5 of its length at worst, 10 float32's last digit.
# The step from where the equation is met to the tolerance, whose error is its square, is the last.
NEWTON_STEPS = 12
NEWTON_TOLERANCE = 1e-4


def soft_threshold(values: jax.Array, threshold: jax.Array | np.ndarray | float) -> jax.Array:
  r"""Moves every value towards zero by the threshold, and to zero what is nearer than that.

  .. math:: x_i = \mathrm{sign}(v_i) \max(|v_i| - t, 0)
            = \arg\min_x \tfrac12 (x - v_i)^2 + t |x|

  Args:
    values: an array of any shape.
    threshold: 0 or more, in the values' unit; a scalar, or one for each value.

  Returns:
    An array of the values' shape.

  Example:
    >>> soft_threshold(jnp.array([3.0, -0.5, -2.0]), 1.0).tolist()
    [2.0, 0.0, -1.0]
  """
  # Not sign(v) max(|v| - t, 0), which is the same but for -0.0 where a negative value goes.
  return values - jnp.clip(values, -threshold, threshold)


def group_soft_threshold(
  values: jax.Array,
  threshold: jax.typing.ArrayLike,
  granularity: granularities.Granularity | None = None,
  group_weight: str = 'sqrt_size',
) -> jax.Array:
  r"""Shortens every group by the threshold times its weight, and to zero what is shorter than that.

  .. math:: x_g = v_g \max(1 - t w_g / \|v_g\|, 0)
            = \arg\min_x \tfrac12 \|x - v_g\|^2 + t w_g \|x\|

  Args:
    values: one kernel, (..., inputs, outputs).
    threshold: a scalar, 0 or more, in the values' unit.
    granularity: what is a group; `filters()` by default.
    group_weight: w_g, 'sqrt_size' (the root of the number of weights in the group) or 'one'.

  Returns:
    An array of the values' shape. A group of zeros stays one, at threshold 0 and in gradients too.

  Raises:
    ValueError: an unknown group weight.

  Example:
    >>> kernel = jnp.array([[3.0, 0.3], [4.0, 0.4]])  # two filters, of length 5 and 0.5
    >>> group_soft_threshold(kernel, 1.0, group_weight='one').tolist()
    [[2.4..., 0.0], [3.2..., 0.0]]

  References:
    Yuan and Lin 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x
    Wen et al. 2016, https://arxiv.org/abs/1608.03665
  """
  granularity = granularity or granularities.filters()
  bound = threshold * _weights(values, granularity, group_weight)
  square = granularity.pool(jnp.square(values))
  alive = square > 0
  norm = jnp.sqrt(jnp.where(alive, square, 1.0))
  factor = jnp.where(alive, jnp.maximum(1.0 - bound / norm, 0.0), 0.0)
  return values * granularity.spread(factor, values.shape)


def group_soft_threshold_in_metric(
  values: jax.Array,
  threshold: jax.typing.ArrayLike,
  metric: jax.Array,
  granularity: granularities.Granularity | None = None,
  group_weight: str = 'sqrt_size',
) -> jax.Array:
  r"""`group_soft_threshold` where a distance in weight i counts metric_i times.

  .. math:: x_g = \arg\min_x \tfrac12 \sum_{i \in g} d_i (x_i - v_i)^2 + t w_g \|x\|

  The solution is zero where :math:`\|d v\| \le k = t w_g`, else :math:`x_i = v_i d_i r / (d_i r +
  k)`, whose own length r has no closed form. It is the root of :math:`\sum_i (d_i v_i)^2 / (d_i r
  + k)^2 = 1`, which a few of Newton's steps find for all groups at once.

  Args:
    values: one kernel, (..., inputs, outputs).
    threshold: a scalar, 0 or more, in the values' unit times the metric's.
    metric: d, of the values' shape, 0 or more: of Adam sqrt(v_hat) + eps.
    granularity: what is a group; `filters()` by default.
    group_weight: w_g, 'sqrt_size' or 'one'.

  Returns:
    An array of the values' shape.

  Raises:
    ValueError: an unknown group weight.

  Example:
    >>> kernel = jnp.array([[3.0, 0.3], [4.0, 0.4]])
    >>> group_soft_threshold_in_metric(kernel, 4.0, jnp.full((2, 2), 4.0), None, 'one').tolist()
    [[2.4..., 0.0], [3.2..., 0.0]]

  References:
    Conn, Gould and Toint 2000, Trust-Region Methods, section 7.3 (the same equation)
  """
  granularity = granularity or granularities.filters()
  bound = threshold * _weights(values, granularity, group_weight)
  pull = jnp.sqrt(granularity.pool(jnp.square(metric * values)))
  alive = pull > bound
  wide_bound = granularity.spread(bound, values.shape)
  tiny = jnp.finfo(values.dtype).tiny

  def newton(carried):
    """One step on 1 / ||a(r)|| = 1, which is concave in r: from below it stays below."""
    steps, length, _ = carried
    inverse = 1.0 / jnp.maximum(
      metric * granularity.spread(length, values.shape) + wide_bound, tiny
    )
    square = jnp.square(metric * values * inverse)
    total = jnp.where(alive, granularity.pool(square), 1.0)
    slope = jnp.where(alive, granularity.pool(square * metric * inverse), 1.0)
    length = length + total / slope * (jnp.sqrt(total) - 1.0)
    return steps + 1, length, jnp.any(total > 1.0 + NEWTON_TOLERANCE)

  def goes_on(carried):
    steps, _, unsolved = carried
    return (steps < NEWTON_STEPS) & unsolved

  # Below the root, as no d_i is larger than their common length.
  size = jnp.sqrt(granularity.pool(jnp.square(metric)))
  start = jnp.where(alive, (pull - bound) / jnp.where(alive, size, 1.0), 0.0)
  _, length, _ = jax.lax.while_loop(goes_on, newton, (0, start, jnp.any(alive)))
  scaled = metric * granularity.spread(jnp.where(alive, length, 0.0), values.shape)
  shrunk = values * scaled / jnp.maximum(scaled + wide_bound, tiny)
  return jnp.where(wide_bound > 0, shrunk, values)


def _weights(values, granularity, group_weight):
  weigh = lookup('group_weight', group_weight, GROUP_WEIGHTS)
  return weigh(granularity.pool(jnp.ones_like(values)))
