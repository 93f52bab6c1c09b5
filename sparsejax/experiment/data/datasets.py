"""Data sets by name, as arrays split into training, validation and test."""

import os
from typing import NamedTuple

import numpy as np

from sparsejax.experiment.data.own_arrays import read_npz
from sparsejax.experiment.data.sources import SOURCES, Source
from sparsejax.experiment.data.splits import (
  Split,
  Whole,
  check_integer,
  digest,
  moments,
  take,
  take_validation,
)
from sparsejax.experiment.data.texts import CONTEXT, windows
from sparsejax.internal.lookup import lookup


class Dataset(NamedTuple):
  """Three splits, and the moments used to normalise their pixels."""

  name: str
  train: Split
  validation: Split
  test: Split
  num_classes: int
  mean: tuple[float, ...]  # one per channel, for pixels in [0, 1]
  std: tuple[float, ...]
  digest: str | None  # sha256 of the content, if the name does not determine it

  @property
  def is_text(self) -> bool:
    """Whether the examples are windows of bytes, with a label for each byte, and not images."""
    return self.train.images.ndim == 2


def load(
  name: str,
  *,
  directory: str | os.PathLike | None = None,
  split: str = 'shuffle',
  validation: int | None = None,
  split_seed: int = 0,
  limit: int | None = None,
  context: int | None = None,
  cache: bool = True,
) -> Dataset:
  """Returns the data set of this name as arrays in memory, which JAX on CPU does not copy.

  The names are `digits` (scikit-learn's 1,797 images of 8x8, which need no download), `mnist`,
  `fashion_mnist`, `cifar10`, `cifar100`, `text` (the sources of Python's standard library, as
  installed), `grammar` (a made text of known entropy), and `npz:PATH` for a user's own arrays. The
  four after the digits are read from a folder that tensorflow-datasets prepared; if one is missing
  there, it is downloaded and prepared first. TensorFlow is not needed. Texts have a validation
  split of their own, and are cut into windows that do not overlap.

  Args:
    name: the data set.
    directory: the folder of prepared data sets; None is tensorflow-datasets' own,
      `TFDS_DATA_DIR` or `~/tensorflow_datasets`. `digits` and `npz:` do not use it.
    split: `shuffle` takes the validation examples at random, by `split_seed`; `first` keeps the
      first examples for training and takes the last ones. `digits` always have the order of one
      fixed shuffle: 1,197 for training, 300 for validation, 300 for the test.
    validation: the number of examples taken from the published training set; None takes the data
      set's default: 10,000 for CIFAR, 5,000 for MNIST, 300 for the digits, a tenth of a user's
      own arrays. 0 leaves the validation split empty.
    split_seed: the seed of `shuffle`, and of nothing else.
    context: the bytes in a window of a text; None is 128. Images have none.
    limit: the number of training examples to keep, from the first on, for a shortened run. The
      moments stay those of the full training split, so that a shortened run sees the same inputs.
    cache: whether to keep the decoded arrays in the user's cache folder (`SPARSEJAX_CACHE` names
      another).

  Raises:
    ValueError: says in one line the field, the value, and what it must be.

  Example:
    >>> digits = load('digits')
    >>> digits.train.images.shape, digits.validation.labels.shape, digits.num_classes
    ((1197, 8, 8, 1), (300,), 10)
  """
  if name.startswith('npz:'):
    whole, content = read_npz(name.removeprefix('npz:'))
    source = Source(
      read=lambda directory, cache: whole,
      num_classes=int(whole.train.labels.max()) + 1,
      validation=max(1, len(whole.train.labels) // 10),
    )
  else:
    lookup('data set (data.name)', name, {**SOURCES, 'npz:PATH': None})
    source = SOURCES[name]
    whole = source.read(directory, cache)
    content = digest(whole) if source.varies else None
  if name == 'digits':
    split = lookup('data.split', split, {'shuffle': 'first', 'first': 'first'})
  whole = _cut(whole, name, context)
  if whole.validation is None:
    validation = source.validation if validation is None else validation
    train, held_out = take_validation(
      whole.train, validation=validation, split=split, split_seed=split_seed
    )
  else:
    _require_unset('data.validation', validation, f"'{name}' has a validation split of its own")
    train, held_out = (_all(part) for part in (whole.train, whole.validation))
  mean, std = source.moments or moments(train.images)
  if limit is not None:
    check_integer('data.limit', limit, 1, len(train.labels), 'the training split')
    train = take(train, np.arange(limit))
  return Dataset(name, train, held_out, _all(whole.test), source.num_classes, mean, std, content)


def _cut(whole: Whole, name: str, context: int | None) -> Whole:
  """Returns a data set of examples: a text is cut into windows, images stay as they are."""
  if whole.train.images.ndim > 1:
    _require_unset('data.context', context, f"the examples of '{name}' are no windows of a text")
    return whole
  length = CONTEXT if context is None else context
  held_out = whole.validation and windows(whole.validation, length)
  return Whole(windows(whole.train, length), windows(whole.test, length), held_out)


def _require_unset(field: str, value: int | None, reason: str) -> None:
  if value is not None:
    raise ValueError(f'{field}={value} must be None: {reason}')


def _all(split: Split) -> Split:
  """Returns all examples of a split, in memory that JAX on CPU can share."""
  return take(split, np.arange(len(split.labels)))
