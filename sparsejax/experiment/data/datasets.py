"""Data sets by name, as arrays split into training, validation and test."""

import os
from typing import NamedTuple

import numpy as np

from sparsejax.experiment.data.own_arrays import read_npz
from sparsejax.experiment.data.sources import SOURCES, Source
from sparsejax.experiment.data.splits import Split, check_integer, moments, take, take_validation
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


def load(
  name: str,
  *,
  directory: str | os.PathLike | None = None,
  split: str = 'shuffle',
  validation: int | None = None,
  split_seed: int = 0,
  limit: int | None = None,
  cache: bool = True,
) -> Dataset:
  """Returns the data set of this name as arrays in memory, which JAX on CPU does not copy.

  The names are `digits` (scikit-learn's 1,797 images of 8x8, which need no download), `mnist`,
  `fashion_mnist`, `cifar10`, `cifar100`, and `npz:PATH` for a user's own arrays. The four in the
  middle are read from a folder that tensorflow-datasets prepared; if one is missing there, it is
  downloaded and prepared first. TensorFlow is not needed.

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
    whole, digest = read_npz(name.removeprefix('npz:'))
    source = Source(
      read=lambda directory, cache: whole,
      num_classes=int(whole.train.labels.max()) + 1,
      validation=max(1, len(whole.train.labels) // 10),
    )
  else:
    lookup('data set (data.name)', name, {**SOURCES, 'npz:PATH': None})
    source = SOURCES[name]
    digest = None
    whole = source.read(directory, cache)
  if name == 'digits':
    split = lookup('data.split', split, {'shuffle': 'first', 'first': 'first'})
  validation = source.validation if validation is None else validation
  train, held_out = take_validation(
    whole.train, validation=validation, split=split, split_seed=split_seed
  )
  mean, std = source.moments or moments(train.images)
  if limit is not None:
    check_integer('data.limit', limit, 1, len(train.labels), 'the training split')
    train = take(train, np.arange(limit))
  test = take(whole.test, np.arange(len(whole.test.labels)))
  return Dataset(name, train, held_out, test, source.num_classes, mean, std, digest)
