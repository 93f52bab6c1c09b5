"""Where a histogram of log alpha has its gap: between what is noise and what is signal."""

import itertools

import numpy as np
from scipy.signal import find_peaks
from scipy.stats import gaussian_kde

POINTS = 512  # at which the density is looked at
# On either side of a gap, values and their share: of fewer a long tail has some far out by chance.
FEWEST, FEWEST_SHARE = 5, 5e-3
NARROWER = 0.7  # than Silverman's kernel, which of two humps takes their distance for their width
DEPTH = 0.5  # of a peak's height: how far the density must fall between two peaks


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
