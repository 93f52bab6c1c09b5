"""Fuzzes the reading of model files with damaged and forged ones.

python tests/shipping/fuzz_model_file.py [--minutes=60] [--cases=N] [--seed=0] [--out=FILE.json]

--minutes=M     the time limit
--cases=N       the number of cases, 0 for no limit
--seed=S        the seed of the cases
--out=FILE      the file for the counts and the wrong cases, as JSON

A file is damaged blindly (bits flipped, cut short, bytes inserted, deleted, moved or repeated, or
replaced by another kind of file), or forged with valid checksums to reach the decoder: other values
in the header, other bytes in the compressed parts, and bytes under other lengths. Every file must
be read, or refused in one line, within the memory bound. Prints every wrong case. Exit status: 0 if
there is none, 1 otherwise.
"""

import argparse
import collections
import copy
import io
import itertools
import json
import os
import pathlib
import random
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

if __name__ == '__main__':
  sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
  os.environ['JAX_PLATFORMS'] = 'cpu'

from sparsejax.shipping import Header
from sparsejax.shipping.file import coding, decode, encode
from sparsejax.shipping.file import format as form

MOST = 200_000  # bytes: the bound for reading every case
SLACK = 2**19 + 2 * form.PATHS_MOST  # bytes for Python itself, and for paths
HEADER_FACTOR = 64  # the memory for parsing a header, relative to its length
NUMBERS = (0, 1, 2, 3, 7, 8, 255, 256, -1, 2**31, 2**32, 2**47, 2**48, 2**63, 2**64, 10**30)
ODD = (None, True, False, 0.5, 1e308, '', 'x', 'float32', 'object', [], {}, [0], {'a': 0}, ['l'])
ODD += ('two\nlines', '\x1b[2J', {'two\nlines': 0, '\ud800': 0}, ['d', 7, 0, 2**70, 0])


class Case(NamedTuple):
  """The kind of a damaged file, and its bytes."""

  kind: str
  data: bytes


class Verdict(NamedTuple):
  """The result of reading a file: 'read', 'refused' or 'wrong', and the message."""

  kind: str
  message: str


# The files


def seeds() -> list[bytes]:
  """Returns small files that together use every layout."""
  rng = np.random.default_rng(0)

  def leaf(shape, density, values=None, dtype='float32'):
    made = rng.choice(values, shape) if values else rng.normal(size=shape)
    return np.where(rng.random(shape) < density, made, 0).astype(dtype)

  shared = {
    'a': {'kernel': leaf((12, 10), 0.2, (1.0, 2.0, -0.5)), 'bias': leaf((10,), 1)},
    'b': [{'kernel': leaf((3, 3, 2, 4), 0.5, tuple(range(1, 30)))}, (leaf((2,), 1, (1, 0)), None)],
  }
  raw = {
    'w': leaf((9, 5), 0.6),
    'n': leaf((7,), 1, None, 'int32'),
    'm': leaf((6,), 0.5, (1,), bool),
  }
  far = np.zeros((40, 40), np.float64)
  far[0, 3] = far[39, 1] = 1 / 3
  about = Header('net', {'width': 1}, {'mean': [0.5]}, ('a', 'b'), {'seed': 0})
  named = encode.encode([complex_node(leaf((4, 6), 0.9))], Header())
  return [encode.encode(p, about) for p in (shared, raw, {0: far})] + [named, _compressible()]


def complex_node(kernel):
  return collections.OrderedDict(kernel=kernel)


def _compressible() -> bytes:
  """Returns a file whose parts are large enough to be compressed."""
  rng = np.random.default_rng(1)
  kernel = rng.integers(1, 9, (40, 50)) * (rng.random((40, 50)) < 0.1)
  words = np.repeat(np.arange(60.0, dtype=np.float32), 3)
  return encode.encode({'kernel': kernel.astype(np.float32), 'bias': words * 1.1}, Header())


class Pieces(NamedTuple):
  """The header of a file as a dict, and the bytes of its parts, compressed and not."""

  fields: dict[str, Any]
  coded: list[bytes]
  decoded: list[bytes]


def pieces_of(data: bytes) -> Pieces:
  contents = decode.read_header(io.BytesIO(data), 'seed')
  _, _, coder, size, coded = form.PRELUDE.unpack(data[: form.PRELUDE.size])
  text = data[form.PRELUDE.size : form.PRELUDE.size + coded]
  at, parts = contents.header_length + form.CHECK.size, []
  for part in contents.parts.values():
    parts.append(data[at : at + part.coded])
    at += part.coded + form.CHECK.size
  decoded = [
    coding.decompressed(part, row.coder, row.length)
    for part, row in zip(parts, contents.parts.values(), strict=True)
  ]
  return Pieces(json.loads(coding.decompressed(text, coder, size)), parts, decoded)


# Damaging files


def cases(seed: int) -> Iterator[Case]:
  """Yields cases endlessly, every kind in turn."""
  rng = random.Random(seed)
  whole = seeds()
  pieces = [pieces_of(data) for data in whole]
  for kind in itertools.cycle(KINDS):
    i = rng.randrange(len(whole))
    made = KINDS[kind]
    yield Case(kind, made(rng, whole[i]) if kind in BLIND else made(rng, pieces[i]))


