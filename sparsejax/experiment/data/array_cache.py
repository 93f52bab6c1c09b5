"""The cache of decoded arrays: a file that lasts between runs; a faulty one stops no run."""

import os
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import platformdirs
from absl import logging

from sparsejax.experiment.data.splits import Split, Whole
from sparsejax.experiment.terminal.errors import in_one_line


def cached(key: str, decode: Callable[[], Whole]) -> Whole:
  """Returns decode(), kept in a file between runs; a faulty file stops no run.

  The file is an uncompressed npz: reading it checks the CRC-32 of every array.
  """
  folder = os.environ.get('SPARSEJAX_CACHE') or platformdirs.user_cache_dir('sparsejax')
  path = pathlib.Path(folder).expanduser() / f'{key}.npz'
  try:
    # The handle is ours, because np.load leaves its own open if the zip is cut short.
    with open(path, 'rb') as handle, np.load(handle, allow_pickle=False) as file:
      return Whole(
        Split(file['train_images'], file['train_labels']),
        Split(file['test_images'], file['test_labels']),
      )
  except (FileNotFoundError, NotADirectoryError):
    pass
  except Exception as error:  # a damaged zip raises nearly anything
    logging.warning('cannot read the cache %s (%s): decoding again', path, in_one_line(error))
  whole = decode()
  try:
    _write(path, whole)
  except OSError as error:
    logging.warning('cannot write the cache %s (%s): continuing without', path, in_one_line(error))
  return whole


def _write(path: pathlib.Path, whole: Whole) -> None:
  """Writes the arrays atomically: another process sees the old file, none, or the new one."""
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
