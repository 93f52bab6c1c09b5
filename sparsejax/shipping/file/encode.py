"""Encodes a model file: each leaf in its smallest layout, then each part compressed."""

import functools
import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.shipping.file import coding, structure
from sparsejax.shipping.file import format as form
from sparsejax.sparsity.leaves import kinds, tree

SAMPLE = 2**16  # bytes that are compressed to estimate the cost of a layout
CLUSTERS_MOST = 256


class Pieces(NamedTuple):
  """A leaf in one layout: its row in the header, and its bytes in each part."""

  leaf: form.Leaf
  parts: dict[str, np.ndarray]

  @property
  def cost(self) -> float:
    """The approximate bytes in the file; a row counts half, since rows repeat each other."""
    row_bytes = len(json.dumps(form.row_of(self.leaf), separators=(',', ':')))
    return row_bytes / 2 + sum(_cost(data) for data in self.parts.values())


def encode(params: Any, header: form.Header) -> bytes:
  """Returns the bytes of a model file.

  Raises:
    ValueError: if a leaf is not an array of numbers, or the header cannot be JSON or is too long.
  """
  nodes = kinds.equinox_nodes(params)
  pieces = [
    _smallest(_array(path, leaf), kinds.is_kernel(path, leaf, nodes))
    for path, leaf in tree.named_leaves(params).items()
  ]
  coded = {part: coding.coded(_joined(pieces, part)) for part in form.PARTS}
  described = structure.described(params)
  fields = {
    **{key: value for key, value in header._asdict().items() if value},
    **({'tree': described[0]} if described else {'paths': tree.paths(params)}),
    'leaves': [form.row_of(piece.leaf) for piece in pieces],
    'parts': [[coder, len(data)] for coder, data in coded.values()],
  }
  return assembled(_text(fields), [data for _, data in coded.values()])


def assembled(text: bytes, parts: list[bytes], coders: tuple[int, ...] = coding.CODERS) -> bytes:
  """Assembles a file from a header and compressed parts, adding the checksums and the digest.

  Args:
    text: the header's JSON.
    parts: the compressed bytes of each part.
    coders: the coders to choose from for the header.
  """
  coder, data = coding.coded(text, coders)
  out = form.PRELUDE.pack(form.MAGIC, form.VERSION, coder, len(text), len(data)) + data
  out += form.CHECK.pack(zlib.crc32(out))
  out += b''.join(part + form.CHECK.pack(zlib.crc32(part)) for part in parts)
  return out + hashlib.blake2b(out, digest_size=form.DIGEST).digest()


def _text(fields: dict[str, Any]) -> bytes:
  """Returns the header's JSON."""
  for key, value in fields.items():
    try:
      json.dumps(value, allow_nan=False)
      is_valid = _has_string_keys(value)
    except (TypeError, ValueError, RecursionError):
      is_valid = False
    if not is_valid:
      raise ValueError(
        f'{key}={form.shown(value)} must consist of strings, finite numbers, lists, and dicts with '
        'string keys, as JSON does'
      )
  text = json.dumps(fields, separators=(',', ':'), allow_nan=False).encode()
  if len(text) > form.HEADER_MOST:
    raise ValueError(f'the header has {len(text)} bytes and must have at most {form.HEADER_MOST}')
  return text


def _has_string_keys(value: Any) -> bool:
  """Returns whether every key of a dict is a string; JSON would convert any other."""
  if isinstance(value, dict):
    return all(isinstance(key, str) and _has_string_keys(below) for key, below in value.items())
  return not isinstance(value, list | tuple) or all(map(_has_string_keys, value))


def _array(path: str, leaf: Any) -> np.ndarray:
  leaf = np.asarray(leaf) if np.isscalar(leaf) else leaf
  found = str(getattr(leaf, 'dtype', type(leaf).__name__))
  if found not in form.DTYPES:
    raise ValueError(f"'{path}' of type {found} must be an array of {', '.join(form.DTYPES)}")
  return np.array(jax.device_get(leaf), form.DTYPES[found], order='C')


