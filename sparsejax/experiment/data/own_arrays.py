"""A user's own arrays: an npz file; whatever is wrong with it is refused in one line."""

import os
import zipfile

import numpy as np

from sparsejax.experiment.data.splits import Split, Whole, digest
from sparsejax.experiment.terminal.errors import in_one_line


def read_npz(path: str | os.PathLike) -> tuple[Whole, str]:
  """Returns the four checked arrays of an npz file, and the sha256 of their content.

  The file must hold `x_train` and `x_test`, uint8 of shape (examples, height, width, channels), or
  without channels for grey images; and `y_train` and `y_test`, integers from 0 of shape
  (examples,).

  Raises:
    ValueError: says in one line the file, the array and what is wrong with it.
  """
  where = f"data.name='npz:{os.fspath(path)}'"
  if not os.fspath(path):
    raise ValueError(f'{where} must have the path of an npz file after its colon, as in npz:PATH')
  arrays = _npz_arrays(path, where)
  splits = {}
  for part in ('train', 'test'):
    images, labels = arrays[f'x_{part}'], arrays[f'y_{part}']
    if images.dtype != np.uint8:
      raise ValueError(f'{where}: x_{part} is {images.dtype}; it must be uint8')
    if images.ndim not in (3, 4) or 0 in images.shape:
      raise ValueError(
        f'{where}: x_{part} has shape {images.shape}; it must be (examples, height, width, '
        'channels) or (examples, height, width), all above 0'
      )
    if _is_channels_first(images.shape):
      raise ValueError(
        f'{where}: x_{part} has shape {images.shape}, which looks like (examples, channels, '
        'height, width); it must be (examples, height, width, channels): x.transpose(0, 2, 3, 1)'
      )
    if labels.dtype.kind not in 'iu' or labels.ndim != 1:
      raise ValueError(
        f'{where}: y_{part} is {labels.dtype} of shape {labels.shape}; it must be integers '
        'of shape (examples,)'
      )
    if len(images) != len(labels):
      raise ValueError(f'{where}: {len(images)} images in x_{part}, {len(labels)} in y_{part}')
    splits[part] = images if images.ndim == 4 else images[..., None], labels
  (x_train, y_train), (x_test, y_test) = splits['train'], splits['test']
  if x_train.shape[1:] != x_test.shape[1:]:
    raise ValueError(
      f'{where}: images of shape {x_train.shape[1:]} in x_train, {x_test.shape[1:]} in x_test'
    )
  # The largest label sets the classifier's width, so identifiers mistaken for labels are refused.
  for part, labels, high in (('train', y_train, 2**16 - 1), ('test', y_test, int(y_train.max()))):
    if labels.min() < 0 or labels.max() > high:
      raise ValueError(
        f'{where}: labels {labels.min()} to {labels.max()} in y_{part} must be from 0 to {high}'
      )
  whole = Whole(Split(x_train, y_train.astype(np.int32)), Split(x_test, y_test.astype(np.int32)))
  return whole, digest(whole)


def _is_channels_first(shape: tuple[int, ...]) -> bool:
  """Returns whether the shape is that of images with the channels before the height.

  Example:
    >>> [_is_channels_first(s) for s in ((9, 3, 32, 32), (9, 32, 32, 3), (9, 3, 3, 3), (9, 28, 28))]
    [True, False, False, False]
  """
  channels = (1, 2, 3, 4)
  return len(shape) == 4 and shape[1] in channels and shape[3] not in channels


def _npz_arrays(path: str | os.PathLike, where: str) -> dict[str, np.ndarray]:
  names = ('x_train', 'y_train', 'x_test', 'y_test')
  try:
    os.stat(path)
    if not zipfile.is_zipfile(path):  # np.load would say something else about a .npy or a pickle
      raise ValueError('it is not an npz file, or it is cut short')
    with np.load(path, allow_pickle=False) as file:
      missing = [name for name in names if name not in file.files]
      if missing:
        raise ValueError(f'it lacks {", ".join(missing)}; it must hold {", ".join(names)}')
      return {name: np.asarray(file[name]) for name in names}
  except Exception as error:  # a damaged zip raises nearly anything
    raise ValueError(f'{where}: {in_one_line(error)}') from error
