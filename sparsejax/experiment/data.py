"""Data sets: a name becomes arrays, split into training, validation and test."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import platformdirs
from absl import logging

from sparsejax.lookup import lookup


class Split(NamedTuple):
  """Images with their labels, one of each for every example."""

  images: np.ndarray  # shape=(examples, height, width, channels), dtype=uint8
  labels: np.ndarray  # shape=(examples,), dtype=int32


class Dataset(NamedTuple):
  """Three splits, and the moments by which their pixels are normalised."""

  name: str
  train: Split
  validation: Split
  test: Split
  num_classes: int
  mean: tuple[float, ...]  # one a channel, of pixels in [0, 1]
  std: tuple[float, ...]
  digest: str | None  # sha256 of the content where the name does not determine it


class _Whole(NamedTuple):
  """A data set as it is published: the validation split is not yet taken."""

  train: Split
  test: Split


class _Source(NamedTuple):
  """What is known of a data set before it is read."""

  read: Callable[[str | os.PathLike | None, bool], _Whole]  # (directory, cache)
  num_classes: int
  validation: int  # examples, where the caller does not say
  moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # None: computed


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
  """Returns the data set of this name as arrays in memory.

  Names: `digits` (scikit-learn's 1,797 images of 8x8, there without any download), `mnist`,
  `fashion_mnist`, `cifar10`, `cifar100`, and `npz:PATH`, a person's own arrays. The four in the
  middle are read from a folder that tensorflow-datasets prepared; where it lacks them they are
  downloaded and prepared there first. TensorFlow is not needed.

  Args:
    name: the data set.
    directory: the folder of prepared data sets; None is tensorflow-datasets' own,
      `TFDS_DATA_DIR` or `~/tensorflow_datasets`. `digits` and `npz:` have no use for it.
    split: `shuffle` takes the validation examples at random, by `split_seed`; `first` keeps the
      first examples for training and takes the last ones. `digits` are always in the one order of a
      fixed shuffle: 1,197 for training, 300 for validation, 300 for the test.
    validation: the number of examples taken from the published training set; None takes the data
      set's own: 10,000 for CIFAR, 5,000 for MNIST, 300 for the digits, a tenth of a person's own.
      0 leaves the validation split empty.
    split_seed: the seed of `shuffle`, and of nothing else.
    limit: keep this many of the training examples, the first, for a shortened run. The moments
      stay those of the full training split, so that a shortened run sees the same inputs.
    cache: keep the decoded arrays in the user's cache folder (`SPARSEJAX_CACHE` names another).

  Raises:
    ValueError: one line that names the field, the value, and what is allowed.

  Example:
    >>> digits = load('digits')
    >>> digits.train.images.shape, digits.validation.labels.shape, digits.num_classes
    ((1197, 8, 8, 1), (300,), 10)
  """
  if name.startswith('npz:'):
    whole, digest = read_npz(name.removeprefix('npz:'))
    source = _Source(
      read=lambda directory, cache: whole,
      num_classes=int(whole.train.labels.max()) + 1,
      validation=max(1, len(whole.train.labels) // 10),
    )
  else:
    lookup('data set (data.name)', name, {**_SOURCES, 'npz:PATH': None})
    source, digest = _SOURCES[name], None
    whole = source.read(directory, cache)
  if name == 'digits':
    split = lookup('data.split', split, {'shuffle': 'first', 'first': 'first'})
  validation = source.validation if validation is None else validation
  train, held_out = take_validation(
    whole.train, validation=validation, split=split, split_seed=split_seed
  )
  mean, std = source.moments or moments(train.images)
  if limit is not None:
    _check_integer('data.limit', limit, 1, len(train.labels), 'the training split')
    train = Split(train.images[:limit], train.labels[:limit])
  return Dataset(name, train, held_out, whole.test, source.num_classes, mean, std, digest)


def take_validation(
  train: Split, *, validation: int, split: str = 'shuffle', split_seed: int = 0
) -> tuple[Split, Split]:
  """Splits off `validation` examples: the last of the order that `split` gives.

  Example:
    >>> whole = Split(np.zeros((4, 1, 1, 1), np.uint8), np.arange(4, dtype=np.int32))
    >>> train, validation = take_validation(whole, validation=1, split='first')
    >>> train.labels, validation.labels
    (array([0, 1, 2], dtype=int32), array([3], dtype=int32))
  """
  order = lookup('data.split', split, {'shuffle': _shuffled, 'first': _in_order})
  count = len(train.labels)
  _check_integer('data.validation', validation, 0, count - 1, 'training examples less one')
  _check_integer('data.split_seed', split_seed, 0, 2**63 - 1, 'seeds')
  indices = order(count, split_seed)
  kept, taken = indices[: count - validation], indices[count - validation :]
  return (
    Split(train.images[kept], train.labels[kept]),
    Split(train.images[taken], train.labels[taken]),
  )


def moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns mean and standard deviation of each channel, of pixels scaled to [0, 1].

  The sums are of integers and so exact: no order of summation can change a bit of the result. A
  channel that never varies has std 1, so that normalising it gives zeros.

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


def _shuffled(count: int, seed: int) -> np.ndarray:
  # NumPy promises the raw bits of PCG64 for good, and Generator.permutation's of one version only
  # (NEP 19): a split must outlive the version that drew it.
  return np.argsort(np.random.PCG64(seed).random_raw(count), kind='stable')


def _in_order(count: int, seed: int) -> np.ndarray:
  del seed
  return np.arange(count)


def _check_integer(field: str, value: int, low: int, high: int, of: str) -> None:
  if isinstance(value, bool) or not isinstance(value, int | np.integer):
    raise ValueError(f'{field}={value!r}: a whole number is wanted')
  if not low <= value <= high:
    raise ValueError(f'{field}={value}: allowed are {low} to {high} ({of})')


# --- Embedded: scikit-learn's digits -------------------------------------------------------------


def _read_digits(directory: str | os.PathLike | None, cache: bool) -> _Whole:
  """Returns 1,497 + 300 real handwritten digits: the one data set that is always there.

  They go through the cache for the sake of the import: scikit-learn takes two seconds.
  """
  del directory
  version = importlib.metadata.version('scikit-learn')
  return _cached(f'digits-{version}', _decode_digits) if cache else _decode_digits()


def _decode_digits() -> _Whole:
  from sklearn import datasets

  bunch = datasets.load_digits()
  order = _shuffled(len(bunch.target), 0)
  # 17 grey levels, 0 to 16, spread over 0 to 255.
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[order, :, :, None]
  labels = bunch.target.astype(np.int32)[order]
  return _Whole(Split(images[:-300], labels[:-300]), Split(images[-300:], labels[-300:]))


# --- A person's own arrays -----------------------------------------------------------------------


def read_npz(path: str | os.PathLike) -> tuple[_Whole, str]:
  """Returns the four arrays of an npz file, checked, and the sha256 of their content.

  Wanted are `x_train`, `x_test`: uint8 of shape (examples, height, width, channels), or without
  channels for grey images, and `y_train`, `y_test`: integers from 0 of shape (examples,).

  Raises:
    ValueError: one line that names the file, the array and what is wrong with it.
  """
  where = f"data.name='npz:{os.fspath(path)}'"
  arrays = _npz_arrays(path, where)
  splits = {}
  for part in ('train', 'test'):
    images, labels = arrays[f'x_{part}'], arrays[f'y_{part}']
    if images.dtype != np.uint8:
      raise ValueError(f'{where}: x_{part} is {images.dtype}, must be uint8')
    if images.ndim not in (3, 4) or 0 in images.shape:
      raise ValueError(
        f'{where}: x_{part} has shape {images.shape}, must be (examples, height, width, channels) '
        'or (examples, height, width), none of them 0'
      )
    if labels.dtype.kind not in 'iu' or labels.ndim != 1:
      raise ValueError(
        f'{where}: y_{part} is {labels.dtype} of shape {labels.shape}, must be integers of shape '
        '(examples,)'
      )
    if len(images) != len(labels):
      raise ValueError(f'{where}: {len(images)} images in x_{part}, {len(labels)} in y_{part}')
    splits[part] = images if images.ndim == 4 else images[..., None], labels
  (x_train, y_train), (x_test, y_test) = splits['train'], splits['test']
  if x_train.shape[1:] != x_test.shape[1:]:
    raise ValueError(
      f'{where}: images of shape {x_train.shape[1:]} in x_train, {x_test.shape[1:]} in x_test'
    )
  # The largest label makes the classifier as wide: an identifier taken for one has to be refused.
  for part, labels, high in (('train', y_train, 2**16 - 1), ('test', y_test, int(y_train.max()))):
    if labels.min() < 0 or labels.max() > high:
      raise ValueError(
        f'{where}: labels {labels.min()} to {labels.max()} in y_{part}, allowed are 0 to {high}'
      )
  whole = _Whole(Split(x_train, y_train.astype(np.int32)), Split(x_test, y_test.astype(np.int32)))
  digest = hashlib.sha256()
  for array in (*whole.train, *whole.test):
    digest.update(f'{array.dtype.name} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array))
  return whole, digest.hexdigest()


def _npz_arrays(path: str | os.PathLike, where: str) -> dict[str, np.ndarray]:
  names = ('x_train', 'y_train', 'x_test', 'y_test')
  try:
    os.stat(path)
    if not zipfile.is_zipfile(path):  # of a .npy or a pickle np.load would speak otherwise
      raise ValueError('not an npz file, or cut short')
    with np.load(path, allow_pickle=False) as file:
      missing = [name for name in names if name not in file.files]
      if missing:
        raise ValueError(f'lacks {", ".join(missing)}; must hold {", ".join(names)}')
      return {name: np.asarray(file[name]) for name in names}
  except Exception as error:  # a damaged zip raises nearly anything
    raise ValueError(f'{where}: {_line(error)}') from error


# --- Prepared by tensorflow-datasets -------------------------------------------------------------


def _read_prepared(name: str, directory: str | os.PathLike | None, cache: bool) -> _Whole:
  """Returns the arrays of a prepared folder, by way of the cache; prepares it where it is not."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  root = pathlib.Path(directory or default).expanduser()
  folder = find_prepared(name, root)
  if folder is None:
    from sparsejax.experiment import prepare

    folder = prepare.prepare(name, root)

  def decode() -> _Whole:
    from sparsejax.experiment import prepare

    return _Whole(*(Split(*prepare.decode(folder, part)) for part in ('train', 'test')))

  if not cache:
    return decode()
  try:
    identity = _identity(folder)
  except OSError as error:
    raise ValueError(f"data.dir='{root}': '{name}' can't be read: {_line(error)}") from error
  return _cached(f'{name}-{folder.name}-{identity}', decode)


def find_prepared(name: str, root: pathlib.Path) -> pathlib.Path | None:
  """Returns the newest version of the data set that is finished in this folder, or None."""
  versions = [
    path.parent
    for path in root.glob(f'{name}/*/dataset_info.json')
    if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)  # tfds builds under `incomplete.*`
  ]
  return max(versions, key=lambda path: [int(n) for n in path.name.split('.')], default=None)


