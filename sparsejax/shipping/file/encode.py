"""Writing a model file: each leaf in the layout that takes the fewest bytes, the parts coded."""

import functools
import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from sparsejax.shipping.file import format as form
from sparsejax.shipping.file import layouts, structure
from sparsejax.sparsity.leaves import kinds, tree

SAMPLE = 2**16  # bytes, by which layouts are compared
CLUSTERS_MOST = 256


class Pieces(NamedTuple):
  """A leaf's row, and its bytes in each part."""

  leaf: form.Leaf
  parts: dict[str, np.ndarray]

  @property
  def cost(self) -> float:
    """About how many bytes they take in the file; of the row, of which some repeats, the half."""
    row = len(json.dumps(form.row_of(self.leaf), separators=(',', ':')))
    return row / 2 + sum(_cost(data) for data in self.parts.values())


def encode(params: Any, header: form.Header) -> bytes:
  """Returns the bytes of a model file.

  Raises:
    ValueError: a leaf that is no array of numbers, or a header that JSON can't hold or is too long.
  """
  nodes = kinds.equinox_nodes(params)
  pieces = [
    _smallest(_array(path, leaf), kinds.is_kernel(path, leaf, nodes))
    for path, leaf in tree.named_leaves(params).items()
  ]
  coded = {part: layouts.coded(_joined(pieces, part)) for part in form.PARTS}
  described = structure.described(params)
  told = {
    **{key: value for key, value in header._asdict().items() if value},
    **({'tree': described[0]} if described else {'paths': tree.paths(params)}),
    'leaves': [form.row_of(piece.leaf) for piece in pieces],
    'parts': [[coder, len(data)] for coder, data in coded.values()],
  }
  return assembled(_text(told), [data for _, data in coded.values()])


def assembled(text: bytes, parts: list[bytes], coders: tuple[int, ...] = layouts.CODERS) -> bytes:
  """Returns a file of a header's JSON and coded parts, with its checks.

  Args:
    text: the JSON.
    parts: what the coders made of each part.
    coders: of which one is chosen for the header.
  """
  coder, data = layouts.coded(text, coders)
  out = form.PRELUDE.pack(form.MAGIC, form.VERSION, coder, len(text), len(data)) + data
  out += form.CHECK.pack(zlib.crc32(out))
  out += b''.join(part + form.CHECK.pack(zlib.crc32(part)) for part in parts)
  return out + hashlib.blake2b(out, digest_size=form.DIGEST).digest()


def _text(told: dict[str, Any]) -> bytes:
  """The header's JSON."""
  for key, value in told.items():
    try:
      json.dumps(value, allow_nan=False)
      is_right = _has_names(value)
    except (TypeError, ValueError, RecursionError):
      is_right = False
    if not is_right:
      raise ValueError(
        f'{key}={form.shown(value)} must be made of strings, finite numbers, lists, and dicts with '
        'strings for keys, as JSON is'
      )
  text = json.dumps(told, separators=(',', ':'), allow_nan=False).encode()
  if len(text) > form.HEADER_MOST:
    raise ValueError(f'the header has {len(text)} bytes and must have at most {form.HEADER_MOST}')
  return text


def _has_names(value: Any) -> bool:
  """Whether every key is a string: JSON would make one of another."""
  if isinstance(value, dict):
    return all(isinstance(key, str) and _has_names(below) for key, below in value.items())
  return not isinstance(value, list | tuple) or all(map(_has_names, value))


def _array(path: str, leaf: Any) -> np.ndarray:
  leaf = np.asarray(leaf) if np.isscalar(leaf) else leaf
  found = str(getattr(leaf, 'dtype', type(leaf).__name__))
  if found not in form.DTYPES:
    raise ValueError(f"'{path}' is of {found} and must be an array of {', '.join(form.DTYPES)}")
  return np.array(jax.device_get(leaf), form.DTYPES[found], order='C')