def _joined(pieces: list[Pieces], part: str) -> bytes:
  return b''.join(piece.parts[part].tobytes() for piece in pieces if part in piece.parts)


def _cost(data: np.ndarray) -> float:
  """Estimates how many bytes the data take once compressed."""
  begin = max(0, len(data) - SAMPLE) // 2
  sample = data[begin : begin + SAMPLE].tobytes()
  return _coded_length(sample) * len(data) / max(1, len(sample))


@functools.lru_cache(maxsize=64)  # the same bytes occur in several layouts
def _coded_length(data: bytes) -> int:
  return len(coding.coded(data, (coding.STORED, coding.SYMBOLS))[1])


# The layouts of a leaf


def _smallest(array: np.ndarray, is_kernel: bool) -> Pieces:
  stored = _stored(array)
  leaf = form.Leaf(array.dtype.name, array.shape, stored.dtype.name, kernel=int(is_kernel))
  return min(_layouts(leaf, array, stored), key=lambda pieces: pieces.cost)


def _stored(array: np.ndarray) -> np.ndarray:
  """Returns the array in the narrowest dtype that loses nothing."""
  for name in form.NARROWER.get(array.dtype.name, ()):
    with np.errstate(all='ignore'):
      narrow = array.astype(form.DTYPES[name])
      again = narrow.astype(array.dtype)
    if np.array_equal(coding.bits_of(again), coding.bits_of(array)):
      return narrow
  return array


def _layouts(leaf: form.Leaf, array: np.ndarray, stored: np.ndarray) -> Iterator[Pieces]:
  """Yields the leaf whole and, if it has zeros or few values, without its zeros."""
  yield _with_words(leaf, stored.reshape(-1))
  zeros = np.count_nonzero(coding.bits_of(array) == 0)
  distinct = np.unique(coding.bits_of(stored))
  if array.size < 2 or (not zeros and len(distinct) > CLUSTERS_MOST):
    return
  for columns in range(min(2, array.ndim)):
    flat = (np.moveaxis(stored, -1, 0) if columns else stored).reshape(-1)
    kept = coding.bits_of(flat) != 0
    positions = min(_positions(leaf._replace(columns=columns), kept), key=lambda each: each.cost)
    for pieces in _values(positions.leaf, flat[kept]):
      yield Pieces(pieces.leaf, positions.parts | pieces.parts)


def _positions(leaf: form.Leaf, kept: np.ndarray) -> Iterator[Pieces]:
  """Yields each way to encode the positions of the kept words."""
  if kept.all():
    yield Pieces(leaf, {})
    return
  gaps = coding.gaps_of(kept)
  leaf = leaf._replace(kept=int(np.count_nonzero(kept)))
  yield Pieces(leaf._replace(positions=form.GAPS, gaps=len(gaps)), {'positions': gaps})
  yield Pieces(leaf._replace(positions=form.BITS), {'positions': np.packbits(kept)})


def _values(leaf: form.Leaf, words: np.ndarray) -> Iterator[Pieces]:
  """Yields the kept words stored directly and, if few are distinct, by ids into a codebook."""
  yield _with_words(leaf, words)
  distinct, ids = np.unique(coding.bits_of(words), return_inverse=True)
  if not 1 <= len(distinct) <= CLUSTERS_MOST:
    return
  narrowest = next(w for w in form.WIDTHS if w and 2**w >= len(distinct))
  for width in {narrowest, 8}:
    sharing = leaf._replace(width=width, clusters=len(distinct))
    pieces = _with_words(sharing, distinct.view(words.dtype))
    yield Pieces(pieces.leaf, {'ids': coding.packed(ids, width)} | pieces.parts)


def _with_words(leaf: form.Leaf, words: np.ndarray) -> Pieces:
  layouts_of_words = [
    Pieces(leaf._replace(planes=planes), {leaf.word_part: coding.bytes_of(words, planes)})
    for planes in range(2 if words.dtype.itemsize > 1 and len(words) > 1 else 1)
  ]
  return min(layouts_of_words, key=lambda pieces: pieces.cost)
