"""Data sets of tensorflow-datasets, prepared and decoded without TensorFlow.

tensorflow-datasets downloads, checks, shuffles and writes array_record without TensorFlow, but
needs it to open a download and to encode an array as PNG. The builders below are its own except
for these two things: archives are read with the standard library and NumPy, and images are handed
over as Pillow's. A folder prepared here therefore has the same records in the same order as one
that tensorflow-datasets prepares, and any `tfds.data_source` reads it.
"""

import contextlib
import gzip
import io
import logging as standard_logging
import os
import pathlib
import sys
import tarfile
import zlib
from typing import Any
from unittest import mock
from urllib.parse import urljoin

import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from tensorflow_datasets.core.download import download_manager, downloader

from sparsejax.experiment.machine.files import is_system_error
from sparsejax.experiment.terminal.errors import in_one_line

# tensorflow-datasets makes ten attempts and doubles the wait each time: without a network that
# takes three and a half minutes. Three attempts take a second.
ATTEMPTS = 3
_RETRIES = standard_logging.getLogger('urllib3.connectionpool')  # warns of each attempt


class _Idx:
  """MNIST's format: for each split one gzipped idx file of images and one of labels."""

  URL: str

  def _split_generators(self, dl_manager):
    parts = {'train': 'train', 'test': 't10k'}
    kinds = ('images-idx3-ubyte.gz', 'labels-idx1-ubyte.gz')
    files = dl_manager.download(
      {
        part: [urljoin(self.URL, f'{stem}-{kind}') for kind in kinds]
        for part, stem in parts.items()
      }
    )
    return {part: self._generate_examples(*paths) for part, paths in files.items()}

  def _generate_examples(self, images, labels):
    pixels = read_idx(images)
    if pixels.shape[1:] != (28, 28):
      raise ValueError(f'{images} holds {pixels.shape}, not images of 28x28')
    for index, (image, label) in enumerate(zip(pixels, read_idx(labels), strict=True)):
      yield index, {'image': Image.fromarray(image), 'label': int(label)}


