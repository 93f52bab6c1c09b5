"""Saving masks to an `.npz` file, with an array of bools under the path of each leaf."""

import contextlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Generator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.atomic import replacing
from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.leaves import tree

# The errors that zipfile and NumPy raise for a damaged file, or for one that is not an archive.
DAMAGED = (
  *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError),
  *(RuntimeError, MemoryError),
)
SUFFIX = '.npy'


def save_masks(path: str | os.PathLike[str], masks: Any) -> None:
  """Writes masks to an `.npz` file that has an array of bools under the path of each leaf.

  The file is replaced atomically: it has either the old masks or the new ones, even if the process
  is killed. Equal masks make equal bytes. Nothing is pickled.

  Args:
    path: the file to write, with any suffix.
    masks: a pytree of bools, such as `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: a leaf does not hold bools.
    OSError: the file can't be written.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'masks.npz'
    >>> masks = {'fc': {'kernel': jnp.array([[True, False]])}}
    >>> save_masks(path, masks)
    >>> load_masks(path, masks)['fc']['kernel'].tolist()
    [[True, False]]
    >>> np.load(path)['fc/kernel'].tolist()
    [[True, False]]
  """
  path = pathlib.Path(path)
  named = tree.named_leaves(masks)
  for name, mask in named.items():
    if jnp.result_type(mask) != jnp.bool_:
      raise ValueError(f"the mask of '{name}' has dtype {jnp.result_type(mask)} and must have bool")
  with replacing(path) as temporary, temporary.open('wb') as file:
    with zipfile.ZipFile(file, 'w') as archive:
      for name, mask in named.items():
        entry = zipfile.ZipInfo(name + SUFFIX)  # without a time: equal masks make equal files
        entry.compress_type = zipfile.ZIP_DEFLATED
        values = np.asarray(jax.device_get(mask))
        with archive.open(entry, 'w', force_zip64=True) as array_file:
          np.lib.format.write_array(array_file, values, allow_pickle=False)
    file.flush()
    os.fsync(file.fileno())


def load_masks(path: str | os.PathLike[str], like: Any) -> Any:
  """Returns the masks that `save_masks` wrote, as a tree with the structure of `like`.

  Args:
    path: the file to read.
    like: a tree with the structure and shapes of the masks, such as the masks of a state; or the
      parameters. A parameter that was not pruned may have a mask of shape ().

  Raises:
    ValueError: `save_masks` did not write the file, or its masks have other names or shapes.
    OSError: the file can't be read.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'masks.npz'
    >>> save_masks(path, {'w': jnp.array([[True, False]])})
    >>> load_masks(path, {'w': jnp.ones((2, 2))})
    Traceback (most recent call last):
    ValueError: ...masks.npz: the mask of 'w' has shape (1, 2) and must have (2, 2)
  """
  named = tree.named_leaves(like)
  with _damage_as_value_error(path), zipfile.ZipFile(path) as archive:
    entries = {entry.removesuffix(SUFFIX): entry for entry in archive.namelist()}
    masks = {name: _read(archive, entry) for name, entry in entries.items() if name in named}
  _check_names(path, list(entries), list(named))
  for name, mask in masks.items():
    _check_mask(path, name, mask, named[name])
  leaves = [jnp.asarray(masks[name]) for name in named]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


@contextlib.contextmanager
def _damage_as_value_error(path) -> Generator[None]:
  """Turns the errors of reading a damaged file into a ValueError that names the file."""
  try:
    yield
  except DAMAGED as error:
    raise ValueError(f'{path} must be a file that save_masks wrote: {error}') from error


def _check_names(path, in_file: list[str], in_like: list[str]) -> None:
  """Raises a ValueError unless the file has a mask for each leaf of `like`, and no others."""
  for name in in_like:
    if name not in in_file:
      hint = nearest(name, in_file) or f' there are {", ".join(in_file) or "none"}'
      raise ValueError(f"{path}: there is no mask of '{name}':{hint}")
  for name in in_file:
    if name not in in_like:
      raise ValueError(f"{path}: there is a mask of '{name}', but like= has no such leaf")


def _read(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
  with archive.open(entry) as file:
    return np.lib.format.read_array(file, allow_pickle=False)


def _check_mask(path, name: str, mask: np.ndarray, like: Any) -> None:
  """Raises a ValueError unless a mask holds bools and has the shape of its leaf."""
  if mask.dtype != bool:
    raise ValueError(f"{path}: the mask of '{name}' has dtype {mask.dtype} and must have bool")
  shape = jnp.shape(like)
  # If like= has parameters, a mask of shape () means that the leaf was not pruned.
  is_unpruned = mask.shape == () and jnp.result_type(like) != jnp.bool_
  if mask.shape != shape and not is_unpruned:
    raise ValueError(f"{path}: the mask of '{name}' has shape {mask.shape} and must have {shape}")
