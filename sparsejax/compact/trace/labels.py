"""Labels for the indices of axes: those that can only be removed together are tied."""

from collections import defaultdict

import numpy as np

Axes = list[np.ndarray]  # for each axis of a value, the label of each of its indices


class Labels:
  """A union-find over labels: indices that can only be removed together share a root.

  Example:
    >>> labels = Labels()
    >>> a, b = labels.fresh(2), labels.fresh(2)
    >>> labels.union(a, b)
    >>> labels.pin(b[:1], 'sort')
    >>> labels.is_pinned(a).tolist(), labels.reasons()
    ([True, False], {0: {'sort'}})
  """

  def __init__(self):
    self._parents = np.arange(1024)
    self._count = 0
    self._pins: list[tuple[np.ndarray, str]] = []

  def __len__(self) -> int:
    return self._count

  def fresh(self, size: int) -> np.ndarray:
    """Returns new labels, not yet tied to any others."""
    begin, self._count = self._count, self._count + int(size)
    if self._count > len(self._parents):
      more = np.arange(len(self._parents), 2 * self._count)
      self._parents = np.concatenate([self._parents, more])
    return np.arange(begin, self._count)

  def pinned(self, size: int, why: str) -> np.ndarray:
    """Returns new labels of indices that must be kept, and notes why."""
    labels = self.fresh(size)
    self.pin(labels, why)
    return labels

  def axes(self, shape: tuple[int, ...], why: str = '') -> Axes:
    """Returns new labels for each axis of a value; if a reason is given, all are pinned."""
    return [self.pinned(size, why) if why else self.fresh(size) for size in shape]

  def find(self, labels: np.ndarray) -> np.ndarray:
    """Returns the root of each label: the smallest label that it is tied to."""
    roots = self._parents[labels]
    while True:
      up = self._parents[roots]
      if (up == roots).all():
        self._parents[labels] = roots
        return roots
      roots = up

  def union(self, some: np.ndarray, others: np.ndarray) -> None:
    """Ties labels, pair by pair."""
    while True:
      a, b = self.find(some), self.find(others)
      differ = a != b
      if not differ.any():
        return
      low, high = np.minimum(a, b)[differ], np.maximum(a, b)[differ]
      np.minimum.at(self._parents, high, low)

  def union_axes(self, some: Axes, others: Axes) -> None:
    """Ties the axes of two values, index by index."""
    for one, other in zip(some, others, strict=True):
      self.union(one, other)

  def pin(self, labels: np.ndarray, why: str) -> None:
    """Notes that indices must be kept, and why."""
    if len(labels):
      self._pins.append((np.array(labels), why))

  def pin_axes(self, axes: Axes, why: str) -> None:
    for labels in axes:
      self.pin(labels, why)

  def roots(self) -> np.ndarray:
    """Returns the root of every label."""
    return self.find(np.arange(self._count))

  def pinned_roots(self) -> np.ndarray:
    """Returns, for every label, whether it is the root of an index that must be kept."""
    found = np.zeros(self._count, bool)
    for labels, _ in self._pins:
      found[self.find(labels)] = True
    return found

  def is_pinned(self, labels: np.ndarray) -> np.ndarray:
    return self.pinned_roots()[self.find(labels)]

  def reasons(self) -> dict[int, set[str]]:
    """Returns {root: the reasons why it must be kept}."""
    found = defaultdict(set)
    for labels, why in self._pins:
      for root in np.unique(self.find(labels)).tolist():
        found[root].add(why)
    return dict(found)
