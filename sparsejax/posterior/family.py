"""Families of posteriors over a layer's weights: what one costs, and its mean and variance.

A group's scale broadcasts against the kernel, (..., inputs, outputs): of shape (inputs, 1) its
groups are inputs, of shape (outputs,) they are outputs, whose bias is scaled and removed with them.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.posterior import kl

Leaves = Mapping[str, jax.Array]  # of one layer
VARIANCE = '_log_variance'
LOG_ALPHA_BOUND = 8.0  # of Sparse VD, on both sides
HORSESHOE_SCALE = 1e-5  # tau_0: s_a^2 has the prior Gamma(1/2, scale tau_0^2)


class Moments(NamedTuple):
  """Mean and variance, both of a leaf's shape."""

  mean: jax.Array
  variance: jax.Array


class Family(NamedTuple):
  """A kind of posterior.

  own: the names of a layer's leaves besides kernel, bias and their log-variances.
  kl: leaves -> nats.
  log_alpha: leaves -> how noisy each weight or group is; it broadcasts against the kernel.
  moments: leaves -> the moments of the kernel and of the bias, if there is one, by name.
  noisy_bias: whether the bias has a posterior of its own.
  """

  own: frozenset[str]
  kl: Callable[[Leaves], jax.Array]
  log_alpha: Callable[[Leaves], jax.Array]
  moments: Callable[[Leaves], dict[str, Moments]]
  noisy_bias: bool

  def names(self, *, bias: bool) -> frozenset[str]:
    """Returns the names of all leaves of a layer, with or without a bias."""
    found = {'kernel', 'kernel_log_variance', *self.own}
    if bias:
      found |= {'bias', 'bias_log_variance'} if self.noisy_bias else {'bias'}
    return frozenset(found)


# Sparse variational dropout: N(theta, alpha theta^2), a log-uniform prior, weights one by one.


def sparse_vd_log_alpha(leaves: Leaves) -> jax.Array:
  """Returns log alpha of each weight, in [-8, 8]."""
  return jnp.clip(_unbounded_log_alpha(leaves), -LOG_ALPHA_BOUND, LOG_ALPHA_BOUND)


def _unbounded_log_alpha(leaves):
  return kl.log_alpha(leaves['kernel'], leaves['kernel_log_variance'])


def _sparse_vd_kl(leaves):
  # Bounded from above alone. A variance that sank under the lower bound before the KL had its
  # weight, which a high learning rate makes of most, would have no gradient any more, from the KL
  # or from the data, and its weight would stay for good: so did 1,341 of 1,558 in LeNet-5's fc1.
  log_alpha = jnp.minimum(_unbounded_log_alpha(leaves), LOG_ALPHA_BOUND)
  return jnp.sum(kl.log_uniform_kl(log_alpha))


def sparse_vd_variance(leaves: Leaves) -> jax.Array:
  """Returns alpha theta^2, with the clipped alpha."""
  return jnp.exp(sparse_vd_log_alpha(leaves)) * jnp.square(leaves['kernel'])


def _sparse_vd_moments(leaves):
  found = {'kernel': Moments(leaves['kernel'], sparse_vd_variance(leaves))}
  if 'bias' in leaves:
    found['bias'] = Moments(leaves['bias'], jnp.zeros_like(leaves['bias']))
  return found


# Bayesian compression: every group's weights are multiplied by a scale, N(0, 1) the prior of each
# weight given it; what differs is the scale.


def _gaussian_kl(leaves):
  names = [name for name in ('kernel', 'bias') if name in leaves]
  return sum(
    jnp.sum(kl.standard_normal_kl(leaves[name], leaves[name + VARIANCE])) for name in names
  )


def _scaled(leaves, scale: Moments) -> dict[str, Moments]:
  """Moments of the products of independent scales and weights; biases go with output groups."""
  found = {}
  for name in ('kernel', 'bias'):
    if name in leaves:
      mean, variance = leaves[name], jnp.exp(leaves[name + VARIANCE])
      if name == 'kernel' or scale.mean.ndim == 1:
        z = Moments(*(against(part, mean) for part in scale))
        variance = jnp.square(z.mean) * variance + z.variance * (jnp.square(mean) + variance)
        mean = mean * z.mean
      found[name] = Moments(mean, variance)
  return found


