"""Thresholds of log alpha: the network that remains below one, and where a good one may lie."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.posterior.families.family import broadcast_groups
from sparsejax.posterior.layers import is_variational, variational_layers
from sparsejax.sparsity.leaves import tree

Thresholds = float | Mapping[str, float]  # one for all layers, or by the layer's path
POINTS = 512  # points at which the density is evaluated
# The least count and share of values on either side of a gap: a long tail has a few by chance.
FEWEST, FEWEST_SHARE = 5, 5e-3
NARROWER = 0.7  # of Silverman's width, which takes the distance between two humps for their width
DEPTH = 0.5  # between two peaks the density must fall below this share of the lower one


def deploy(params: Any, thresholds: Thresholds) -> Any:
  """Returns the deterministic network that a posterior stands for: means, with zeros for noise.

  Args:
    params: any pytree with variational layers in it; everything else stays as it is.
    thresholds: weights or groups with log alpha at or above the threshold are removed; one
      threshold for all layers, or one for each path.

  Returns:
    A tree in which each variational layer has `kernel` and, if it had one, `bias`: the posterior
    means, exactly zero where the weight or its group is removed. A removed output also loses its
    bias.

  Raises:
    ValueError: thresholds by path do not name every layer exactly once, or as for
      `variational_layers`.

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
  keep = ~(family.log_alpha(leaves) >= threshold)  # NaN stays, so that it is seen
  means = {name: found.mean for name, found in family.moments(leaves).items()}
  deployed = {'kernel': jnp.where(broadcast_groups(keep, means['kernel']), means['kernel'], 0.0)}
  if 'bias' in means:
    deployed['bias'] = jnp.where(keep, means['bias'], 0.0) if keep.ndim == 1 else means['bias']
  return deployed


def suggest_threshold(log_alpha: np.ndarray) -> float | None:
  """Returns where the density of log alpha is least between two of its peaks.

  The density is smoothed with a kernel of seven tenths of Silverman's width: bins that are empty
  only because groups are few do not count as a gap, and ten groups on either side of a wide gap are
  enough. A long tail of thousands of values may still look like a gap, so look at the histogram
  too.

  Args:
    log_alpha: log alpha of a layer's weights or groups, of any shape.

  Returns:
    A threshold, or None unless the density falls, between two peaks, below half of the lower one,
    with at least five values and a two-hundredth of all values on either side.

  Example:
    >>> round(suggest_threshold(np.concatenate([np.linspace(-9, -7, 40), np.linspace(3, 5, 40)])))
    -2

  References:
    Silverman 1986, Density estimation for statistics and data analysis, section 3.4
  """
  from scipy.signal import find_peaks  # this import takes a second
  from scipy.stats import gaussian_kde

  values = np.ravel(np.asarray(log_alpha, np.float64))
  if values.size < 2 or np.ptp(values) < 1e-6:
    return None
  # A layer has up to millions of weights; bins far finer than the kernel give the same density.
  counts, edges = np.histogram(values, POINTS)
  centres = (edges[:-1] + edges[1:]) / 2
  filled = counts > 0
  width = NARROWER * (values.size * 3 / 4) ** -0.2
  density = gaussian_kde(centres[filled], width, weights=counts[filled])(centres)
  peaks, _ = find_peaks(np.pad(density, 1))  # padded: the outermost points may be peaks too
  peaks -= 1
  valleys = [_middle_of_least(density, *pair) for pair in itertools.pairwise(peaks)]
  below = np.cumsum(counts)
  fewest = max(FEWEST, FEWEST_SHARE * values.size)
  gaps = {
    density[valley] / min(density[:valley].max(), density[valley:].max()): centres[valley]
    for valley in valleys
    if fewest <= below[valley] <= values.size - fewest
  }
  return float(gaps[min(gaps)]) if gaps and min(gaps) < DEPTH else None


def _middle_of_least(density, low, high):
  """Returns the index of the least density in [low, high), or the middle of those near it."""
  inside = density[low:high]
  least = np.flatnonzero(inside <= inside.min() + 1e-6 * density.max())
  return low + int(least[len(least) // 2])
