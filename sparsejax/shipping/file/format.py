"""The format of a model file: what its bytes mean, and what its header may say.

    prelude    magic, version; of the header the coder, its length and its length in the file
    header     JSON: what the network is, its tree, a row for each leaf, a row for each part
    check      crc32 of all before
    positions  which weights are kept; then ids, codebooks, biases, rest, each with its crc32
    digest     BLAKE2b of all before

All numbers are little-endian. Each length is known, and held to a bound, before anything of that
length is read or made.
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
HEADER_MOST = 2**20  # bytes of its JSON
DEPTH_MOST = 100  # of the tree of parameters
NODES_MOST = 2**16  # in it, leaves too
PATHS_MOST = 2**20  # characters, of the paths of all of these
PARTS = ('positions', 'ids', 'codebooks', 'biases', 'rest')
ALL, GAPS, BITS = range(3)  # how a leaf's positions are told
WIDTHS = (0, 1, 2, 4, 8)  # bits of an id in the file; 0 where each kept weight is there itself
ESCAPE = 255  # a gap of so many, after which the next one goes on
ANY_NAMES = (
  *('bool', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'),
  *('float16', 'bfloat16', 'float32', 'float64'),
)
DTYPES = {name: np.dtype(jnp.dtype(name)) for name in ANY_NAMES}
# In what a leaf may be stored where nothing is lost.
NARROWER = {'float32': ('float16', 'bfloat16'), 'float64': ('float16', 'bfloat16', 'float32')}
_SHORT = reprlib.Repr()
_SHORT.maxstring = 100
_SHORT.maxother = _SHORT.maxlong = 40


class Header(NamedTuple):
  """What a model file says of its network, besides the parameters.

  model: its name.
  settings: what it is built with, such as its widths.
  scaling: what is done to its inputs, such as {'mean': [0.5], 'std': [0.25]}.
  classes: the names of its outputs.
  provenance: where it comes from, such as the run, its seed and its test accuracy.
  """

  model: str = ''
  settings: Mapping[str, Any] = {}
  scaling: Mapping[str, Any] = {}
  classes: Sequence[str] = ()
  provenance: Mapping[str, Any] = {}


class Leaf(NamedTuple):
  """A leaf as its row in the header tells it.

  stored: the dtype of its words in the file, narrower than its own where nothing is lost.
  planes: whether the words are stored as all their first bytes, then all their second ones.
  kernel: whether words that stand for themselves are in the part `rest`, else in `biases`.
  width: bits of an id; 0 where there are none, and each kept weight is there itself.
  clusters: the length of the codebook.
  columns: whether the last axis is the slowest one.
  positions: ALL, GAPS (a byte each, or several with ESCAPE) or BITS.
  kept: how many words are not zero, where not all are there.
  gaps: how many bytes the gaps have.
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
  def told(self) -> int:
    """How many words are told, by themselves or by their ids."""
    return self.size if self.positions == ALL else self.kept

  @property
  def words(self) -> int:
    """How many words are stored."""
    return self.clusters if self.width else self.told

  @property
  def words_in(self) -> str:
    """The part that holds them."""
    return 'codebooks' if self.width else 'rest' if self.kernel else 'biases'

  @property
  def lengths(self) -> dict[str, int]:
    """How many bytes it has in each part."""
    of_positions = {ALL: 0, GAPS: self.gaps, BITS: -(-self.size // 8)}[self.positions]
    return {
      'positions': of_positions,
      'ids': -(-self.told * self.width // 8),
      self.words_in: self.words * DTYPES[self.stored].itemsize,
    }

  @property
  def bytes(self) -> int:
    """How many bytes the array has."""
    return self.size * DTYPES[self.dtype].itemsize

  @property
  def working(self) -> int:
    """How many bytes reading it may take besides the array itself."""
    listed = self.positions != ALL or self.width
    return self.bytes + (32 * (self.told + self.gaps) + self.size if listed else 0)


class Part(NamedTuple):
  """How a part is coded, and its lengths."""

  coder: int
  length: int
  coded: int


class Contents(NamedTuple):
  """What a header says, all of it checked."""

  header: Header
  tree: Any  # of ones in the place of the leaves; None where it is of classes
  paths: tuple[str, ...]
  leaves: tuple[Leaf, ...]
  parts: dict[str, Part]
  length: int  # of the header with the prelude

  @property
  def whole(self) -> int:
    """The length of the file."""
    checks = CHECK.size * (1 + len(self.parts)) + DIGEST
    return self.length + sum(part.coded for part in self.parts.values()) + checks

  @property
  def needed(self) -> int:
    """How many bytes reading it may take: arrays, parts coded and not, and what is made between."""
    arrays = sum(leaf.bytes for leaf in self.leaves)
    parts = sum(2 * part.length for part in self.parts.values())
    return arrays + parts + self.whole + max((leaf.working for leaf in self.leaves), default=0)


def part_lengths(leaves: Sequence[Leaf]) -> dict[str, int]:
  """Returns how many bytes each part has, before it is coded."""
  found = dict.fromkeys(PARTS, 0)
  for leaf in leaves:
    for part, length in leaf.lengths.items():
      found[part] += length
  return found


def row_of(leaf: Leaf) -> list[Any]:
  """Returns a leaf's row, without what it ends with that is as ever.

  Example:
    >>> row_of(Leaf('float32', (3,), 'float16', planes=1))
    ['float32', [3], 'float16', 1]
  """
  row = [leaf.dtype, list(leaf.shape), *leaf[2:]]
  while len(row) > 3 and row[-1] == 0:
    row.pop()
  return row


def refuse(name: str, field: str, value: Any, must_be: str) -> NoReturn:
  """Raises the ValueError of a file whose field has a value that it can't have."""
  raise ValueError(f'{name}: {field}={shown(value)} must be {must_be}')


def shown(value: Any) -> str:
  """Returns a value as it is shown in one short line, whatever a file has in its place.

  Example:
    >>> shown('two\\nlines')
    "'two\\\\nlines'"
  """
  return _SHORT.repr(value)


# From JSON, which may hold anything


def leaf_of(row: Any, path: str, name: str) -> Leaf:
  """Returns the leaf that a row tells of.

  Args:
    row: from the header.
    path: the leaf's.
    name: the file's.

  Raises:
    ValueError: a value that no file written by this format has.
  """
  path = shown(path)
  field = f'the row of {path}'
  if not isinstance(row, list) or not 3 <= len(row) <= len(Leaf._fields):
    refuse(name, field, row, f'a list of 3 to {len(Leaf._fields)} values')
  leaf = Leaf(*row)
  if leaf.dtype not in ANY_NAMES:
    refuse(name, f'the dtype of {path}', leaf.dtype, f'one of {", ".join(ANY_NAMES)}')
  if leaf.stored != leaf.dtype and leaf.stored not in NARROWER.get(leaf.dtype, ()):
    refuse(name, f'stored of {path}', leaf.stored, f'{leaf.dtype}, or narrower and floating')
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
  """Whether this is a whole number from 0 on that can be a length."""
  return type(value) is int and 0 <= value < 2**48


def _check_numbers(leaf: Leaf, path: str, name: str) -> None:
  def check(is_right, key, must_be):
    if not is_right:
      refuse(name, f'{key} of {path}', getattr(leaf, key), must_be)

  for key in ('planes', 'kernel', 'columns'):
    check(getattr(leaf, key) < 2, key, '0 or 1')
  check(math.prod(filter(None, leaf.shape)) < 2**48, 'shape', 'of fewer than 2^48 weights')
  check(leaf.width in WIDTHS, 'width', f'one of {", ".join(map(str, WIDTHS))}')
  check(leaf.positions <= BITS, 'positions', f'from {ALL} to {BITS}')
  check(not leaf.columns or len(leaf.shape) > 1, 'columns', '0 for a leaf of fewer than two axes')
  sparse = leaf.positions != ALL
  check(leaf.kept <= (leaf.size if sparse else 0), 'kept', f'at most {leaf.size}, and 0 of a whole')
  least, most = (leaf.kept, leaf.kept + leaf.size // ESCAPE) if leaf.positions == GAPS else (0, 0)
  check(least <= leaf.gaps <= most, 'gaps', f'from {least} to {most}')
  least, most = (min(1, leaf.told), 2**leaf.width) if leaf.width else (0, 0)
  check(least <= leaf.clusters <= most, 'clusters', f'from {least} to {most}')