def _flipped(rng, data):
  changed = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 8))):
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
  return bytes(changed)


def _cut(rng, data):
  return data[: rng.randrange(len(data))]


def _spliced(rng, data):
  """Inserts, deletes, repeats, moves or appends bytes."""
  i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
  piece = data[i:j] if rng.random() < 0.5 else rng.randbytes(rng.choice((1, 4, 100)))
  return rng.choice(
    (data[:i] + data[j:], data[:i] + piece + data[i:], data[:i] + piece + data[j:], data + piece)
  )


def _foreign(rng, data):
  """Returns files of other kinds, some of which begin like a model file."""
  noise = rng.randbytes(rng.choice((0, 1, 20, 400)))
  begins = (
    b'',
    b'PK\3\4',
    b'\x80\x04\x95',
    b'\x93NUMPY\1\0',
    b'\xfd7zXZ\0',
    b'{"a": 1}',
    b'#!/bin/sh',
  )
  return rng.choice((*begins, form.MAGIC, data[: form.PRELUDE.size])) + noise


def _prelude(rng, data):
  """Changes a number in the prelude, with a valid checksum of the header."""
  fields = list(form.PRELUDE.unpack(data[: form.PRELUDE.size]))
  at = rng.randrange(1, 5)
  fields[at] = (
    rng.choice((0, 1, 2, 3, 255)) if at == 2 else rng.choice((0, 1, 2, 65535, fields[at] + 1))
  )
  if at > 2 and rng.random() < 0.5:
    fields[at] = rng.choice((2**20, 2**20 + 1, 2**31, 2**32 - 1))
  begin = form.PRELUDE.pack(*fields) + data[form.PRELUDE.size :]
  end = form.PRELUDE.size + fields[4]
  return begin[:end] + struct.pack('<I', zlib.crc32(begin[:end])) + begin[end + 4 :]


def _signed(fields, coded):
  """Assembles a file from these pieces, with valid checksums."""
  text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
  return encode.assembled(text, coded, (coding.STORED,))


def _header(rng, pieces):
  """Changes values anywhere in the header."""
  fields = copy.deepcopy(pieces.fields)
  for _ in range(rng.choice((1, 1, 2, 4))):
    _change(rng, fields)
  return _signed(fields, pieces.coded)


