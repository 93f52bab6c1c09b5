"""The sources of the named data sets: embedded, made, or prepared by tensorflow-datasets."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sparsejax.experiment.data import grammar, texts
from sparsejax.experiment.data.array_cache import cached
from sparsejax.experiment.data.splits import Split, Whole, shuffled
from sparsejax.experiment.terminal.errors import in_one_line


class Source(NamedTuple):
  """A named data set: the function that reads it, its classes, and the default of its splits."""

  read: Callable[[str | os.PathLike | None, bool], Whole]  # (directory, cache)
  num_classes: int
  validation: int  # examples, unless the caller says otherwise or the data set has its own split
  moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # None: they are computed
  varies: bool = False  # whether the content differs from machine to machine


def _read_digits(directory: str | os.PathLike | None, cache: bool) -> Whole:
  """Returns 1,497 + 300 real handwritten digits, the one data set that is always available.

  They go through the cache to save the import of scikit-learn, which takes two seconds.
  """
  del directory
  version = importlib.metadata.version('scikit-learn')
  return cached(f'digits-{version}', _decode_digits) if cache else _decode_digits()


def _decode_digits() -> Whole:
  from sklearn import datasets

  bunch = datasets.load_digits()
  order = shuffled(len(bunch.target), 0)
  # 17 grey levels, 0 to 16, spread over 0 to 255.
  images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[order, :, :, None]
  labels = bunch.target.astype(np.int32)[order]
  return Whole(Split(images[:-300], labels[:-300]), Split(images[-300:], labels[-300:]))


def _read_prepared(name: str, directory: str | os.PathLike | None, cache: bool) -> Whole:
  """Returns the arrays of a prepared folder, through the cache; prepares it if it is missing."""
  default = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  root = pathlib.Path(directory or default).expanduser()
  if directory and not os.path.isdir(root):  # a mistyped folder must not be created
    raise ValueError(
      f"data.dir='{directory}' must be an existing folder; {name} is prepared in it if missing"
    )
  folder = _prepared(name, root)

  def decode() -> Whole:
    from sparsejax.experiment.data import prepare

    return Whole(*(Split(*prepare.decode(folder, part)) for part in ('train', 'test')))

  if not cache:
    return decode()
  try:
    identity = _identity(folder)
  except OSError as error:
    raise ValueError(f"data.dir='{root}': '{name}' cannot be read: {in_one_line(error)}") from error
  return cached(f'{name}-{folder.name}-{identity}', decode)


def _prepared(name: str, root: pathlib.Path) -> pathlib.Path:
  """The folder of a data set, which is prepared first if there is none."""
  if (folder := find_prepared(name, root)) is not None:
    return folder
  from sparsejax.experiment.data import prepare

  return prepare.prepare(name, root)


def find_prepared(name: str, root: pathlib.Path) -> pathlib.Path | None:
  """Returns the newest finished version of the data set in a folder, or None if it has none."""
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


UNSCALED = ((0.0,), (1 / 255,))  # moments that leave bytes as they are
# The std in common use for CIFAR-10 is the mean over images of each image's own std. Over all
# pixels of the training set it is (0.2470, 0.2435, 0.2616); CIFAR-100's below is of this kind.
SOURCES = {
  'digits': Source(_read_digits, 10, 300),
  'mnist': Source(functools.partial(_read_prepared, 'mnist'), 10, 5_000),
  'fashion_mnist': Source(functools.partial(_read_prepared, 'fashion_mnist'), 10, 5_000),
  'cifar10': Source(
    functools.partial(_read_prepared, 'cifar10'),
    10,
    10_000,
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
  ),
  'cifar100': Source(
    functools.partial(_read_prepared, 'cifar100'),
    100,
    10_000,
    ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
  ),
  'text': Source(texts.read_library, 256, 0, UNSCALED, varies=True),
  'grammar': Source(grammar.read, 256, 0, UNSCALED),
}
