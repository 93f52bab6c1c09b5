"""Decodes a model file: every length is checked before it is used, and nothing is executed."""

import hashlib
import json
import zlib
from typing import Any, BinaryIO

import jax
import numpy as np

from sparsejax.shipping.file import coding, structure
from sparsejax.shipping.file import format as form
from sparsejax.sparsity.leaves import tree

KEYS = {*form.Header._fields, 'tree', 'paths', 'leaves', 'parts'}


def decode(file: BinaryIO, name: str, max_bytes: int) -> tuple[form.Contents, list[np.ndarray]]:
  """Returns the contents of a file's header, and the file's leaves.

  Args:
    file: the file, open for reading.
    name: the name of the file, for messages.
    max_bytes: the most bytes that decoding may take, in all.

  Raises:
    ValueError: if the file is damaged, has another format, or needs more memory.
  """
  contents, start = _contents(file, name)
  if contents.memory > max_bytes:
    form.refuse(name, 'the memory that it needs', contents.memory, f'at most max_bytes={max_bytes}')
  data = {
    part: np.frombuffer(piece, np.uint8)
    for part, piece in _parts(file, name, contents, start).items()
  }
  found = []
  used = dict.fromkeys(form.PARTS, 0)
  for path, leaf in zip(contents.paths, contents.leaves, strict=True):
    pieces = {part: data[part][used[part] :][:length] for part, length in leaf.lengths.items()}
    for part, length in leaf.lengths.items():
      used[part] += length
    found.append(_array(leaf, pieces, form.shown(path), name))
  return contents, found


def read_header(file: BinaryIO, name: str) -> form.Contents:
  """Returns the contents of a file's header, after checking the file's length.

  Raises:
    ValueError: if the header is damaged or has another format, or the file has another length.
  """
  return _contents(file, name)[0]


# The header


def _contents(file: BinaryIO, name: str) -> tuple[form.Contents, bytes]:
  """Returns the contents of the header, and the file's bytes up to and including its check."""
  length = file.seek(0, 2)
  file.seek(0)
  prelude = _read(file, form.PRELUDE.size, name)
  magic, version, coder, size, coded = form.PRELUDE.unpack(prelude)
  if magic != form.MAGIC:
    form.refuse(name, 'its first bytes', magic, f'{form.MAGIC!r}, those of a model file')
  if version != form.VERSION:
    form.refuse(name, 'version', version, f'{form.VERSION}, the one that this sparsejax reads')
  if coder not in coding.CODERS:
    form.refuse(name, 'the coder of the header', coder, f'at most {coding.CODERS[-1]}')
  if size > form.HEADER_MOST:
    form.refuse(name, 'the length of the header', size, f'at most {form.HEADER_MOST}')
  most = min(length, form.HEADER_MOST + 2**12)
  if coded > most:
    form.refuse(name, 'the length of the compressed header', coded, f'at most {most}')
  start = prelude + _read(file, coded, name)
  start += _checksum(file, start, 'header', name)
  fields = _json(_decompressed(start[len(prelude) : -form.CHECK.size], coder, size, 'header', name))
  contents = _checked_contents(fields, name)._replace(header_length=len(prelude) + coded)
  if contents.file_length != length:
    must_be = f'{contents.file_length}, as its header says'
    form.refuse(name, 'the length of the file', length, must_be)
  return contents, start


def _json(text: bytes) -> Any:
  """Returns the value of the header's JSON, or None if it cannot be parsed."""
  try:
    return json.loads(text.decode())
  except (ValueError, RecursionError):
    return None


def _checked_contents(fields: Any, name: str) -> form.Contents:
  if not isinstance(fields, dict) or not set(fields) <= KEYS:
    must_be = f'a JSON object with the keys {", ".join(sorted(KEYS))}'
    form.refuse(name, 'the header', fields, must_be)
  header = _header(fields, name)
  rows = fields.get('leaves')
  if not isinstance(rows, list):
    form.refuse(name, 'leaves', rows, 'a list of rows')
  skeleton, paths = _paths(fields, len(rows), name)
  leaves = tuple(form.leaf_of(row, p, name) for row, p in zip(rows, paths, strict=True))
  parts = _coders(fields.get('parts'), form.part_lengths(leaves), name)
  return form.Contents(header, skeleton, paths, leaves, parts, 0)


def _header(fields: dict[str, Any], name: str) -> form.Header:
  given = {key: fields[key] for key in form.Header._fields if key in fields}
  header = form.Header(**given)
  for key in ('settings', 'scaling', 'provenance'):
    if not isinstance(getattr(header, key), dict):
      form.refuse(name, key, getattr(header, key), 'a dict')
  if not isinstance(header.model, str):
    form.refuse(name, 'model', header.model, 'a name')
  classes = header.classes
  if not isinstance(classes, list | tuple) or not all(isinstance(c, str) for c in classes):
    form.refuse(name, 'classes', classes, 'a list of names')
  return header._replace(classes=tuple(classes))


