"""Means over windows of equal length, from values that are each the mean since the value before.

A line of metrics has the training loss and accuracy since the line before, and an extra line is
written for an evaluation or a cut. Such a line averages few examples: it is noisy and cannot be
compared with its neighbours.
"""

import numpy as np


def equal(ends: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  r"""Returns the ends of windows of equal length, and the means over them.

  .. math::
    \bar m_k = \frac{1}{w} \int_{e_k - w}^{e_k} m(t) \, dt, \quad e_k = e_n - (n - k) w

  with m constant between two ends, and w the longest distance between two ends. The last window
  ends with the last value; the rest at the beginning is less than a window and is left out. If no
  window has a length, the values are returned as they are.

  Args:
    ends: (values,), the rising ends of the windows of the means; the first window begins at 0.
    means: (values,); values that are not finite are ignored.

  Example:
    >>> equal(np.array([10.0, 12.0, 20.0, 30.0]), np.array([1.0, 5.0, 2.5, 4.0]))
    (array([10., 20., 30.]), array([1., 3., 4.]))
  """
  lengths = np.diff(ends, prepend=0.0)
  known = np.isfinite(means) & (lengths > 0)
  if not known.any():
    there = np.isfinite(means)
    return ends[there], means[there]
  weights = np.where(known, lengths, 0.0)
  width = weights.max()
  last = ends[known][-1]
  count = int(last / width + 1e-9)
  edges = last - width * np.arange(count, -1, -1)
  edges[0] = max(edges[0], 0.0)
  sums, held = (
    np.diff(np.interp(edges, np.append(0.0, ends), np.append(0.0, np.cumsum(part))))
    for part in (weights * np.where(known, means, 0.0), weights)
  )
  whole = held > 0.5 * width  # the others have no value for most of the window
  return edges[1:][whole], sums[whole] / held[whole]
