"""Bayesian compression with the normal-Jeffreys prior: p(z) proportional to 1 / |z|."""

import functools

import jax
import jax.numpy as jnp

from sparsejax.posterior.families import groups, kl
from sparsejax.posterior.families.family import Family, Leaf, Leaves, Moments


def log_alpha(leaves: Leaves) -> jax.Array:
  """Returns log alpha of each group's scale, unclipped, because it starts far outside any bound."""
  return kl.log_alpha(leaves['scale_mean'], leaves['scale_log_variance'])


def _kl(leaves):
  return jnp.sum(kl.log_uniform_kl(log_alpha(leaves))) + groups.weights_kl(leaves)


def _moments(leaves):
  return groups.scaled(leaves, Moments(leaves['scale_mean'], jnp.exp(leaves['scale_log_variance'])))


def _draw_scale(leaves, noise, examples):
  mean, log_variance = (
    leaves[name].reshape(1, -1) for name in ('scale_mean', 'scale_log_variance')
  )
  return mean + jnp.exp(log_variance / 2) * noise((examples, mean.size))


NORMAL_JEFFREYS = Family(
  leaves=groups.WEIGHTS
  | {
    'scale_mean': Leaf('group', 1.0, groups.SPREAD),
    'scale_log_variance': Leaf('group', spread=groups.SPREAD),
  },
  kl=_kl,
  log_alpha=log_alpha,
  moments=_moments,
  draw=functools.partial(groups.draw, draw_scale=_draw_scale),
  threshold=-3.0,
  starts_normal=True,
)
