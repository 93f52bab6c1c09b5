"""The variational layers of a tree: which leaves form one, its family, and its KL.

A variational layer is a dict of leaves: `kernel` (the mean), `kernel_log_variance`, usually `bias`,
and what its family adds. It is recognised by its names: any dict with a leaf called
`*_log_variance` is one. If its names belong to no family, that is an error, so that no variance
goes without its KL.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.posterior.families.family import MEANS, VARIANCE, Family, Leaves, Moments
from sparsejax.posterior.families.horseshoe import HORSESHOE
from sparsejax.posterior.families.normal_jeffreys import NORMAL_JEFFREYS
from sparsejax.posterior.families.sparse_vd import SPARSE_VD
from sparsejax.sparsity.leaves import tree

DETERMINISTIC = 'deterministic'  # the name of layers without posteriors
FAMILIES: dict[str, Family] = {
  'sparse_vd': SPARSE_VD,
  'group_normal_jeffreys': NORMAL_JEFFREYS,
  'group_horseshoe': HORSESHOE,
}


def is_variational(tree: Any) -> bool:
  """Returns whether a tree is a variational layer, that is, a dict of its leaves.

  Example:
    >>> is_variational({'kernel': 0, 'kernel_log_variance': 0}), is_variational({'kernel': 0})
    (True, False)
  """
  return isinstance(tree, Mapping) and any(str(name).endswith(VARIANCE) for name in tree)


def is_weight_variance(path: str, leaf: Any = None) -> bool:
  """Returns whether a leaf is the log-variance of a kernel or a bias, not of a scale.

  Example:
    >>> is_weight_variance('fc/bias_log_variance'), is_weight_variance('fc/scale_log_variance')
    (True, False)
  """
  del leaf
  return path.rsplit('/', 1)[-1] in [name + VARIANCE for name in MEANS]


def weight_variances(pattern: str) -> Callable[[str, Any], bool]:
  """Returns a choice of parameters: `is_weight_variance`, for paths that match the expression.

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
      masks as a whole is skipped.

  Returns:
    {path: (family, leaves)}, where the path of the layer is joined by '/'.

  Raises:
    ValueError: a log-variance belongs to a layer that is not a dict, has no family, or is partly
      masked.

  Example:
    >>> layer = {'kernel': jnp.ones((2, 3)), 'kernel_log_variance': jnp.zeros((2, 3))}
    >>> list(variational_layers([{'fc': layer}, {'kernel': jnp.ones(2)}]))
    ['0/fc']
  """
  found = {}
  for path, node in tree.named_leaves(params, is_leaf=is_variational).items():
    if is_variational(node):
      if leaves := _unmasked(path, node):
        found[path] = (_find_family(path, leaves), leaves)
    elif path.endswith(VARIANCE):
      raise ValueError(f"'{path}' must be in a dict of a layer's leaves, so that it gets its KL")
  return found


def _unmasked(path, leaves):
  """Returns the leaves of a layer, or none if Optax's MaskedNode stands for each of them."""
  kept = {name: leaf for name, leaf in leaves.items() if jax.tree.leaves(leaf)}
  if kept and len(kept) < len(leaves):
    raise ValueError(
      f"'{path}' is masked except for {sorted(kept)}, but the KL needs the whole layer: mask all "
      'of its leaves or none'
    )
  return kept


def _find_family(path, leaves):
  for family in FAMILIES.values():
    if family.names(bias='bias' in leaves) == set(leaves):
      return family
  raise ValueError(
    f"'{path}' has the leaves {sorted(leaves)}, but no family of posteriors has exactly these, and "
    'no variance may go without its KL'
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
  """Returns the sum of `kl_by_layer`, in nats; it is 0 for a tree without variational layers.

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

  For the horseshoe it is the variance minus the mean of the log of the scale, which plays the same
  part.

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
  """Returns the mean and variance of each variational layer's effective kernel and bias.

  They include the group's scale: mean mu mu_z, variance mu_z^2 s^2 + s_z^2 mu^2 + s_z^2 s^2.

  Args:
    params: any pytree with variational layers in it.

  Returns:
    {path: {'kernel': Moments, 'bias': Moments}}, in the leaves' shapes.

  Raises:
    ValueError: as `variational_layers` does.

  Example:
    >>> layer = {'kernel': jnp.ones((1, 1)), 'kernel_log_variance': jnp.full((1, 1), -2.0)}
    >>> round(float(moments({'fc': layer})['fc']['kernel'].variance[0, 0]), 4)
    0.1353
  """
  layers = variational_layers(params).items()
  return {path: family.moments(leaves) for path, (family, leaves) in layers}
