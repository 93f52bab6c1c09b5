"""Masks in a file of their own, which NumPy opens: an array of bools for each leaf, by its path."""

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

# What a file that is damaged, or no archive of arrays at all, makes its readers raise.
DAMAGED = (
  *(zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError),
  *(RuntimeError, MemoryError),
)
SUFFIX = '.npy'


def save_masks(path: str | os.PathLike[str], masks: Any) -> None:
  """Writes masks to one file, an `.npz` of bools by the leaves' paths, or leaves what is there.

  The file is replaced whole: a reader, or a kill, finds the old masks or the new ones. The same
  masks make the same bytes, and nothing in them is pickled.

  Args:
    path: where the file goes, by any name.
    masks: a pytree of bools, as `optax.tree.get(state, 'masks')` gives it.

  Raises:
    ValueError: a leaf that is not of bools.
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
  path, named = pathlib.Path(path), tree.named_leaves(masks)
  for name, mask in named.items():
    if jnp.result_type(mask) != jnp.bool_:
      raise ValueError(f"the mask of '{name}' is of {jnp.result_type(mask)} and must be of bools")
  with replacing(path) as temporary, temporary.open('wb') as file:
    with zipfile.ZipFile(file, 'w') as archive:
      for name, mask in named.items():
        entry = zipfile.ZipInfo(name + SUFFIX)  # of no time, so that equal masks are equal files
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, 'w', force_zip64=True) as into:
          np.lib.format.write_array(into, np.asarray(jax.device_get(mask)), allow_pickle=False)
    file.flush()
    os.fsync(file.fileno())


def load_masks(path: str | os.PathLike[str], like: Any) -> Any:
  """Returns the masks that `save_masks` wrote, in the tree that they belong to.

  Args:
    path: where the file is.
    like: a tree of the masks' structure and shapes, such as a state's; or the parameters, of which
      a leaf that was not pruned may have a mask of shape ().

  Raises:
    ValueError: the file is no file of masks, or its masks are not those of `like`.
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
  with _telling_damage(path), zipfile.ZipFile(path) as archive:
    found = {entry.removesuffix(SUFFIX): entry for entry in archive.namelist()}
    masks = {name: _read(archive, entry) for name, entry in found.items() if name in named}
  _check_names(path, list(found), list(named))
  for name, mask in masks.items():
    _check(path, name, mask, named[name])
  leaves = [jnp.asarray(masks[name]) for name in named]
  return jax.tree.unflatten(jax.tree.structure(like), leaves)


@contextlib.contextmanager
def _telling_damage(path) -> Generator[None]:
  try:
    yield
  except DAMAGED as error:
    raise ValueError(f'{path} must be a file that save_masks wrote: {error}') from error


def _check_names(path, found: list[str], named: list[str]) -> None:
  for name in named:
    if name not in found:
      known = nearest(name, found) or f' there are {", ".join(found) or "none"}'
      raise ValueError(f"{path}: there is no mask of '{name}':{known}")
  if others := [name for name in found if name not in named]:
    raise ValueError(f"{path}: there is a mask of '{others[0]}', and like= must have such a leaf")


def _read(archive: zipfile.ZipFile, entry: str) -> np.ndarray:
  with archive.open(entry) as file:
    return np.lib.format.read_array(file, allow_pickle=False)


def _check(path, name: str, mask: np.ndarray, like: Any) -> None:
  if mask.dtype != bool:
    raise ValueError(f"{path}: the mask of '{name}' is of {mask.dtype} and must be of bools")
  shape = jnp.shape(like)
  is_whole = mask.shape == () and jnp.result_type(like) != jnp.bool_
  if mask.shape != shape and not is_whole:
    raise ValueError(f"{path}: the mask of '{name}' has shape {mask.shape} and must have {shape}")
