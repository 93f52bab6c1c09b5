"""Where a histogram of log alpha has its gap: between what is noise and what is signal."""

import numpy as np

BINS = 60


def suggest_threshold(log_alpha: np.ndarray) -> float | None:
  """Returns the middle of the emptiest stretch between the two peaks of a histogram.

  The peaks are the fullest bins on either side of the split that leaves least variance within the
  two parts (Otsu's); between them the longest run of the emptiest bins is the gap.

  Args:
    log_alpha: of a layer's weights or groups, any shape.

  Returns:
    A threshold, or None where there are no two peaks: of fewer than two different values, or where
    no bin between the peaks holds less than half of the lower one.

  Example:
    >>> round(suggest_threshold(np.array([-8.0, -7.5, -7.9, 4.0, 5.0, 4.5])), 1)
    -1.7
  """
  values = np.ravel(np.asarray(log_alpha, np.float64))
  if values.size < 2 or np.ptp(values) == 0:
    return None
  counts, edges = np.histogram(values, BINS)
  split = _otsu(counts, (edges[:-1] + edges[1:]) / 2)
  low = int(np.argmax(counts[:split]))
  high = split + int(np.argmax(counts[split:]))
  between = counts[low + 1 : high]
  if not between.size or between.min() >= min(counts[low], counts[high]) / 2:
    return None
  first, length = _longest_run(between == between.min())
  begin = low + 1 + first
  return float((edges[begin] + edges[begin + length]) / 2)


def _otsu(counts: np.ndarray, centres: np.ndarray) -> int:
  """The bin that begins the upper part: the split with the most variance between the parts."""
  below, above = np.cumsum(counts)[:-1], counts.sum() - np.cumsum(counts)[:-1]
  sums = np.cumsum(counts * centres)
  mean_below = sums[:-1] / np.maximum(below, 1)
  mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
  return 1 + int(np.argmax(below * above * np.square(mean_above - mean_below)))


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
  """(start, length) of the longest run of true."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
  starts, ends = edges[::2], edges[1::2]
  longest = int(np.argmax(ends - starts))
  return int(starts[longest]), int(ends[longest] - starts[longest])