def _change(rng, fields):
  holder, key = fields, rng.choice(list(fields))
  while isinstance(holder[key], list | dict) and holder[key] and rng.random() < 0.85:
    holder = holder[key]
    key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
  if rng.random() < 0.1:
    del holder[key]
    return
  value = holder[key]
  near = [value + 1, value - 1, 2 * value, value // 2] if type(value) is int else []
  holder[key] = copy.deepcopy(rng.choice((*near, *NUMBERS, *ODD)))
  if rng.random() < 0.05:
    fields[rng.choice(('more', 'tree', 'paths', 'classes'))] = copy.deepcopy(rng.choice(ODD))


def _json(rng, pieces):
  """Replaces the header by other text: no JSON, deep nesting, long numbers, other encodings."""
  depth = rng.choice((*[10, 99, 101, 5000] * 5, 10**5))
  text = rng.choice(
    (
      *(b'', b'null', b'7', b'NaN', b'"', b'{', b'\xff\xfe', b'9' * 5000, b'[' * depth),
      b'[' * depth + b']' * depth,
      b'{"tree":' + b'["l",' * depth + b'0' + b']' * depth + b',"leaves":[],"parts":[]}',
      b'{"tree":' + b'{"a":' * depth + b'0' + b'}' * depth + b',"leaves":[],"parts":[]}',
      b'{"tree":["l"' + b',{}' * 3 * depth + b'],"leaves":[],"parts":[]}',
      b'{"tree":{"' + b'a' * 4 * depth + b'":["l"' + b',0' * 50000 + b']},"leaves":[]}',
      b'[' + b'{},' * 3 * depth + b'0]',
      _many_leaves(depth // 4, b'a' * rng.choice((1, 80, 200_000 // depth))),
      _many_leaves(depth // 4, b'a', b'["bool",[],"bool"]'),
      json.dumps(pieces.fields).encode('utf-16'),
      _flipped(rng, json.dumps(pieces.fields).encode()),
    )
  )
  return _signed(text, pieces.coded)


def _many_leaves(count, key, row=b'0'):
  """Returns a header of many leaves below one key, with the same row for each."""
  leaves = b','.join([row] * count)
  begin = b'{"tree":{"' + key + b'":["l"' + b',0' * count + b']},"leaves":['
  return begin + leaves + b'],"parts":' + b'[[0,0],[0,0],[0,0],[0,%d],[0,0]]}' % count


def _coded(rng, pieces):
  """Damages the compressed bytes of a part, and may change its length or coder."""
  fields, parts = copy.deepcopy(pieces.fields), list(pieces.coded)
  i = rng.choice([i for i, part in enumerate(parts) if part])
  parts[i] = rng.choice((_flipped, _flipped, _cut, _spliced))(rng, parts[i])
  fields['parts'][i][1] = len(parts[i])
  if rng.random() < 0.2:
    fields['parts'][i][0] = rng.choice((0, 1, 2))
  return _signed(fields, parts)


def _decoded(rng, pieces):
  """Damages positions, ids or words, and stores them uncompressed."""
  fields, parts = copy.deepcopy(pieces.fields), list(pieces.coded)
  i = rng.choice([i for i, part in enumerate(pieces.decoded) if part])
  parts[i] = _flipped(rng, pieces.decoded[i])
  fields['parts'][i] = [coding.STORED, len(parts[i])]
  return _signed(fields, parts)


def _bomb(rng, pieces):
  """Gives a part that decodes to far too many bytes, or a leaf that declares a huge shape."""
  fields, parts = copy.deepcopy(pieces.fields), list(pieces.coded)
  if rng.random() < 0.5:
    i = rng.randrange(len(parts))
    parts[i] = _ZEROS
    fields['parts'][i] = [rng.choice((1, 2)), len(parts[i])]
    return _signed(fields, parts)
  row = rng.choice(fields['leaves'])
  row[1] = [rng.choice((2**16, 2**20, 2**30, 2**47)) for _ in range(rng.choice((1, 2, 4)))]
  return _signed(fields, parts)


_ZEROS = coding.compressed(bytes(10**7), coding.SYMBOLS)
BLIND = {'bits flipped': _flipped, 'cut short': _cut, 'spliced': _spliced, 'foreign': _foreign}
BLIND |= {'another prelude': _prelude}
KINDS = BLIND | {
  'another header': _header,
  'no header': _json,
  'another header, again': _header,
  'coded bytes': _coded,
  'positions, ids, words': _decoded,
  'more than declared': _bomb,
}


# Judging the results


def judge(case: Case, watched: bool = False) -> Verdict:
  """Reads a file as `load` does and returns the verdict; if watched, measures its memory too."""
  if watched:
    tracemalloc.start()
  try:
    contents, leaves = decode.decode(io.BytesIO(case.data), 'FILE', MOST)
    verdict = Verdict('read', '')
    if contents.tree is not None:
      decode.in_tree(contents, leaves)
    if sum(leaf.nbytes for leaf in leaves) > MOST:
      verdict = Verdict('wrong', 'the arrays are larger than the bound')
  except ValueError as error:
    verdict = Verdict(*_judge_message(str(error)))
  except Exception as error:  # any other exception is wrong
    verdict = Verdict('wrong', f'{type(error).__name__}: {error}')
  finally:
    if watched:
      peak = tracemalloc.get_traced_memory()[1]
      tracemalloc.stop()
  if watched and peak > MOST + len(case.data) + SLACK + HEADER_FACTOR * _header_length(case.data):
    return Verdict('wrong', f'{peak} bytes were allocated')
  return verdict


def _header_length(data: bytes) -> int:
  """Returns the length of the header that the prelude declares, or 0 if it is not valid."""
  if len(data) < form.PRELUDE.size:
    return 0
  length = form.PRELUDE.unpack(data[: form.PRELUDE.size])[3]
  return length if length <= form.HEADER_MOST else 0


def _judge_message(message: str) -> tuple[str, str]:
  if not message.startswith('FILE') or not message.isprintable() or len(message) > 600:
    return 'wrong', f'the message: {message}'
  return 'refused', message


def verdicts(count: int, seed: int, until: float = float('inf'), watch: int = 19):
  """Yields (case, verdict) for `count` cases, or endlessly if it is 0, and stops at `until`.

  Measuring memory is slow, so only every `watch`-th case is measured: a number coprime to that of
  the kinds.
  """
  for number, case in enumerate(cases(seed)):
    if (count and number >= count) or time.monotonic() > until:
      return
    yield case, judge(case, number % watch == 0)


def main() -> int:
  """Runs the program; returns its exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('--minutes', type=float, default=60.0)
  parser.add_argument('--cases', type=int, default=0)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path)
  arguments = parser.parse_args()
  counts = collections.defaultdict(collections.Counter)
  wrong, begun = [], time.monotonic()
  for case, verdict in verdicts(arguments.cases, arguments.seed, begun + 60 * arguments.minutes):
    counts[case.kind][verdict.kind] += 1
    if verdict.kind == 'wrong':
      wrong.append(
        {'kind': case.kind, 'message': verdict.message[:300], 'hex': case.data.hex()[:4000]}
      )
      print(json.dumps(wrong[-1]), flush=True)
  total = sum(counts.values(), collections.Counter())
  found = {'seed': arguments.seed, 'minutes': round((time.monotonic() - begun) / 60, 1)}
  found |= {'all': dict(total), **{kind: dict(count) for kind, count in counts.items()}}
  print(json.dumps(found), flush=True)
  if arguments.out:
    arguments.out.write_text(json.dumps(found | {'wrong': wrong}, indent=2) + '\n')
  return int(bool(wrong))


if __name__ == '__main__':
  sys.exit(main())
