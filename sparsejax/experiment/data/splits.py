"""Splits of a data set, its digest, and the moments of its pixels."""

import hashlib
from typing import NamedTuple

import numpy as np

from sparsejax.experiment.data import alignment
from sparsejax.internal.lookup import lookup


class Split(NamedTuple):
  """Images and labels, one of each for every example; or windows of a text.

  An image has one label. A window of bytes has one for each of them: the byte that follows.
  """

  images: np.ndarray  # shape=(examples, height, width, channels) or (examples, bytes), dtype=uint8
  labels: np.ndarray  # shape=(examples,) or (examples, bytes), dtype=int32


class Whole(NamedTuple):
  """A data set as published, before the validation split is taken from it.

  Texts are whole too: one example in all, of shape (bytes,).
  """

  train: Split
  test: Split
  validation: Split | None = None  # a validation split of its own


def digest(whole: Whole) -> str:
  """Returns the sha256 of the content of a data set."""
  found = hashlib.sha256()
  for array in (array for split in whole if split is not None for array in split):
    found.update(f'{array.dtype.name} {array.shape}'.encode())
    found.update(np.ascontiguousarray(array).data)
  return found.hexdigest()


def take_validation(
  train: Split, *, validation: int, split: str = 'shuffle', split_seed: int = 0
) -> tuple[Split, Split]:
  """Splits the training examples into a smaller training split and a validation split.

  Args:
    train: the published training split.
    validation: the number of examples to take for validation, fewer than `train` has.
    split: 'shuffle' takes validation examples at random; 'first' keeps the first examples for
      training, in the published order, and takes the last ones for validation.
    split_seed: the seed of 'shuffle'; 'first' ignores it.

  Returns:
    The training split and the validation split.

  Raises:
    ValueError: `split` has another value, or a number is out of range.

  Example:
    >>> whole = Split(np.zeros((4, 1, 1, 1), np.uint8), np.arange(4, dtype=np.int32))
    >>> train, validation = take_validation(whole, validation=1, split='first')
    >>> train.labels, validation.labels
    (array([0, 1, 2], dtype=int32), array([3], dtype=int32))
  """
  order = lookup('data.split', split, {'shuffle': shuffled, 'first': _unshuffled})
  count = len(train.labels)
  check_integer('data.validation', validation, 0, count - 1, 'one less than the training examples')
  check_integer('data.split_seed', split_seed, 0, 2**63 - 1, 'seeds')
  indices = order(count, split_seed)
  kept, taken = indices[: count - validation], indices[count - validation :]
  return take(train, kept), take(train, taken)


def take(split: Split, indices: np.ndarray) -> Split:
  """Returns these examples of a split, in memory that JAX on CPU can share."""
  return Split(*(alignment.take(array, indices) for array in split))


def moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns the mean and standard deviation of each channel, for pixels scaled to [0, 1].

  Integers are summed, so the sums are exact: no order of summation changes a bit of the result. A
  channel that never varies gets std 1, so that normalising it gives zeros.

  Example:
    >>> moments(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
  """
  count = images[..., 0].size
  total = np.einsum('nhwc->c', images, dtype=np.int64, casting='unsafe').tolist()
  square = np.einsum('nhwc,nhwc->c', images, images, dtype=np.int64, casting='unsafe').tolist()
  mean = tuple(s / (255 * count) for s in total)
  variance = [(count * q - s * s) / (255 * count) ** 2 for s, q in zip(total, square, strict=True)]
  return mean, tuple(v**0.5 if v else 1.0 for v in variance)


def shuffled(count: int, seed: int) -> np.ndarray:
  """Returns a permutation of the numbers below `count` that no version of NumPy changes."""
  # NumPy promises that the raw bits of PCG64 never change, but promises Generator.permutation only
  # within a version (NEP 19). A split must outlive the version that drew it.
  return np.argsort(np.random.PCG64(seed).random_raw(count), kind='stable')


def _unshuffled(count: int, seed: int) -> np.ndarray:
  del seed
  return np.arange(count)


def check_integer(field: str, value: int, low: int, high: int, meaning: str) -> None:
  """Refuses a value that is not an integer from `low` to `high`; the message names its field."""
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise ValueError(f'{field}={value!r} must be a whole number')
  if not low <= value <= high:
    raise ValueError(f'{field}={value} must be from {low} to {high} ({meaning})')
