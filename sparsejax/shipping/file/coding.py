"""Positions, ids and words as bytes, and the coders that compress those bytes."""

import lzma

import numpy as np

from sparsejax.shipping.file.format import ESCAPE

STORED, SYMBOLS, TEXT = range(3)  # coders
CODERS = (STORED, SYMBOLS, TEXT)
_CONTEXTS = {SYMBOLS: 0, TEXT: 3}  # literal context bits (lc) of LZMA


# Positions


def gaps_of(kept: np.ndarray) -> np.ndarray:
  """Returns the gap before each kept weight as a byte; 255 continues in the next byte.

  Example:
    >>> gaps_of(np.array([False, True, True, False, False, True])).tolist()
    [1, 0, 2]
  """
  at = np.flatnonzero(kept)
  gaps = np.diff(at, prepend=-1) - 1
  escapes = gaps // ESCAPE
  found = np.full(len(gaps) + escapes.sum(), ESCAPE, np.uint8)
  found[np.cumsum(escapes + 1) - 1] = gaps % ESCAPE
  return found


def places_of(gaps: np.ndarray) -> np.ndarray:
  """Returns the flat positions of the kept weights, from their gaps.

  Example:
    >>> places_of(np.array([1, 0, 2], np.uint8)).tolist()
    [1, 2, 5]
  """
  ends = gaps != ESCAPE
  places = np.cumsum(gaps + ends, dtype=np.int64)
  return places[ends] - 1


# Ids


def packed(ids: np.ndarray, width: int) -> np.ndarray:
  """Packs ids of 1, 2, 4 or 8 bits into bytes, the first id in the highest bits.

  Example:
    >>> packed(np.array([1, 2, 3], np.uint8), 4).tolist()
    [18, 48]
  """
  each = 8 // width
  filled = np.zeros(-(-len(ids) // each) * each, np.uint8)
  filled[: len(ids)] = ids
  shifts = width * np.arange(each - 1, -1, -1, dtype=np.uint8)
  return np.bitwise_or.reduce(filled.reshape(-1, each) << shifts, axis=1)


def unpacked(data: np.ndarray, width: int, count: int) -> np.ndarray:
  """Returns the first `count` ids from the bytes that `packed` returned.

  Example:
    >>> unpacked(np.array([18, 48], np.uint8), 4, 3).tolist()
    [1, 2, 3]
  """
  shifts = width * np.arange(8 // width - 1, -1, -1, dtype=np.uint8)
  return ((data[:, None] >> shifts) & np.uint8(2**width - 1)).reshape(-1)[:count]


# Words


def bits_of(array: np.ndarray) -> np.ndarray:
  """Returns an array's bits as unsigned integers: -0.0 is not 0.0, and NaN equals itself."""
  return array.view(f'u{array.dtype.itemsize}')


def bytes_of(words: np.ndarray, planes: int) -> np.ndarray:
  """Returns the little-endian bytes of words; with planes, all first bytes, then all second, ...

  Example:
    >>> words = np.array([1, 258], np.uint16)
    >>> bytes_of(words, 0).tolist(), bytes_of(words, 1).tolist()
    ([1, 0, 2, 1], [1, 2, 0, 1])
  """
  bits = bits_of(words)
  found = (
    bits.astype(bits.dtype.newbyteorder('<')).view(np.uint8).reshape(len(words), words.itemsize)
  )
  return (found.T if planes else found).reshape(-1)


def words_of(data: np.ndarray, dtype: np.dtype, planes: int) -> np.ndarray:
  """Returns the words whose bytes `bytes_of` returned.

  Example:
    >>> words_of(np.array([1, 2, 0, 1], np.uint8), np.dtype('uint16'), 1).tolist()
    [1, 258]
  """
  size = dtype.itemsize
  rows = data.reshape(size, len(data) // size).T if planes else data
  bits = np.ascontiguousarray(rows).reshape(-1).view(f'<u{size}')
  return bits.astype(f'u{size}', copy=False).view(dtype)


# Coders


def coded(data: bytes, coders: tuple[int, ...] = CODERS) -> tuple[int, bytes]:
  """Returns the coder that gives the fewest bytes, and those bytes.

  Example:
    >>> coded(b'abc'), len(coded(b'ab' * 1000)[1]) < 50
    ((0, b'abc'), True)
  """
  found = {coder: compressed(data, coder) for coder in (coders if data else (STORED,))}
  return min(found.items(), key=lambda pair: len(pair[1]))


def compressed(data: bytes, coder: int) -> bytes:
  """Compresses bytes with a coder: STORED keeps them, the others use raw LZMA2."""
  if coder == STORED:
    return data
  effort = 9 | lzma.PRESET_EXTREME if len(data) < 2**22 else 6
  return lzma.compress(data, lzma.FORMAT_RAW, filters=[_filter(coder, len(data), effort)])


def decompressed(data: bytes, coder: int, length: int) -> bytes:
  """Decompresses exactly `length` bytes; never allocates for more.

  Raises:
    ValueError: if there are more or fewer bytes, or they are damaged.

  Example:
    >>> decompressed(compressed(b'ab' * 9, SYMBOLS), SYMBOLS, 18) == b'ab' * 9
    True
    >>> decompressed(compressed(bytes(10**6), SYMBOLS), SYMBOLS, 10)
    Traceback (most recent call last):
    ValueError: it must decode to 10 bytes, and has more
  """
  if coder == STORED:
    found, is_whole = data, True
  else:
    try:
      decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_filter(coder, length)])
      found = decoder.decompress(data, max_length=length + 1)
    except lzma.LZMAError as error:
      raise ValueError(f'it is damaged: {error}') from None
    is_whole = decoder.eof and not decoder.unused_data
  if len(found) > length:
    raise ValueError(f'it must decode to {length} bytes, and has more')
  if len(found) < length or not is_whole:
    raise ValueError(f'it must decode to {length} bytes and end there, and has {len(found)}')
  return found


def _filter(coder: int, length: int, effort: int = 0) -> dict[str, int]:
  """Returns LZMA2's settings; its dictionary, which decoders allocate, is as small as the data."""
  window = min(max(length, 2**12), 2**23)
  context = _CONTEXTS[coder]
  found = {'id': lzma.FILTER_LZMA2, 'preset': effort, 'dict_size': window}
  return found | {'lc': context, 'lp': 0, 'pb': 0}