def _identity(folder: pathlib.Path) -> str:
  """Returns a short digest that changes with the files of a prepared folder."""
  digest = hashlib.sha256((folder / 'dataset_info.json').read_bytes())
  for path in sorted(folder.iterdir()):
    stat = path.stat()
    digest.update(f'{path.name} {stat.st_size} {stat.st_mtime_ns}\n'.encode())
  return digest.hexdigest()[:16]


# --- The cache of decoded arrays -----------------------------------------------------------------


def _cached(key: str, decode: Callable[[], _Whole]) -> _Whole:
  """Returns decode(), kept in a file between runs; what is wrong with the file stops nothing.

  The file is an uncompressed npz: reading it checks the CRC-32 of every array.
  """
  folder = os.environ.get('SPARSEJAX_CACHE') or platformdirs.user_cache_dir('sparsejax')
  path = pathlib.Path(folder).expanduser() / f'{key}.npz'
  try:
    # By a handle of ours: of a zip cut short np.load leaves its own open.
    with open(path, 'rb') as handle, np.load(handle, allow_pickle=False) as file:
      return _Whole(
        Split(file['train_images'], file['train_labels']),
        Split(file['test_images'], file['test_labels']),
      )
  except (FileNotFoundError, NotADirectoryError):
    pass
  except Exception as error:  # a damaged zip raises nearly anything
    logging.warning('the cache %s is unreadable (%s): decoding again', path, _line(error))
  whole = decode()
  try:
    _write(path, whole)
  except OSError as error:
    logging.warning('the cache %s is not written (%s): going on without', path, _line(error))
  return whole


def _write(path: pathlib.Path, whole: _Whole) -> None:
  """Writes the arrays all at once: another process sees the old file, none, or the new one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='incomplete.')
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(
        file,
        train_images=whole.train.images,
        train_labels=whole.train.labels,
        test_images=whole.test.images,
        test_labels=whole.test.labels,
      )
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def _line(error: BaseException) -> str:
  """Returns an error's message in one line, its type where it says nothing."""
  return ' '.join(str(error).split()) or type(error).__name__


# The std that everybody uses for CIFAR-10 is the mean over images of each image's own std. Over all
# pixels of the training set it is (0.2470, 0.2435, 0.2616), and CIFAR-100's below is of that kind.
_SOURCES = {
  'digits': _Source(_read_digits, 10, 300),
  'mnist': _Source(functools.partial(_read_prepared, 'mnist'), 10, 5_000),
  'fashion_mnist': _Source(functools.partial(_read_prepared, 'fashion_mnist'), 10, 5_000),
  'cifar10': _Source(
    functools.partial(_read_prepared, 'cifar10'),
    10,
    10_000,
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
  ),
  'cifar100': _Source(
    functools.partial(_read_prepared, 'cifar100'),
    100,
    10_000,
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
  ),
}
