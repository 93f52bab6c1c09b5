"""Bayesian sparsity: posteriors over weights, what they cost, and the network one stands for."""

from sparsejax.posterior.layers import (
  FAMILIES,
  deploy,
  is_variational,
  is_weight_variance,
  kl_by_layer,
  kl_divergence,
  log_alphas,
  moments,
  variational_layers,
  weight_variances,
)

__all__ = [
  'FAMILIES',
  'deploy',
  'is_variational',
  'is_weight_variance',
  'kl_by_layer',
  'kl_divergence',
  'log_alphas',
  'moments',
  'variational_layers',
  'weight_variances',
]
