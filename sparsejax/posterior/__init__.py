"""Bayesian sparsity: posteriors over weights, their KL, and the deterministic network they give."""

from sparsejax.posterior.families import kl
from sparsejax.posterior.families.family import Family, Leaf, Moments, along, gaussian
from sparsejax.posterior.layers import (
  FAMILIES,
  is_variational,
  is_weight_variance,
  kl_by_layer,
  kl_divergence,
  log_alphas,
  moments,
  variational_layers,
  weight_variances,
)
from sparsejax.posterior.thresholds import deploy, suggest_threshold

__all__ = [
  'FAMILIES',
  'Family',
  'Leaf',
  'Moments',
  'along',
  'deploy',
  'gaussian',
  'is_variational',
  'is_weight_variance',
  'kl',
  'kl_by_layer',
  'kl_divergence',
  'log_alphas',
  'moments',
  'suggest_threshold',
  'variational_layers',
  'weight_variances',
]
