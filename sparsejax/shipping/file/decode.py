"""Reading a model file: every length is checked before it is used, and nothing is ever run."""

import hashlib
import json
import zlib
from typing import Any, BinaryIO

import jax
import numpy as np

from sparsejax.shipping.file import format as form
from sparsejax.shipping.file import layouts, structure
from sparsejax.sparsity.leaves import tree

KEYS = {*form.Header._fields, 'tree', 'paths', 'leaves', 'parts'}


def decode(file: BinaryIO, name: str, max_bytes: int) -> tuple[form.Contents, list[np.ndarray]]:
  """Returns what a file's header says, and its leaves.

  Args:
    file: open, at its begin.
    name: of the file, for what is wrong with it.
    max_bytes: that reading it may take, in all.

  Raises:
    ValueError: a file that is damaged, is none of this format, or needs more memory.
  """
  contents, begin = _contents(file, name)
  if contents.needed > max_bytes:
    form.refuse(name, 'the memory that it needs', contents.needed, f'at most max_bytes={max_bytes}')
  data = {
    part: np.frombuffer(layouts_of, np.uint8)
    for part, layouts_of in _parts(file, name, contents, begin).items()
  }
  found, used = [], dict.fromkeys(form.PARTS, 0)
  for path, leaf in zip(contents.paths, contents.leaves, strict=True):
    pieces = {part: data[part][used[part] :][:length] for part, length in leaf.lengths.items()}
    for part, length in leaf.lengths.items():
      used[part] += length
    found.append(_array(leaf, pieces, form.shown(path), name))
  return contents, found


def read_header(file: BinaryIO, name: str) -> form.Contents:
  """Returns what a file's header says, after a check of the file's length.

  Raises:
    ValueError: a header that is damaged or none of this format, a file cut short or longer.
  """
  return _contents(file, name)[0]


# The header


def _contents(file: BinaryIO, name: str) -> tuple[form.Contents, bytes]:
  """What the header says, and the bytes up to its end with the check."""
  length = file.seek(0, 2)
  file.seek(0)
  prelude = _read(file, form.PRELUDE.size, name)
  magic, version, coder, size, coded = form.PRELUDE.unpack(prelude)
  if magic != form.MAGIC:
    form.refuse(name, 'its first bytes', magic, f'{form.MAGIC!r}, as of a model file')
  if version != form.VERSION:
    form.refuse(name, 'version', version, f'{form.VERSION}, which this sparsejax reads')
  if coder not in layouts.CODERS:
    form.refuse(name, 'the coder of the header', coder, f'at most {layouts.CODERS[-1]}')
  if size > form.HEADER_MOST:
    form.refuse(name, 'the length of the header', size, f'at most {form.HEADER_MOST}')
  if coded > min(length, form.HEADER_MOST + 2**12):
    form.refuse(name, 'the length of the coded header', coded, 'that of a part of the file')
  begin = prelude + _read(file, coded, name)
  begin += _checked(file, begin, 'header', name)
  told = _json(_decompressed(begin[len(prelude) : -form.CHECK.size], coder, size, 'header', name))
  contents = _understood(told, name)._replace(length=len(prelude) + coded)
  if contents.whole != length:
    form.refuse(name, 'the length of the file', length, f'{contents.whole}, as its header says')
  return contents, begin


def _json(text: bytes) -> Any:
  """The header's value, or what nothing can be done with."""
  try:
    return json.loads(text.decode())
  except (ValueError, RecursionError):
    return None


def _understood(told: Any, name: str) -> form.Contents:
  if not isinstance(told, dict) or not set(told) <= KEYS:
    form.refuse(name, 'the header', told, f'a dict in JSON of {", ".join(sorted(KEYS))}')
  header, rows = _header(told, name), told.get('leaves')
  if not isinstance(rows, list):
    form.refuse(name, 'leaves', rows, 'a list of rows')
  skeleton, paths = _paths(told, len(rows), name)
  leaves = tuple(form.leaf_of(row, p, name) for row, p in zip(rows, paths, strict=True))
  parts = _coders(told.get('parts'), form.part_lengths(leaves), name)
  return form.Contents(header, skeleton, paths, leaves, parts, 0)


def _header(told: dict[str, Any], name: str) -> form.Header:
  given = {key: told[key] for key in form.Header._fields if key in told}
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


def _paths(told: dict[str, Any], rows: int, name: str) -> tuple[Any, tuple[str, ...]]:
  """The tree with True in the place of each leaf, if there is one, and the leaves' paths.

  Their number is compared with that of the rows first: a leaf takes two bytes in a header, and far
  more as a path.
  """
  if 'tree' not in told:
    paths = told.get('paths')
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
      form.refuse(name, 'paths', paths, 'a list of paths, where there is no tree')
    if len(paths) != rows:
      form.refuse(name, 'the number of leaves', rows, f'{len(paths)}, as there are paths')
    return None, tuple(paths)
  skeleton = structure.rebuilt(told['tree'], name)
  if (found := len(jax.tree.leaves(skeleton))) != rows:
    form.refuse(name, 'the number of leaves', rows, f'{found}, as the tree has')
  try:
    return skeleton, tuple(tree.paths(skeleton))
  except ValueError:
    form.refuse(name, 'tree', told['tree'], 'one whose leaves have a path each')


