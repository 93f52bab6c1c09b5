"""Thresholds of log alpha: the network that is left below one, and where a good one may lie."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.posterior.families.family import against
from sparsejax.posterior.layers import is_variational, variational_layers
from sparsejax.sparsity.leaves import tree

Thresholds = float | Mapping[str, float]  # one for all layers, or by the layer's path
POINTS = 512  # at which the density is looked at
# On either side of a gap, values and their share: of fewer a long tail has some far out by chance.
FEWEST, FEWEST_SHARE = 5, 5e-3
NARROWER = 0.7  # than Silverman's kernel, which of two humps takes their distance for their width
DEPTH = 0.5  # of a peak's height: how far the density must fall between two peaks


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
    raise ValueError(f'thresholds for {sorted(thresholds)}: give one for each of {sorted(layers)}')

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


def suggest_threshold(log_alpha: np.ndarray) -> float | None:
  """Returns where the density of log alpha is least between two of its peaks.

  The density is smoothed by seven tenths of Silverman's rule: bins that few groups leave empty by
  chance are no gap, and ten groups on either side of a wide one are enough. A long tail of
  thousands of values may still look like a gap: look at the histogram too.

  Args:
    log_alpha: of a layer's weights or groups, any shape.

  Returns:
    A threshold, or None where there are no two peaks between which the density falls to less than
    half of the lower one, with five values and a two-hundredth of all on either side.

  Example:
    >>> round(suggest_threshold(np.concatenate([np.linspace(-9, -7, 40), np.linspace(3, 5, 40)])))
    -2

  References:
    Silverman 1986, Density estimation for statistics and data analysis, section 3.4
  """
  from scipy.signal import find_peaks  # these take a second
  from scipy.stats import gaussian_kde

  values = np.ravel(np.asarray(log_alpha, np.float64))
  if values.size < 2 or np.ptp(values) < 1e-6:
    return None
  # A layer has up to millions of weights; of bins far finer than the kernel the density is equal.
  counts, edges = np.histogram(values, POINTS)
  centres, filled = (edges[:-1] + edges[1:]) / 2, counts > 0
  width = NARROWER * (values.size * 3 / 4) ** -0.2
  density = gaussian_kde(centres[filled], width, weights=counts[filled])(centres)
  peaks, _ = find_peaks(np.pad(density, 1))  # padded: the outermost points may be peaks too
  peaks -= 1
  valleys = [_middle_of_least(density, *pair) for pair in itertools.pairwise(peaks)]
  below, fewest = np.cumsum(counts), max(FEWEST, FEWEST_SHARE * values.size)
  gaps = {
    density[valley] / min(density[:valley].max(), density[valley:].max()): centres[valley]
    for valley in valleys
    if fewest <= below[valley] <= values.size - fewest
  }
  return float(gaps[min(gaps)]) if gaps and min(gaps) < DEPTH else None


def _middle_of_least(density, low, high):
  """Where the density is least in [low, high); the middle, where it is as good as nothing."""
  inside = density[low:high]
  least = np.flatnonzero(inside <= inside.min() + 1e-6 * density.max())
  return low + int(least[len(least) // 2])
