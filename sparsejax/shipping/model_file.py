"""Small model files: written and verified, read within a memory bound, measured by part."""

import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.internal.atomic import replacing, write_synced
from sparsejax.internal.lookup import nearest
from sparsejax.shipping import sharing
from sparsejax.shipping.file import coding, decode, encode
from sparsejax.shipping.file import format as form
from sparsejax.sparsity.leaves import tree


class Loaded(NamedTuple):
  """The contents of a model file: the parameters, as NumPy arrays, and the header."""

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
  """Writes a network to one small file, atomically.

  A leaf with zeros is stored as the positions and values of its nonzero weights. A leaf with at
  most 256 distinct values is stored as a codebook and an id for each weight. Floats are stored in
  fewer bits if that loses nothing. Each of these is used where it saves bytes, and none changes a
  bit of the parameters; only `bits` and `precision` round.

  The file is read back and compared before it replaces an older one; if anything fails, the older
  one is left in place. Equal networks give equal files, and nothing in them is pickled.

  Args:
    path: the file to write, by any name.
    params: any pytree of arrays, such as {'params': ..., 'batch_stats': ...}. `load` rebuilds
      dicts, lists and tuples by itself; for nodes of other classes it needs `like`.
    bits: the number of bits of a layer's cluster ids, as in `share`; None shares no weights.
    precision: a dtype to round all values to, such as 'float16'; leaves keep their own dtype.
    parameters: which leaves are shared, as in `share`.
    exclude: regular expressions (or one) over paths; each must match something.
    model: the network's name.
    settings: the settings that it is built with, such as its widths; anything that JSON can hold.
    scaling: how its inputs are scaled, such as {'mean': [0.5], 'std': [0.25]}.
    classes: the names of its outputs.
    provenance: where it comes from, such as its run and its accuracy.

  Returns:
    The parameters as they were written, as NumPy arrays.

  Raises:
    ValueError: as in `share`; if a leaf is not an array of numbers, or JSON cannot hold the header.
    OSError: if the file cannot be written, or reading it back gives different values.

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
  path = pathlib.Path(path)
  data = encode.encode(params, header)
  with replacing(path) as temporary:
    write_synced(temporary, data)
    _, leaves = decode.decode(io.BytesIO(temporary.read_bytes()), str(path), 2**62)
    given = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(params))]
    if not all(map(_is_the_same, leaves, given)):
      raise OSError(f'{path} was not written: reading it back gave different values')
  return jax.tree.unflatten(jax.tree.structure(params), leaves)


def load(path: str | os.PathLike[str], *, max_bytes: int = 2**30, like: Any = None) -> Loaded:
  """Reads a network that `save` wrote, exact to the bit.

  Every length in the file is checked before memory is allocated. Reading takes at most
  `max_bytes` + 64 times the header (which is 1 MiB at most) + 3 MB. Checksums are verified before
  anything is decoded, and nothing in the file is executed.

  Args:
    path: the file to read.
    max_bytes: the most bytes that its arrays, and decoding them, may take.
    like: a tree with the structure that the parameters should have, such as their shapes. It must
      be given if they were saved in nodes other than dict, list and tuple.

  Returns:
    The parameters, as NumPy arrays, and the header.

  Raises:
    ValueError: if the file is damaged, has another format or version, needs more memory, or its
      leaves are not those of `like`.
    OSError: if the file cannot be read.

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
        f'{path}: the parameters were saved in nodes other than dict, list and tuple: pass like=, '
        'a tree with their structure'
      )
    return Loaded(decode.in_tree(contents, leaves), contents.header)
  _check_like(str(path), contents, tree.named_leaves(like))
  named = dict(zip(contents.paths, leaves, strict=True))
  ordered = [named[name] for name in tree.paths(like)]
  return Loaded(jax.tree.unflatten(jax.tree.structure(like), ordered), contents.header)


def sizes(path: str | os.PathLike[str]) -> dict[str, int]:
  """Returns {part: bytes} for a model file; the sum is the length of the file.

  `positions` holds the positions of the nonzero weights, `ids` their clusters, and `codebooks` the
  values of these clusters. `biases` holds the leaves that are not kernels, BatchNorm's included,
  and `rest` the weights of kernels that are not shared.

  Args:
    path: the file to measure; only its header is read.

  Returns:
    The bytes of `header`, of each part, and of `checksums`.

  Raises:
    ValueError: if the header is damaged, or the file does not have the length that it declares.
    OSError: if the file cannot be read.

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
  checksums = contents.file_length - contents.header_length - sum(parts.values())
  return {'header': contents.header_length, **parts, 'checksums': checksums}


def _is_the_same(one: np.ndarray, other: np.ndarray) -> bool:
  """Returns whether two arrays have the same dtype, shape and bits."""
  if (one.dtype, one.shape) != (other.dtype, other.shape):
    return False
  return np.array_equal(coding.bits_of(np.ravel(one)), coding.bits_of(np.ravel(other)))


def _check_like(name: str, contents: form.Contents, like: Mapping[str, Any]) -> None:
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
    raise ValueError(f"{name}: like= must have a leaf '{others[0]}', as the file has")
