"""Posteriors over weights: which leaves make one, what it costs, which network it stands for.

A variational layer is a dict of leaves: `kernel` (the mean), `kernel_log_variance`, mostly `bias`,
and what its family adds. It is found by its names: a dict with a leaf called `*_log_variance` is
one, and one whose names belong to no family is an error, so that no variance goes without its KL.

A group's scale broadcasts against the kernel, (..., inputs, outputs): of shape (inputs, 1) its
groups are inputs, of shape (outputs,) they are outputs, whose bias is scaled and removed with them.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.sparsity import divergences, tree

Leaves = Mapping[str, jax.Array]  # of one layer
Thresholds = float | Mapping[str, float]  # one for all layers, or by the layer's path
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
  log_alpha = divergences.log_alpha(leaves['kernel'], leaves['kernel_log_variance'])
  return jnp.clip(log_alpha, -LOG_ALPHA_BOUND, LOG_ALPHA_BOUND)


def _sparse_vd_kl(leaves):
  return jnp.sum(divergences.log_uniform_kl(sparse_vd_log_alpha(leaves)))


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
    jnp.sum(divergences.standard_normal_kl(leaves[name], leaves[name + VARIANCE])) for name in names
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
  return divergences.log_alpha(leaves['scale_mean'], leaves['scale_log_variance'])


def _normal_jeffreys_kl(leaves):
  scales = divergences.log_uniform_kl(normal_jeffreys_log_alpha(leaves))
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
  mean = sum(leaves[f'{name}_mean'] for name in names) / 2
  variance = sum(jnp.exp(leaves[name + VARIANCE]) for name in names) / 4
  return Moments(mean, variance)


def _horseshoe_log_alpha(leaves):
  log_scale = horseshoe_log_scale(leaves)
  return log_scale.variance - log_scale.mean


def _horseshoe_kl(leaves):
  total = _gaussian_kl(leaves)
  for name, log_scale in (('s_a', 2 * math.log(HORSESHOE_SCALE)), ('alpha', 0.0)):
    mean, log_variance = leaves[f'{name}_mean'], leaves[name + VARIANCE]
    total += jnp.sum(divergences.gamma_kl(mean, log_variance, log_scale))
  for name in INVERSE_GAMMAS:
    mean, log_variance = leaves[f'{name}_mean'], leaves[name + VARIANCE]
    total += jnp.sum(divergences.inverse_gamma_kl(mean, log_variance))
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


# Trees of layers.


def is_variational(tree: Any) -> bool:
  """Whether a tree is the leaves of a variational layer.

  Example:
    >>> is_variational({'kernel': 0, 'kernel_log_variance': 0}), is_variational({'kernel': 0})
    (True, False)
  """
  return isinstance(tree, Mapping) and any(str(name).endswith(VARIANCE) for name in tree)


def is_weight_variance(path: str, leaf: Any = None) -> bool:
  """Whether a leaf is the log-variance of a kernel or a bias, and not of a scale.

  Example:
    >>> is_weight_variance('fc/bias_log_variance'), is_weight_variance('fc/scale_log_variance')
    (True, False)
  """
  del leaf
  return path.rsplit('/', 1)[-1] in ('kernel_log_variance', 'bias_log_variance')


def weight_variances(pattern: str) -> Callable[[str, Any], bool]:
  """Returns a choice of parameters: `is_weight_variance`, where the path holds the expression.

  Example:
    >>> weight_variances('^fc1/')('fc2/kernel_log_variance', None)
    False
  """
  [checked] = tree.patterns(pattern)

  def chosen(path, leaf):
    del leaf
    return is_weight_variance(path) and bool(re.search(checked, path))

  return chosen


def variational_layers(params: Any) -> dict[str, tuple[Family, Leaves]]:
  """Returns the variational layers of a tree, by path, each with its family.

  Args:
    params: any pytree in which a variational layer is a dict of leaves. A layer that `optax.masked`
      leaves out whole is not there.

  Returns:
    {path: (family, leaves)}, the path of the layer, joined by '/'.

  Raises:
    ValueError: a log-variance whose layer is of no family, no dict, or left out in part.

  Example:
    >>> layer = {'kernel': jnp.ones((2, 3)), 'kernel_log_variance': jnp.zeros((2, 3))}
    >>> list(variational_layers([{'fc': layer}, {'kernel': jnp.ones(2)}]))
    ['0/fc']
  """
  found = {}
  for path, node in tree.named_leaves(params, is_leaf=is_variational).items():
    if is_variational(node):
      if leaves := _unmasked(path, node):
        found[path] = (_family_of(path, leaves), leaves)
    elif path.endswith(VARIANCE):
      raise ValueError(f"'{path}' is in no dict of a layer's leaves: no variance may go without KL")
  return found


def _unmasked(path, leaves):
  """The leaves of a layer; none of one that is masked whole, by Optax's nodes without leaves."""
  kept = {name: leaf for name, leaf in leaves.items() if jax.tree.leaves(leaf)}
  if kept and len(kept) < len(leaves):
    raise ValueError(
      f"'{path}' is masked but for {sorted(kept)}: the KL is of a whole layer; allowed is all of "
      'its leaves or none'
    )
  return kept


