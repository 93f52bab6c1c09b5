"""Bayesian compression: the weights of a group share a random scale, times weights of N(0, 1).

A scale broadcasts against the kernel, (..., inputs, outputs). With shape (inputs, 1) its groups are
inputs; with shape (outputs,) they are outputs, whose bias is scaled and removed with them. Families
differ in the prior of the scale.

References:
  Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sparsejax.posterior.families import kl
from sparsejax.posterior.families.family import (
  MEAN,
  MEANS,
  VARIANCE,
  Leaf,
  Leaves,
  Linear,
  Moments,
  Noise,
  along,
  broadcast_groups,
  gaussian,
)

SPREAD = 0.01  # the initial standard deviation of log-variances and scales
WEIGHTS = {
  'kernel_log_variance': Leaf('weight', spread=SPREAD),
  'bias_log_variance': Leaf('bias', spread=SPREAD),
}


def weights_kl(leaves: Leaves) -> jax.Array:
  """Returns the KL from the posterior of kernel and bias to N(0, 1)."""
  names = [name for name in MEANS if name in leaves]
  costs = [kl.standard_normal_kl(leaves[name], leaves[name + VARIANCE]) for name in names]
  return jnp.asarray(sum(map(jnp.sum, costs)))


def scaled(leaves: Leaves, scale: Moments) -> dict[str, Moments]:
  """Returns the moments of the products of independent scales and weights.

  A bias is scaled only if the groups are outputs.
  """
  found = {}
  for name in MEANS:
    if name in leaves:
      mean, variance = leaves[name], jnp.exp(leaves[name + VARIANCE])
      if name == 'kernel' or scale.mean.ndim == 1:
        z = Moments(*(broadcast_groups(part, mean) for part in scale))
        variance = jnp.square(z.mean) * variance + z.variance * (jnp.square(mean) + variance)
        mean = mean * z.mean
      found[name] = Moments(mean, variance)
  return found


def are_inputs(leaves: Leaves) -> bool:
  """Returns whether a layer's groups are inputs, not outputs, by the shape of its scales."""
  return next(leaf for name, leaf in leaves.items() if name.endswith(MEAN)).ndim == 2


def draw(
  leaves: Leaves,
  x: jax.Array,
  linear: Linear,
  noise: Noise,
  *,
  draw_scale: Callable[[Leaves, Noise, int], jax.Array],
) -> jax.Array:
  r"""Samples the outputs of a layer whose groups have scales z, one draw for each example.

  .. math::
    \text{inputs: } & N((xz) * \mu + b, \; (xz)^2 * s^2 + s_b^2) \\
    \text{outputs: } & z \, N(x * \mu + b, \; x^2 * s^2 + s_b^2)

  Args:
    leaves: the leaves of a layer of a family with groups.
    x: (examples, ..., inputs).
    linear: the layer's linear map.
    noise: a function from a shape to draws from N(0, 1).
    draw_scale: (leaves, noise, examples) -> z, (examples, groups).
  """
  scale = draw_scale(leaves, noise, len(x))
  scale = scale.reshape(len(x), *(1,) * (x.ndim - 2), -1).astype(x.dtype)
  if are_inputs(leaves):
    x = x * scale
  mean = linear(x, leaves['kernel'])
  variance = linear(jnp.square(x), jnp.exp(leaves['kernel_log_variance']))
  if 'bias' in leaves:
    mean += along(leaves['bias'], mean)
    variance += along(jnp.exp(leaves['bias_log_variance']), variance)
  y = gaussian(mean, variance, noise)
  return y if are_inputs(leaves) else y * scale
