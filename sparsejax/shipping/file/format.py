"""The format of a model file: the meaning of its bytes, and the limits on its header.

    prelude    magic, version; the header's coder, length and compressed length
    header     JSON: the network, its tree, a row for each leaf, a row for each part
    check      CRC-32 of all bytes before it
    positions  which weights are kept; then ids, codebooks, biases, rest, each with its CRC-32
    digest     BLAKE2b of all bytes before it

All numbers are little-endian. Every length is known, and checked against a bound, before anything
of that length is read or allocated.
"""

import math
import reprlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

MAGIC = b'\x89SPJX\n'
VERSION = 1
PRELUDE = struct.Struct('<6sHBII')
CHECK = struct.Struct('<I')
DIGEST = 8  # bytes
HEADER_MOST = 2**20  # bytes of JSON
DEPTH_MOST = 100  # levels of the tree of parameters
NODES_MOST = 2**16  # in that tree, leaves included
PATHS_MOST = 2**20  # characters in the paths of all nodes
PARTS = ('positions', 'ids', 'codebooks', 'biases', 'rest')
ALL, GAPS, BITS = range(3)  # the encodings of a leaf's positions
WIDTHS = (0, 1, 2, 4, 8)  # bits of an id; 0 where kept weights are stored directly
ESCAPE = 255  # as a gap, it is continued in the next byte
DTYPE_NAMES = (
  *('bool', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'),
  *('float16', 'bfloat16', 'float32', 'float64'),
)
DTYPES = {name: np.dtype(jnp.dtype(name)) for name in DTYPE_NAMES}
# Narrower dtypes that a leaf may be stored in, if that loses nothing.
NARROWER = {'float32': ('float16', 'bfloat16'), 'float64': ('float16', 'bfloat16', 'float32')}
_SHORT = reprlib.Repr()
_SHORT.maxstring = 100
_SHORT.maxother = _SHORT.maxlong = 40


class Header(NamedTuple):
  """The description of a network in a model file, besides its parameters.

  model: the network's name.
  settings: the settings that it is built with, such as its widths.
  scaling: how its inputs are scaled, such as {'mean': [0.5], 'std': [0.25]}.
  classes: the names of its outputs.
  provenance: where it comes from, such as the run, its seed and its test accuracy.
  """

  model: str = ''
  settings: Mapping[str, Any] = {}
  scaling: Mapping[str, Any] = {}
  classes: Sequence[str] = ()
  provenance: Mapping[str, Any] = {}


class Leaf(NamedTuple):
  """A leaf, as its row in the header describes it.

  stored: the dtype of its words in the file, narrower than `dtype` if that loses nothing.
  planes: 1 if the words are stored as all their first bytes, then all their second, and so on.
  kernel: 1 if words that are stored directly go to the part `rest`, 0 if to `biases`.
  width: the number of bits of an id; 0 if there are no ids, and kept weights are stored directly.
  clusters: the length of the codebook.
  columns: 1 if the last axis varies slowest.
  positions: ALL, GAPS (a byte for each gap, or several with ESCAPE) or BITS.
  kept: the number of nonzero words, unless positions is ALL.
  gaps: the number of bytes that the gaps take.
  """

  dtype: str
  shape: tuple[int, ...]
  stored: str
  planes: int = 0
  kernel: int = 0
  width: int = 0
  clusters: int = 0
  columns: int = 0
  positions: int = ALL
  kept: int = 0
  gaps: int = 0

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def given(self) -> int:
    """The number of weights that are given, directly or by their ids."""
    return self.size if self.positions == ALL else self.kept

  @property
  def words(self) -> int:
    """The number of words that are stored."""
    return self.clusters if self.width else self.given

  @property
  def word_part(self) -> str:
    """The part that holds the words."""
    return 'codebooks' if self.width else 'rest' if self.kernel else 'biases'

  @property
  def lengths(self) -> dict[str, int]:
    """The number of bytes in each part, before compression."""
    positions = {ALL: 0, GAPS: self.gaps, BITS: -(-self.size // 8)}[self.positions]
    return {
      'positions': positions,
      'ids': -(-self.given * self.width // 8),
      self.word_part: self.words * DTYPES[self.stored].itemsize,
    }

  @property
  def nbytes(self) -> int:
    """The number of bytes of the array."""
    return self.size * DTYPES[self.dtype].itemsize

  @property
  def scratch(self) -> int:
    """The most bytes that decoding takes, besides the array itself."""
    listed = self.positions != ALL or self.width
    return self.nbytes + (32 * (self.given + self.gaps) + self.size if listed else 0)


class Part(NamedTuple):
  """The coder of a part, and its lengths in bytes before and after compression."""

  coder: int
  length: int
  coded: int


class Contents(NamedTuple):
  """The contents of a header, all of it checked."""

  header: Header
  tree: Any  # True in place of each leaf; None if it has nodes of other classes
  paths: tuple[str, ...]
  leaves: tuple[Leaf, ...]
  parts: dict[str, Part]
  header_length: int  # in bytes, with the prelude

  @property
  def file_length(self) -> int:
    """The length of the file in bytes."""
    checks = CHECK.size * (1 + len(self.parts)) + DIGEST
    return self.header_length + sum(part.coded for part in self.parts.values()) + checks

  @property
  def memory(self) -> int:
    """The most bytes that decoding takes: arrays, parts in both forms, and scratch space."""
    of_arrays = sum(leaf.nbytes for leaf in self.leaves)
    of_parts = sum(2 * part.length for part in self.parts.values())
    scratch = max((leaf.scratch for leaf in self.leaves), default=0)
    return of_arrays + of_parts + self.file_length + scratch


def part_lengths(leaves: Sequence[Leaf]) -> dict[str, int]:
  """Returns the number of bytes in each part, before compression."""
  found = dict.fromkeys(PARTS, 0)
  for leaf in leaves:
    for part, length in leaf.lengths.items():
      found[part] += length
  return found


def row_of(leaf: Leaf) -> list[Any]:
  """Returns a leaf's row, without trailing zeros.

  Example:
    >>> row_of(Leaf('float32', (3,), 'float16', planes=1))
    ['float32', [3], 'float16', 1]
  """
  row = [leaf.dtype, list(leaf.shape), *leaf[2:]]
  while len(row) > 3 and row[-1] == 0:
    row.pop()
  return row


def refuse(name: str, field: str, value: Any, must_be: str) -> NoReturn:
  """Raises a ValueError that names a file, one of its fields, its value, and what it must be."""
  raise ValueError(f'{name}: {field}={shown(value)} must be {must_be}')


def shown(value: Any) -> str:
  """Returns a value as one short printable line, whatever a file contains.

  Example:
    >>> shown('two\\nlines')
    "'two\\\\nlines'"
  """
  return _SHORT.repr(value)


# Checking JSON, which may hold anything


def leaf_of(row: Any, path: str, name: str) -> Leaf:
  """Returns the leaf that a row of the header describes.

  Args:
    row: the row, which may hold anything.
    path: the path of the leaf.
    name: the name of the file, for messages.

  Raises:
    ValueError: if the row has a value that this format does not allow.
  """
  path = shown(path)
  field = f'the row of {path}'
  if not isinstance(row, list) or not 3 <= len(row) <= len(Leaf._fields):
    refuse(name, field, row, f'a list of 3 to {len(Leaf._fields)} values')
  leaf = Leaf(*row)
  if leaf.dtype not in DTYPE_NAMES:
    refuse(name, f'the dtype of {path}', leaf.dtype, f'one of {", ".join(DTYPE_NAMES)}')
  if leaf.stored != leaf.dtype and leaf.stored not in NARROWER.get(leaf.dtype, ()):
    refuse(name, f'stored of {path}', leaf.stored, f'{leaf.dtype}, or a narrower float dtype')
  shape = leaf.shape
  if not isinstance(shape, list) or len(shape) > 32 or not all(map(is_count, shape)):
    refuse(name, f'the shape of {path}', shape, 'a list of at most 32 sizes')
  leaf = leaf._replace(shape=tuple(shape))
  for key, value in zip(Leaf._fields[3:], leaf[3:], strict=True):
    if not is_count(value):
      refuse(name, f'{key} of {path}', value, 'a whole number, 0 or more')
  _check_numbers(leaf, path, name)
  return leaf


def is_count(value: Any) -> bool:
  """Returns whether a value is an int from 0 to 2^48 - 1, as lengths are."""
  return type(value) is int and 0 <= value < 2**48


def _check_numbers(leaf: Leaf, path: str, name: str) -> None:
  def check(is_valid, key, must_be):
    if not is_valid:
      refuse(name, f'{key} of {path}', getattr(leaf, key), must_be)

  for key in ('planes', 'kernel', 'columns'):
    check(getattr(leaf, key) < 2, key, '0 or 1')
  check(math.prod(filter(None, leaf.shape)) < 2**48, 'shape', 'of fewer than 2^48 weights')
  check(leaf.width in WIDTHS, 'width', f'one of {", ".join(map(str, WIDTHS))}')
  check(leaf.positions <= BITS, 'positions', f'from {ALL} to {BITS}')
  check(not leaf.columns or len(leaf.shape) > 1, 'columns', '0 for a leaf of fewer than two axes')
  most = 0 if leaf.positions == ALL else leaf.size
  check(leaf.kept <= most, 'kept', f'at most {most}')
  least, most = (leaf.kept, leaf.kept + leaf.size // ESCAPE) if leaf.positions == GAPS else (0, 0)
  check(least <= leaf.gaps <= most, 'gaps', f'from {least} to {most}')
  least, most = (min(1, leaf.given), 2**leaf.width) if leaf.width else (0, 0)
  check(least <= leaf.clusters <= most, 'clusters', f'from {least} to {most}')