def against(of_groups: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns values of groups with as many axes as the kernel has, to broadcast against it."""
  return of_groups.reshape((1,) * (kernel.ndim - of_groups.ndim) + of_groups.shape)


def groups_are_inputs(leaves: Leaves) -> bool:
  """Whether a grouped layer's scale is over its inputs, and not over its outputs."""
  scale = leaves['scale_mean'] if 'scale_mean' in leaves else leaves['alpha_mean']
  return scale.ndim == 2


def normal_jeffreys_log_alpha(leaves: Leaves) -> jax.Array:
  """Returns log alpha of each group's scale; not clipped, as the start lies far outside."""
  return kl.log_alpha(leaves['scale_mean'], leaves['scale_log_variance'])


def _normal_jeffreys_kl(leaves):
  scales = kl.log_uniform_kl(normal_jeffreys_log_alpha(leaves))
  return jnp.sum(scales) + _gaussian_kl(leaves)


def _normal_jeffreys_moments(leaves):
  scale = Moments(leaves['scale_mean'], jnp.exp(leaves['scale_log_variance']))
  return _scaled(leaves, scale)


GAMMAS, INVERSE_GAMMAS = ('s_a', 'alpha'), ('s_b', 'beta')
SHARED = ('s_a', 's_b')  # one each for the layer; of alpha and beta each group has its own
# Where the scales begin: z = 1, and s_a at the least KL to a prior as narrow as tau_0. All means at
# 0 would cost 1e10 nats.
_S_A = 2 * math.log(HORSESHOE_SCALE) - 1 - math.log(2)
SCALE_STARTS: dict[str, dict[str, float]] = {
  'group_normal_jeffreys': {'scale_mean': 1.0},
  'group_horseshoe': {'s_a_mean': _S_A, 's_b_mean': -_S_A, 'alpha_mean': 0.0, 'beta_mean': 0.0},
}


def horseshoe_log_scale(leaves: Leaves) -> Moments:
  """Returns mean and variance of log z, z = sqrt(s_a s_b alpha beta) with log-normal factors."""
  names = (*GAMMAS, *INVERSE_GAMMAS)
  mean = jnp.asarray(sum(leaves[f'{name}_mean'] for name in names)) / 2
  variance = jnp.asarray(sum(jnp.exp(leaves[name + VARIANCE]) for name in names)) / 4
  return Moments(mean, variance)


def _horseshoe_log_alpha(leaves):
  log_scale = horseshoe_log_scale(leaves)
  return log_scale.variance - log_scale.mean


def _horseshoe_kl(leaves):
  total = _gaussian_kl(leaves)
  for name, log_scale in (('s_a', 2 * math.log(HORSESHOE_SCALE)), ('alpha', 0.0)):
    mean, log_variance = leaves[f'{name}_mean'], leaves[name + VARIANCE]
    total += jnp.sum(kl.gamma_kl(mean, log_variance, log_scale))
  for name in INVERSE_GAMMAS:
    mean, log_variance = leaves[f'{name}_mean'], leaves[name + VARIANCE]
    total += jnp.sum(kl.inverse_gamma_kl(mean, log_variance))
  return total


def _horseshoe_moments(leaves):
  mean, variance = horseshoe_log_scale(leaves)
  expected = jnp.exp(mean + variance / 2)
  return _scaled(leaves, Moments(expected, jnp.expm1(variance) * jnp.square(expected)))


FAMILIES = {
  'sparse_vd': Family(
    frozenset(), _sparse_vd_kl, sparse_vd_log_alpha, _sparse_vd_moments, noisy_bias=False
  ),
  'group_normal_jeffreys': Family(
    frozenset({'scale_mean', 'scale_log_variance'}),
    _normal_jeffreys_kl,
    normal_jeffreys_log_alpha,
    _normal_jeffreys_moments,
    noisy_bias=True,
  ),
  'group_horseshoe': Family(
    frozenset(
      f'{name}_{what}' for name in (*GAMMAS, *INVERSE_GAMMAS) for what in ('mean', 'log_variance')
    ),
    _horseshoe_kl,
    _horseshoe_log_alpha,
    _horseshoe_moments,
    noisy_bias=True,
  ),
}
