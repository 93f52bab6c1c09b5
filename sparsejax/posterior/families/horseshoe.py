"""Bayesian compression with the horseshoe prior: half-Cauchy scales, of groups and of the layer.

A half-Cauchy variable is the root of a Gamma times an inverse Gamma variable, so that a group's
scale is z = sqrt(s_a s_b alpha beta), with s_a and s_b one each for the layer.
"""

import functools
import math

import jax
import jax.numpy as jnp

from sparsejax.posterior.families import groups, kl
from sparsejax.posterior.families.family import VARIANCE, Family, Leaf, Leaves, Moments

SCALE = 1e-5  # tau_0: s_a^2 has the prior Gamma(1/2, scale tau_0^2)
LOG_SCALE = 2 * math.log(SCALE)
GAMMAS, INVERSE_GAMMAS = ('s_a', 'alpha'), ('s_b', 'beta')


def log_scale(leaves: Leaves) -> Moments:
  """Returns mean and variance of log z, z = sqrt(s_a s_b alpha beta) with log-normal factors."""
  names = (*GAMMAS, *INVERSE_GAMMAS)
  mean = jnp.asarray(sum(leaves[f'{name}_mean'] for name in names)) / 2
  variance = jnp.asarray(sum(jnp.exp(leaves[name + VARIANCE]) for name in names)) / 4
  return Moments(mean, variance)


def log_alpha(leaves: Leaves) -> jax.Array:
  """Returns variance minus mean of the log of each group's scale, which plays the same part."""
  found = log_scale(leaves)
  return found.variance - found.mean


def _kl(leaves):
  total = groups.weights_kl(leaves)
  for name, prior in (('s_a', LOG_SCALE), ('alpha', 0.0)):
    mean, log_variance = leaves[f'{name}_mean'], leaves[name + VARIANCE]
    total += jnp.sum(kl.gamma_kl(mean, log_variance, prior))
  for name in INVERSE_GAMMAS:
    mean, log_variance = leaves[f'{name}_mean'], leaves[name + VARIANCE]
    total += jnp.sum(kl.inverse_gamma_kl(mean, log_variance))
  return total


def _moments(leaves):
  mean, variance = log_scale(leaves)
  expected = jnp.exp(mean + variance / 2)
  return groups.scaled(leaves, Moments(expected, jnp.expm1(variance) * jnp.square(expected)))


def _draw_scale(leaves, noise, examples):
  mean, variance = (part.reshape(1, -1) for part in log_scale(leaves))
  return jnp.exp(mean + jnp.sqrt(variance) * noise((examples, mean.size)))


# z = 1, and s_a at the least KL to a prior as narrow as tau_0: all means at 0 would cost 1e10 nats.
# A spread of these would only blur them.
_S_A = LOG_SCALE - 1 - math.log(2)
_MEANS = {
  's_a': Leaf('layer', _S_A),
  's_b': Leaf('layer', -_S_A),
  'alpha': Leaf('group', 0.0),
  'beta': Leaf('group', 0.0),
}
HORSESHOE = Family(
  leaves=groups.WEIGHTS
  | {f'{name}_mean': leaf for name, leaf in _MEANS.items()}
  | {name + VARIANCE: Leaf(leaf.per, spread=groups.SPREAD) for name, leaf in _MEANS.items()},
  kl=_kl,
  log_alpha=log_alpha,
  moments=_moments,
  draw=functools.partial(groups.draw, draw_scale=_draw_scale),
  threshold=3.0,
  starts_normal=True,
)