class _Binary:
  """CIFAR's format: rows of label bytes and 3x32x32 image bytes, in one tar archive."""

  info: Any
  _cifar_info: Any

  def _split_generators(self, dl_manager):
    info = self._cifar_info
    files = read_tar(dl_manager.download(info.url))
    for key, file in zip(info.label_keys, info.label_files, strict=True):
      names = files[info.prefix + file].decode().split('\n')
      self.info.features[key].names = [name for name in names if name]
    return {
      part: self._generate_examples(
        f'{part}_', b''.join(files[info.prefix + name] for name in names)
      )
      for part, names in (('train', info.train_files), ('test', info.test_files))
    }

  def _generate_examples(self, prefix, content):
    keys = self._cifar_info.label_keys
    rows = np.frombuffer(content, np.uint8).reshape(-1, len(keys) + 3 * 32 * 32)
    for index, row in enumerate(rows):
      image = row[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
      labels = {key: int(label) for key, label in zip(keys, row, strict=False)}
      yield index, {'id': f'{prefix}{index:05d}', 'image': Image.fromarray(image), **labels}


# The classes have the names of the originals, which also name the folders. `_generate_examples`
# takes other arguments than theirs, but only `_split_generators`, which is here too, calls it.
class MNIST(  # ty: ignore[incompatible-method-override]
  _Idx, tfds.image_classification.MNIST, skip_registration=True
):
  """MNIST, without TensorFlow."""


class FashionMNIST(  # ty: ignore[incompatible-method-override]
  _Idx, tfds.image_classification.FashionMNIST, skip_registration=True
):
  """Fashion-MNIST, without TensorFlow."""


class Cifar10(  # ty: ignore[lost-keyword-for-regular-parameter]
  _Binary, tfds.image_classification.Cifar10, skip_registration=True
):
  """CIFAR-10, without TensorFlow."""


class Cifar100(  # ty: ignore[lost-keyword-for-regular-parameter]
  _Binary, tfds.image_classification.Cifar100, skip_registration=True
):
  """CIFAR-100, without TensorFlow."""


_BUILDERS = {builder.name: builder for builder in (MNIST, FashionMNIST, Cifar10, Cifar100)}

_DOWNLOAD_ERRORS = (
  requests.RequestException,
  tfds.download.DownloadError,
  download_manager.NonMatchingChecksumError,
)


def prepare(name: str, root: pathlib.Path) -> pathlib.Path:
  """Downloads a data set, checks it against the registered checksums, and writes array_record.

  The folder gets its own name only when it is complete: what a killed process leaves is called
  `incomplete.*` or is among the downloads, and nothing takes it for data.

  Returns:
    The folder, `root/name/version`.

  Raises:
    ValueError: says in one line what failed.
  """
  folder = root / name / str(_BUILDERS[name].VERSION)
  missing = [path for path in (root / name, root / 'downloads', root) if not path.exists()]
  logging.info('downloading %s and preparing it in %s', name, folder)
  tfds.display_progress_bar(enable=sys.stderr.isatty())
  try:
    with (
      contextlib.redirect_stdout(sys.stderr),  # it prints, and stdout is the command's
      mock.patch.object(downloader, 'MAX_RETRIES', ATTEMPTS),
      mock.patch.object(_RETRIES, 'disabled', True),
    ):
      _BUILDERS[name](data_dir=root).download_and_prepare(
        download_config=tfds.download.DownloadConfig(
          try_download_gcs=False, force_checksums_validation=True
        ),
        file_format='array_record',
      )
  except Exception as error:
    for path in missing:
      _remove_empty(path)
    if not (folder / 'dataset_info.json').exists():  # it exists if another process was faster
      what = 'downloading' if isinstance(error, _DOWNLOAD_ERRORS) else 'preparing'
      raise ValueError(
        f"data.dir='{root}' holds no prepared '{name}' and {what} it failed: {_line(error)}; "
        "give a folder that holds it, or data.name='digits', which needs none"
      ) from error
  return folder


def _remove_empty(folder: pathlib.Path) -> None:
  """Removes a folder, and the folders in it, if they hold no file."""
  for path, _, _ in os.walk(folder, topdown=False):
    with contextlib.suppress(OSError):
      os.rmdir(path)


def decode(folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns images (uint8) and labels (int32) of one split, in the order of the records.

  Raises:
    ValueError: the folder, named in one line, is damaged or in another format.
  """
  try:
    builder: Any = tfds.builder_from_directory(folder)
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if 'array_record' not in formats:
      raise ValueError(f'it is in {" and ".join(formats)}; only array_record needs no TensorFlow')
    # Pillow decodes the PNGs, even if OpenCV, which tensorflow-datasets prefers, is installed.
    source = builder.as_data_source(
      split, decoders={'image': tfds.decode.SkipDecoding()}, file_format='array_record'
    )
    images = np.empty((len(source), *builder.info.features['image'].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), 1000):
      keys = range(start, min(start + 1000, len(source)))
      for key, example in zip(keys, source.__getitems__(list(keys)), strict=True):
        image = np.asarray(Image.open(io.BytesIO(example['image'])))
        images[key] = image.reshape(images.shape[1:])
        labels[key] = example['label']
  except (
    Exception
  ) as error:  # the readers of JSON, array_record, protos and PNG each raise their own
    advice = 'give another folder, or remove that one to download it again'
    if is_system_error(error):
      advice = 'nothing was changed; try again'
    raise ValueError(
      f"data.dir='{folder.parent.parent}': '{folder.parent.name}/{folder.name}' cannot be read: "
      f'{_line(error)}; {advice}'
    ) from error
  return images, labels


def read_idx(path: str | os.PathLike) -> np.ndarray:
  """Returns the array of a gzipped idx file of unsigned bytes.

  The format is 0, 0, the type (8 is uint8), the number of axes; the length of each axis as a
  big-endian uint32; the elements.

  Raises:
    ValueError: the file is damaged.
    OSError: the file cannot be read now.
  """
  try:
    with gzip.open(path) as file:
      content = file.read()
    if content[:3] != b'\0\0\x08':
      raise ValueError(f'it starts with {content[:3]!r}, not with an idx header of uint8')
    shape = np.frombuffer(content, '>u4', count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
  except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
    if is_system_error(error):
      raise
    raise ValueError(f'{path} is damaged: remove it ({_line(error)})') from error


def read_tar(path: str | os.PathLike) -> dict[str, bytes]:
  """Returns the content of every file in a tar archive, by name.

  It makes one pass in the archive's order, because seeking back in a gzip stream decompresses it
  again.

  Raises:
    ValueError: the archive is damaged.
    OSError: the archive cannot be read now.
  """
  try:
    with tarfile.open(path) as tar:
      return {
        member.name: file.read()
        for member in tar
        if member.isfile() and (file := tar.extractfile(member)) is not None
      }
  except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
    if is_system_error(error):
      raise
    raise ValueError(f'{path} is damaged: remove it ({_line(error)})') from error


def _line(error: BaseException) -> str:
  """Returns an error in one line, with its type, since a KeyError's message is only the key."""
  line = f'{type(error).__name__}: {in_one_line(error)}'
  return line if len(line) <= 300 else f'{line[:100]} ... {line[-200:]}'  # it may quote an image
