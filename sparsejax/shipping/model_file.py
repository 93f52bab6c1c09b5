"""One small file of a network: written and compared, read within a bound, measured by part."""

import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.internal.atomic import replacing
from sparsejax.internal.lookup import nearest
from sparsejax.shipping import sharing
from sparsejax.shipping.file import decode, encode, layouts
from sparsejax.shipping.file import format as form
from sparsejax.sparsity.leaves import tree


class Loaded(NamedTuple):
  """What a model file holds: the parameters, arrays of NumPy, and what it says of the network."""

  params: Any
  header: form.Header


def save(
  path: str | os.PathLike[str],
  params: Any,
  *,
  bits: sharing.Bits | None = None,
  precision: str | None = None,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  model: str = '',
  settings: Mapping[str, Any] | None = None,
  scaling: Mapping[str, Any] | None = None,
  classes: Sequence[str] = (),
  provenance: Mapping[str, Any] | None = None,
) -> Any:
  """Writes a network to one small file, or leaves what is there.

  Of a leaf with zeros the others are stored with their positions; of one with at most 256 values
  each of these once, in a codebook, and its number for each weight; floats in fewer bits where all
  of them are the same in these. Each is done where it takes fewer bytes, and none of it changes a
  bit. Only `bits` and `precision` round.

  The file is read back and compared before it takes the place of an older one. Equal networks make
  equal files, and nothing in them is pickled.

  Args:
    path: where the file goes, by any name.
    params: any pytree of arrays, such as {'params': ..., 'batch_stats': ...}. Dicts, lists and
      tuples come back by themselves, other nodes where `load` is given `like`.
    bits: of the clusters of each layer's weights, as of `share`; None shares none.
    precision: the dtype, such as 'float16', that values are rounded to; each leaf keeps its own.
    parameters: which leaves are shared, as of `share`.
    exclude: regular expressions (or one) over paths; each must match something.
    model: the network's name.
    settings: what it is built with, such as its widths; what JSON can hold.
    scaling: what is done to its inputs, such as {'mean': [0.5], 'std': [0.25]}.
    classes: the names of its outputs.
    provenance: where it comes from, such as its run and its accuracy.

  Returns:
    The parameters as they were written, arrays of NumPy.

  Raises:
    ValueError: as of `share`; a leaf that is no array of numbers, settings that JSON can't hold.
    OSError: the file can't be written, or what was read back is not what was written.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'model'
    >>> kernel = np.array([[0.0, 1.0, 1.25], [3.0, 0.0, 0.0]], np.float32)
    >>> save(path, {'kernel': kernel}, bits=1, model='tiny', classes=['a', 'b', 'c'])
    {'kernel': array([[0.   , 1.125, 1.125], [3.   , 0.   , 0.   ]], dtype=float32)}
    >>> load(path).header.classes
    ('a', 'b', 'c')
  """
  header = form.Header(model, settings or {}, scaling or {}, tuple(classes), provenance or {})
  if bits is not None:
    shared = sharing.share(params, bits, parameters=parameters, exclude=exclude)
    params = shared.params
  if precision is not None:
    params = sharing.rounded(params, precision)
  path, data = pathlib.Path(path), encode.encode(params, header)
  with replacing(path) as temporary:
    with temporary.open('wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    _, leaves = decode.decode(io.BytesIO(temporary.read_bytes()), str(path), 2**62)
    given = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(params))]
    if not all(map(_is_the_same, leaves, given)):
      raise OSError(f'{path} is not written: what was read back is not what was to be written')
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def load(path: str | os.PathLike[str], *, max_bytes: int = 2**30, like: Any = None) -> Loaded:
  """Returns the network that `save` wrote, to the bit.

  Every length that the file names is checked before memory is taken: reading takes at most
  `max_bytes` + 64 * header (which is 1 MiB at most) + 3 MB. Checksums are compared before anything
  is decoded, and nothing in the file is run.

  Args:
    path: where the file is.
    max_bytes: that its arrays, its parts and what is made between may take.
    like: a tree of the parameters' structure, such as their shapes, whose leaves they become; where
      they were saved in nodes other than dicts, lists and tuples, it must be given.

  Returns:
    The parameters, arrays of NumPy, and the header.

  Raises:
    ValueError: a file that is damaged, of another format or version, that needs more memory, or
      whose leaves are not those of `like`.
    OSError: the file can't be read.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'model'
    >>> _ = save(path, {'kernel': np.ones((300, 100))})
    >>> load(path, max_bytes=100_000)
    Traceback (most recent call last):
    ValueError: ...: the memory that it needs=... must be at most max_bytes=100000
  """
  if not form.is_count(max_bytes):
    raise ValueError(f'max_bytes={max_bytes!r} must be a whole number of bytes, such as 2**30')
  with pathlib.Path(path).open('rb') as file:
    contents, leaves = decode.decode(file, str(path), max_bytes)
  if like is None:
    if contents.tree is None and contents.leaves:
      raise ValueError(
        f'{path}: the parameters were in nodes of other classes than dict, list and tuple: give '
        'like=, a tree of their structure'
      )
    return Loaded(decode.in_tree(contents, leaves), contents.header)
  _check_alike(str(path), contents, tree.named_leaves(like))
  named = dict(zip(contents.paths, leaves, strict=True))
  ordered = [named[name] for name in tree.paths(like)]
  return Loaded(jax.tree.unflatten(jax.tree.structure(like), ordered), contents.header)


def sizes(path: str | os.PathLike[str]) -> dict[str, int]:
  """Returns how many bytes of a model file each part takes; their sum is its length.

  `positions` tells which weights are kept, `ids` their clusters, `codebooks` the clusters' values;
  `biases` holds all that is no kernel, BatchNorm too, `rest` the kernels' weights that stand for
  themselves.

  Raises:
    ValueError: the header is damaged, or the file of another length than it says.
    OSError: the file can't be read.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'model'
    >>> _ = save(path, {'kernel': np.eye(8, dtype='float32'), 'bias': np.arange(4.0)})
    >>> found = sizes(path)
    >>> sum(found.values()) == path.stat().st_size
    True
    >>> {part: found[part] for part in ('positions', 'ids', 'codebooks', 'biases', 'rest')}
    {'positions': 8, 'ids': 1, 'codebooks': 2, 'biases': 8, 'rest': 0}
  """
  with pathlib.Path(path).open('rb') as file:
    contents = decode.read_header(file, str(path))
  parts = {part: row.coded for part, row in contents.parts.items()}
  rest = contents.whole - contents.length - sum(parts.values())
  return {'header': contents.length, **parts, 'checksums': rest}


def _is_the_same(one: np.ndarray, other: np.ndarray) -> bool:
  """Whether two arrays have the same bits."""
  if (one.dtype, one.shape) != (other.dtype, other.shape):
    return False
  return np.array_equal(layouts.bits_of(np.ravel(one)), layouts.bits_of(np.ravel(other)))


def _check_alike(name: str, contents: form.Contents, like: Mapping[str, Any]) -> None:
  found = dict(zip(contents.paths, contents.leaves, strict=True))
  for path, leaf in like.items():
    if path not in found:
      known = nearest(path, found) or f' there are {", ".join(found) or "none"}'
      raise ValueError(f"{name}: there is no leaf '{path}':{known}")
    if found[path].shape != tuple(np.shape(leaf)):
      form.refuse(
        name, f"the shape of '{path}'", found[path].shape, f'{np.shape(leaf)}, as in like'
      )
  if others := [path for path in found if path not in like]:
    raise ValueError(f"{name}: there is a leaf '{others[0]}', and like= must have it")
