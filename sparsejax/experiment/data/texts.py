"""Texts: streams of bytes cut into windows, and the sources of the installed standard library."""

import hashlib
import pathlib
import sysconfig
from collections.abc import Sequence

import numpy as np

from sparsejax.experiment.data.splits import Split, Whole, check_integer

CONTEXT = 128  # bytes in a window, unless a config says otherwise
GENERATED = '_sysconfigdata'  # files that differ from machine to machine
PARTS = 10  # the files are dealt into as many parts: two are held out, one of them for the test


def as_split(text: bytes) -> Split:
  """Returns a text as a split, not yet cut: each byte's label is the byte after it.

  Example:
    >>> as_split(b'abc').labels.tobytes()
    b'bc'
  """
  stream = np.frombuffer(text, np.uint8)
  return Split(stream[:-1], stream[1:])


def windows(split: Split, context: int) -> Split:
  """Returns a text cut into windows of `context` bytes, each byte in one of them.

  The labels of a window are its bytes one further on, so the last one is the next window's first
  byte. What is left at the end, less than a window, is dropped.

  Args:
    split: the text as `as_split` returns it.
    context: the number of bytes in a window.

  Raises:
    ValueError: the text has not a single window.

  Example:
    >>> cut = windows(as_split(b'abcdefgh'), 3)
    >>> [row.tobytes() for row in cut.images], [bytes(row.tolist()) for row in cut.labels]
    ([b'abc', b'def'], [b'bcd', b'efg'])
  """
  check_integer('data.context', context, 1, len(split.images), "the bytes of the data set's text")
  count = len(split.images) // context
  images, labels = (part[: count * context].reshape(count, context) for part in split)
  return Split(images, labels.astype(np.int32))


def read_library(directory: object = None, cache: bool = True) -> Whole:
  """Returns the sources of the standard library's modules of one file, in three texts.

  A file goes to the test if the sha256 of its name begins with a byte of 0 modulo 10, to validation
  for 1 and to training for all others, so that it stays there whatever other files an installation
  has. What Python generates for one machine is left out, and so are packages and their tests.
  """
  del directory, cache
  folder = pathlib.Path(sysconfig.get_paths()['stdlib'])
  names = sorted(path.name for path in folder.glob('*.py'))
  names = [name for name in names if not name.startswith(GENERATED)]

  def text(parts: Sequence[int]) -> Split:
    chosen = [folder / name for name in names if part_of(name) in parts]
    return as_split(b''.join(path.read_bytes() for path in chosen))

  return Whole(train=text(range(2, PARTS)), test=text([0]), validation=text([1]))


def part_of(name: str) -> int:
  """Returns the part that a file of this name belongs to, from 0 to 9.

  Example:
    >>> part_of('abc.py'), part_of('ast.py')
    (6, 0)
  """
  return hashlib.sha256(name.encode()).digest()[0] % PARTS
