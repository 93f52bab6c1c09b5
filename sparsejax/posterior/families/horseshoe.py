"""Bayesian compression with the horseshoe prior: half-Cauchy scales for groups and for the layer.

A half-Cauchy variable is the root of a Gamma variable times an inverse Gamma variable, so a group's
scale is z = sqrt(s_a s_b alpha beta), where s_a and s_b belong to the whole layer.
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
  """Returns mean and variance of log z, where z = sqrt(s_a s_b alpha beta) of log-normals."""
  names = (*GAMMAS, *INVERSE_GAMMAS)
  mean = jnp.asarray(sum(leaves[f'{name}_mean'] for name in names)) / 2
  variance = jnp.asarray(sum(jnp.exp(leaves[name + VARIANCE]) for name in names)) / 4
  return Moments(mean, variance)


def log_alpha(leaves: Leaves) -> jax.Array:
  """Returns the variance minus the mean of log z for each group: it plays the part of log alpha."""
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


# z starts at 1, and s_a at its least KL to a prior as narrow as tau_0: with all means at 0 the KL
# would be 1e10 nats. A spread of these means would only blur them.
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