def _coders(rows: Any, lengths: dict[str, int], name: str) -> dict[str, form.Part]:
  if not isinstance(rows, list) or len(rows) != len(lengths):
    form.refuse(name, 'parts', rows, f'a list of {len(lengths)} rows')
  found = {}
  for (part, length), row in zip(lengths.items(), rows, strict=True):
    if not isinstance(row, list) or len(row) != 2 or not all(map(form.is_count, row)):
      form.refuse(name, f'the row of {part}', row, 'a coder and a length')
    coder, coded = row
    if coder not in (layouts.CODERS if length else (layouts.STORED,)):
      form.refuse(name, f'the coder of {part}', coder, f'at most {layouts.CODERS[-1]}')
    if coder == layouts.STORED and coded != length:
      form.refuse(name, f'the length of {part}', coded, f'{length}, as its leaves have')
    found[part] = form.Part(coder, length, coded)
  return found


# The parts


def _parts(file: BinaryIO, name: str, contents: form.Contents, begin: bytes) -> dict[str, bytes]:
  """The bytes of each part, after all of the file's checks."""
  digest, coded = hashlib.blake2b(begin, digest_size=form.DIGEST), {}
  for part, row in contents.parts.items():
    coded[part] = _read(file, row.coded, name)
    digest.update(coded[part])
    digest.update(_checked(file, coded[part], part, name))
  if _read(file, form.DIGEST, name) != digest.digest():
    form.refuse(name, 'its digest', 'another', 'that of its bytes: it is damaged')
  found = {}
  for part, row in contents.parts.items():
    found[part] = _decompressed(coded.pop(part), row.coder, row.length, part, name)
  return found


def _read(file: BinaryIO, length: int, name: str) -> bytes:
  data = file.read(length)
  if len(data) < length:
    raise ValueError(f'{name} is cut short: {length - len(data)} bytes must follow')
  return data


def _checked(file: BinaryIO, data: bytes, part: str, name: str) -> bytes:
  """The check that follows, if it is that of the bytes before."""
  check = _read(file, form.CHECK.size, name)
  if form.CHECK.unpack(check)[0] != zlib.crc32(data):
    form.refuse(name, f'the checksum of its {part}', check.hex(), 'that of its bytes')
  return check


def _decompressed(data: bytes, coder: int, length: int, part: str, name: str) -> bytes:
  try:
    return layouts.decompressed(data, coder, length)
  except ValueError as error:
    raise ValueError(f'{name}: {part}: {error}') from None


# The leaves


def _array(leaf: form.Leaf, pieces: dict[str, np.ndarray], path: str, name: str) -> np.ndarray:
  """A leaf from its bytes in each part."""
  values = _widened(leaf, pieces[leaf.words_in], path, name)
  if leaf.width:
    ids = layouts.unpacked(pieces['ids'], leaf.width, leaf.told)
    if ids.size and (largest := int(ids.max())) >= leaf.clusters:
      form.refuse(name, f'an id of {path}', largest, f'below {leaf.clusters}, its clusters')
    values = values[ids]
  if leaf.positions != form.ALL:
    places = _places(leaf, pieces['positions'], path, name)
    values, kept = np.zeros(leaf.size, values.dtype), values
    values[places] = kept
  if not leaf.columns:
    return values.reshape(leaf.shape)
  turned = values.reshape(leaf.shape[-1:] + leaf.shape[:-1])
  return np.ascontiguousarray(np.moveaxis(turned, 0, -1))


def _widened(leaf: form.Leaf, data: np.ndarray, path: str, name: str) -> np.ndarray:
  """The stored words, in the leaf's own dtype."""
  if leaf.dtype == 'bool' and data.size and (largest := int(data.max())) > 1:
    form.refuse(name, f'a value of {path}', largest, '0 or 1, as bools are')
  words = layouts.words_of(data, form.DTYPES[leaf.stored], leaf.planes)
  with np.errstate(invalid='ignore'):
    return words.astype(form.DTYPES[leaf.dtype])


def _places(leaf: form.Leaf, data: np.ndarray, path: str, name: str) -> np.ndarray:
  if leaf.positions == form.GAPS:
    places = layouts.places_of(data)
  else:
    places = np.flatnonzero(np.unpackbits(data, count=leaf.size))
  if len(places) != leaf.kept:
    form.refuse(name, f'the number of positions of {path}', len(places), str(leaf.kept))
  if leaf.kept and (last := int(places[-1])) >= leaf.size:
    form.refuse(name, f'the last position of {path}', last, f'below {leaf.size}, its size')
  return places


def in_tree(contents: form.Contents, leaves: list[Any]) -> Any:
  """Returns the leaves in the file's own tree."""
  return jax.tree.unflatten(jax.tree.structure(contents.tree), leaves)
