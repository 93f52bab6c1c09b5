r"""Sparse variational dropout: N(theta, alpha theta^2) for each weight, with a log-uniform prior.

References:
  Molchanov, Ashukha and Vetrov 2017, https://arxiv.org/abs/1701.05369
"""

import jax
import jax.numpy as jnp

from sparsejax.posterior.families import kl
from sparsejax.posterior.families.family import (
  Family,
  Leaf,
  Leaves,
  Linear,
  Moments,
  Noise,
  along,
  gaussian,
)

BOUND = 8.0  # log alpha is clipped to [-8, 8]


def log_alpha(leaves: Leaves) -> jax.Array:
  """Returns log alpha of each weight, in [-8, 8]."""
  return jnp.clip(_unbounded_log_alpha(leaves), -BOUND, BOUND)


def _unbounded_log_alpha(leaves):
  return kl.log_alpha(leaves['kernel'], leaves['kernel_log_variance'])


def _kl(leaves):
  # Log alpha is bounded only from above here. A high learning rate sinks most variances under the
  # lower bound before the KL reaches its full weight. With a lower bound such a variance would have
  # no gradient any more, from the KL or the data, and its weight would stay for good, as 1,341 of
  # 1,558 did in LeNet-5's fc1.
  bounded = jnp.minimum(_unbounded_log_alpha(leaves), BOUND)
  return jnp.sum(kl.log_uniform_kl(bounded))


def variance(leaves: Leaves) -> jax.Array:
  """Returns alpha theta^2, with alpha clipped."""
  return jnp.exp(log_alpha(leaves)) * jnp.square(leaves['kernel'])


def _moments(leaves):
  found = {'kernel': Moments(leaves['kernel'], variance(leaves))}
  if 'bias' in leaves:
    found['bias'] = Moments(leaves['bias'], jnp.zeros_like(leaves['bias']))
  return found


def draw(
  leaves: Leaves, x: jax.Array, linear: Linear, noise: Noise, *, threshold: float | None = None
) -> jax.Array:
  r"""Samples the outputs of a layer with weights N(theta, alpha theta^2).

  .. math:: y = x * \theta + \sqrt{x^2 * \alpha\theta^2 + 10^{-8}} \, \epsilon + b

  with * the layer's linear map.

  Args:
    leaves: kernel, kernel_log_variance and perhaps bias.
    x: (examples, ..., inputs).
    linear: the layer's linear map.
    noise: a function from a shape to draws from N(0, 1).
    threshold: where log alpha is at or above it, theta counts as 0 in the mean, so that in training
      a weight that will be removed is already pure noise; None trains without this mask.
  """
  kernel = leaves['kernel']
  if threshold is not None:
    kernel = jnp.where(log_alpha(leaves) >= threshold, 0.0, kernel)
  y = gaussian(linear(x, kernel), linear(jnp.square(x), variance(leaves)), noise)
  return y + along(leaves['bias'], y) if 'bias' in leaves else y


SPARSE_VD = Family(
  leaves={'kernel_log_variance': Leaf('weight')},
  kl=_kl,
  log_alpha=log_alpha,
  moments=_moments,
  draw=draw,
  threshold=3.0,
  log_variance=-10.0,
  bound=BOUND,
  masks=True,
)