def _family_of(path, leaves):
  names = set(leaves)
  for family in FAMILIES.values():
    if family.names(bias='bias' in names) == names:
      return family
  raise ValueError(
    f"'{path}' has the leaves {sorted(leaves)}: no family of posteriors has just these, and no "
    'variance may go without its KL'
  )


def kl_by_layer(params: Any) -> dict[str, jax.Array]:
  r"""Returns KL(posterior || prior) of each variational layer, by path, in nats.

  Args:
    params: any pytree with variational layers in it; other layers cost nothing.

  Returns:
    {path: scalar}.

  Raises:
    ValueError: as `variational_layers` does.

  Example:
    >>> layer = {'kernel': jnp.ones((2, 3)), 'kernel_log_variance': jnp.zeros((2, 3))}
    >>> {path: round(float(nats), 2) for path, nats in kl_by_layer({'fc': layer}).items()}
    {'fc': 2.59}

  References:
    Molchanov, Ashukha and Vetrov 2017, https://arxiv.org/abs/1701.05369
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665
  """
  return {path: family.kl(leaves) for path, (family, leaves) in variational_layers(params).items()}


def kl_divergence(params: Any) -> jax.Array:
  """Returns the sum of `kl_by_layer`, in nats; 0 of a tree without variational layers.

  Args:
    params: any pytree with variational layers in it.

  Raises:
    ValueError: as `variational_layers` does.

  Example:
    >>> float(kl_divergence({'fc': {'kernel': jnp.ones((2, 3))}}))
    0.0
  """
  return sum(kl_by_layer(params).values(), jnp.float32(0))


def log_alphas(params: Any) -> dict[str, jax.Array]:
  """Returns log alpha of each variational layer's weights or groups, flat, by path.

  Of the horseshoe it is variance minus mean of the log of the scale, which plays the same part.

  Args:
    params: any pytree with variational layers in it.

  Returns:
    {path: (weights or groups,)}.

  Raises:
    ValueError: as `variational_layers` does.

  Example:
    >>> layer = {'kernel': jnp.ones((1, 2)), 'kernel_log_variance': jnp.full((1, 2), -9.0)}
    >>> log_alphas({'fc': layer})['fc'].tolist()
    [-8.0, -8.0]
  """
  layers = variational_layers(params).items()
  return {path: family.log_alpha(leaves).reshape(-1) for path, (family, leaves) in layers}


def moments(params: Any) -> dict[str, dict[str, Moments]]:
  """Returns mean and variance of what each variational layer's kernel and bias are in effect.

  The group's scale is in them: mean mu mu_z, variance mu_z^2 s^2 + s_z^2 mu^2 + s_z^2 s^2.

  Args:
    params: any pytree with variational layers in it.

  Returns:
    {path: {'kernel': Moments, 'bias': Moments}}, of the leaves' shapes.

  Raises:
    ValueError: as `variational_layers` does.

  Example:
    >>> layer = {'kernel': jnp.ones((1, 1)), 'kernel_log_variance': jnp.full((1, 1), -2.0)}
    >>> round(float(moments({'fc': layer})['fc']['kernel'].variance[0, 0]), 4)
    0.1353
  """
  layers = variational_layers(params).items()
  return {path: family.moments(leaves) for path, (family, leaves) in layers}


def deploy(params: Any, thresholds: Thresholds) -> Any:
  """Returns the deterministic network that a posterior stands for: means, and zeros for noise.

  Args:
    params: any pytree with variational layers in it; what is not variational stays as it is.
    thresholds: weights or groups with log alpha of so much or more go; one for all layers, or by
      path.

  Returns:
    A tree in which each variational layer is `kernel` and, where it had one, `bias`: the posterior
    means, exactly zero where the weight or its group is gone; with a group of outputs its bias.

  Raises:
    ValueError: thresholds by path that are not one for each layer, or as `variational_layers`.

  Example:
    >>> layer = {'kernel': jnp.array([[2.0, 0.1]]), 'kernel_log_variance': jnp.zeros((1, 2))}
    >>> deploy({'fc': layer}, 3.0)
    {'fc': {'kernel': Array([[2., 0.]], dtype=float32)}}
  """
  layers = variational_layers(params)
  if isinstance(thresholds, Mapping) and set(thresholds) != set(layers):
    raise ValueError(
      f'thresholds for {sorted(thresholds)}: allowed is one for each of {sorted(layers)}'
    )

  def network(path, node):
    if path not in layers:
      return node
    threshold = thresholds[path] if isinstance(thresholds, Mapping) else thresholds
    return _deploy_layer(*layers[path], threshold)

  named = tree.named_leaves(params, is_leaf=is_variational)
  structure = jax.tree.structure(params, is_leaf=is_variational)
  return jax.tree.unflatten(structure, [network(*item) for item in named.items()])


def _deploy_layer(family, leaves, threshold):
  keep = ~(family.log_alpha(leaves) >= threshold)  # what is not a number stays, to be seen
  means = {name: found.mean for name, found in family.moments(leaves).items()}
  deployed = {'kernel': jnp.where(against(keep, means['kernel']), means['kernel'], 0.0)}
  if 'bias' in means:
    deployed['bias'] = jnp.where(keep, means['bias'], 0.0) if keep.ndim == 1 else means['bias']
  return deployed