def _joined(pieces: list[Pieces], part: str) -> bytes:
  return b''.join(piece.parts[part].tobytes() for piece in pieces if part in piece.parts)


def _cost(data: np.ndarray) -> float:
  """About how many bytes the coder makes of these."""
  begin = max(0, len(data) - SAMPLE) // 2
  sample = data[begin : begin + SAMPLE].tobytes()
  return _coded_length(sample) * len(data) / max(1, len(sample))


@functools.lru_cache(maxsize=64)  # for the same bytes are weighed with several others
def _coded_length(data: bytes) -> int:
  return len(layouts.coded(data, (layouts.STORED, layouts.SYMBOLS))[1])


# The layouts of a leaf


def _smallest(array: np.ndarray, is_kernel: bool) -> Pieces:
  stored = _stored(array)
  leaf = form.Leaf(array.dtype.name, array.shape, stored.dtype.name, kernel=int(is_kernel))
  return min(_forms(leaf, array, stored), key=lambda pieces: pieces.cost)


def _stored(array: np.ndarray) -> np.ndarray:
  """The array in the narrowest dtype in which nothing is lost."""
  for name in form.NARROWER.get(array.dtype.name, ()):
    with np.errstate(all='ignore'):
      narrow = array.astype(form.DTYPES[name])
      again = narrow.astype(array.dtype)
    if np.array_equal(layouts.bits_of(again), layouts.bits_of(array)):
      return narrow
  return array


def _forms(leaf: form.Leaf, array: np.ndarray, stored: np.ndarray) -> Iterator[Pieces]:
  yield _with_words(leaf, stored.reshape(-1))
  zeros = np.count_nonzero(layouts.bits_of(array) == 0)
  distinct = np.unique(layouts.bits_of(stored))
  if array.size < 2 or (not zeros and len(distinct) > CLUSTERS_MOST):
    return
  for columns in range(min(2, array.ndim)):
    flat = (np.moveaxis(stored, -1, 0) if columns else stored).reshape(-1)
    kept = layouts.bits_of(flat) != 0
    where = min(_positions(leaf._replace(columns=columns), kept), key=lambda each: each.cost)
    for pieces in _values(where.leaf, flat[kept]):
      yield Pieces(pieces.leaf, where.parts | pieces.parts)


def _positions(leaf: form.Leaf, kept: np.ndarray) -> Iterator[Pieces]:
  """The ways of telling where the kept words are."""
  if kept.all():
    yield Pieces(leaf, {})
    return
  gaps = layouts.gaps_of(kept)
  leaf = leaf._replace(kept=int(np.count_nonzero(kept)))
  yield Pieces(leaf._replace(positions=form.GAPS, gaps=len(gaps)), {'positions': gaps})
  yield Pieces(leaf._replace(positions=form.BITS), {'positions': np.packbits(kept)})


def _values(leaf: form.Leaf, words: np.ndarray) -> Iterator[Pieces]:
  """The kept words by themselves, and where they are few by their numbers in a codebook."""
  yield _with_words(leaf, words)
  distinct, ids = np.unique(layouts.bits_of(words), return_inverse=True)
  if not 1 <= len(distinct) <= CLUSTERS_MOST:
    return
  narrowest = next(w for w in form.WIDTHS if w and 2**w >= len(distinct))
  for width in {narrowest, 8}:
    sharing = leaf._replace(width=width, clusters=len(distinct))
    pieces = _with_words(sharing, distinct.view(words.dtype))
    yield Pieces(pieces.leaf, {'ids': layouts.packed(ids, width)} | pieces.parts)


def _with_words(leaf: form.Leaf, words: np.ndarray) -> Pieces:
  ways = [
    Pieces(leaf._replace(planes=planes), {leaf.words_in: layouts.bytes_of(words, planes)})
    for planes in range(2 if words.dtype.itemsize > 1 and len(words) > 1 else 1)
  ]
  return min(ways, key=lambda pieces: pieces.cost)