def _paths(fields: dict[str, Any], rows: int, name: str) -> tuple[Any, tuple[str, ...]]:
  """Returns the tree with True in place of each leaf, or None, and the paths of the leaves.

  The number of leaves is first compared with that of the rows: in a header a leaf takes two bytes,
  but its path takes far more.
  """
  if 'tree' not in fields:
    paths = fields.get('paths')
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
      form.refuse(name, 'paths', paths, 'a list of paths, since there is no tree')
    if len(paths) != rows:
      form.refuse(name, 'the number of leaves', rows, f'{len(paths)}, the number of paths')
    return None, tuple(paths)
  skeleton = structure.rebuilt(fields['tree'], name)
  if (found := len(jax.tree.leaves(skeleton))) != rows:
    form.refuse(name, 'the number of leaves', rows, f'{found}, as in the tree')
  try:
    return skeleton, tuple(tree.paths(skeleton))
  except ValueError:
    form.refuse(name, 'tree', fields['tree'], 'a tree whose leaves have distinct paths')


def _coders(rows: Any, lengths: dict[str, int], name: str) -> dict[str, form.Part]:
  if not isinstance(rows, list) or len(rows) != len(lengths):
    form.refuse(name, 'parts', rows, f'a list of {len(lengths)} rows')
  found = {}
  for (part, length), row in zip(lengths.items(), rows, strict=True):
    if not isinstance(row, list) or len(row) != 2 or not all(map(form.is_count, row)):
      form.refuse(name, f'the row of {part}', row, 'a coder and a length')
    coder, coded = row
    if coder not in (coding.CODERS if length else (coding.STORED,)):
      form.refuse(name, f'the coder of {part}', coder, f'at most {coding.CODERS[-1]}')
    if coder == coding.STORED and coded != length:
      form.refuse(name, f'the length of {part}', coded, f'{length}, as its leaves say')
    found[part] = form.Part(coder, length, coded)
  return found


# The parts


def _parts(file: BinaryIO, name: str, contents: form.Contents, start: bytes) -> dict[str, bytes]:
  """Returns the bytes of each part, once every checksum of the file is verified."""
  digest = hashlib.blake2b(start, digest_size=form.DIGEST)
  coded = {}
  for part, row in contents.parts.items():
    coded[part] = _read(file, row.coded, name)
    digest.update(coded[part])
    digest.update(_checksum(file, coded[part], part, name))
  if (found := _read(file, form.DIGEST, name)) != digest.digest():
    form.refuse(name, 'its digest', found.hex(), 'that of its bytes: the file is damaged')
  decoded = {}
  for part, row in contents.parts.items():
    decoded[part] = _decompressed(coded.pop(part), row.coder, row.length, part, name)
  return decoded


def _read(file: BinaryIO, length: int, name: str) -> bytes:
  data = file.read(length)
  if len(data) < length:
    raise ValueError(f'{name} is cut short: {length - len(data)} more bytes must follow')
  return data


def _checksum(file: BinaryIO, data: bytes, part: str, name: str) -> bytes:
  """Returns the checksum that follows in the file, once it is verified against the data."""
  check = _read(file, form.CHECK.size, name)
  if form.CHECK.unpack(check)[0] != zlib.crc32(data):
    must_be = 'that of its bytes: the file is damaged'
    form.refuse(name, f'the checksum of its {part}', check.hex(), must_be)
  return check


def _decompressed(data: bytes, coder: int, length: int, part: str, name: str) -> bytes:
  try:
    return coding.decompressed(data, coder, length)
  except ValueError as error:
    raise ValueError(f'{name}: {part}: {error}') from None


# The leaves


def _array(leaf: form.Leaf, pieces: dict[str, np.ndarray], path: str, name: str) -> np.ndarray:
  """Returns a leaf from its bytes in each part."""
  values = _words(leaf, pieces[leaf.word_part], path, name)
  if leaf.width:
    ids = coding.unpacked(pieces['ids'], leaf.width, leaf.given)
    largest = int(ids.max(initial=0))
    if ids.size and largest >= leaf.clusters:
      must_be = f'below {leaf.clusters}, the number of its clusters'
      form.refuse(name, f'an id of {path}', largest, must_be)
    values = values[ids]
  if leaf.positions != form.ALL:
    places = _places(leaf, pieces['positions'], path, name)
    values, kept = np.zeros(leaf.size, values.dtype), values
    values[places] = kept
  if not leaf.columns:
    return values.reshape(leaf.shape)
  transposed = values.reshape(leaf.shape[-1:] + leaf.shape[:-1])
  return np.ascontiguousarray(np.moveaxis(transposed, 0, -1))


def _words(leaf: form.Leaf, data: np.ndarray, path: str, name: str) -> np.ndarray:
  """Returns the stored words, converted to the leaf's own dtype."""
  if leaf.dtype == 'bool':
    largest = int(data.max(initial=0))
    if largest > 1:
      form.refuse(name, f'a value of {path}', largest, '0 or 1, as a bool is')
  words = coding.words_of(data, form.DTYPES[leaf.stored], leaf.planes)
  with np.errstate(invalid='ignore'):
    return words.astype(form.DTYPES[leaf.dtype])


def _places(leaf: form.Leaf, data: np.ndarray, path: str, name: str) -> np.ndarray:
  if leaf.positions == form.GAPS:
    places = coding.places_of(data)
  else:
    places = np.flatnonzero(np.unpackbits(data, count=leaf.size))
  if len(places) != leaf.kept:
    form.refuse(name, f'the number of positions of {path}', len(places), str(leaf.kept))
  last = int(places[-1]) if leaf.kept else -1
  if last >= leaf.size:
    form.refuse(name, f'the last position of {path}', last, f'below {leaf.size}, its size')
  return places


def in_tree(contents: form.Contents, leaves: list[Any]) -> Any:
  """Returns the leaves in the tree that the file describes."""
  return jax.tree.unflatten(jax.tree.structure(contents.tree), leaves)
