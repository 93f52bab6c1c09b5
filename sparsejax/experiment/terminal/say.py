"""The only way for text to reach a terminal: one line at a time, with controls escaped."""

import contextlib
import io
import os
import sys
import traceback
import unicodedata
from typing import Any, TextIO

# Controls (such as ESC and newlines), halves of a character, line ends, and invisible characters
# that turn the direction of their neighbours.
NEVER = ('Cc', 'Cs', 'Zl', 'Zp', 'Cf')
LONGEST = 60  # characters of a value in a message
JOINERS = '\u200c\u200d'  # some scripts cannot be written without these


def printable(text: object) -> str:
  r"""Returns a text in which all that is invisible or moves the cursor is written as an escape.

  Example:
    >>> print(printable('red\x1b[31m\nstep 1'), printable('Dvořák, 名前'))
    red\x1b[31m\nstep 1 Dvořák, 名前
  """
  text = str(text)
  if text.isascii() and text.isprintable():
    return text
  return ''.join(letter if _is_shown(letter) else _escaped(letter) for letter in text)


def _is_shown(letter: str) -> bool:
  return letter in JOINERS or unicodedata.category(letter) not in NEVER


def _escaped(letter: str) -> str:
  return letter.encode('unicode_escape').decode('ascii')


def shown(value: Any) -> str:
  """Returns a value as it stands in a message: in one line of bounded length."""
  text = repr(value) if isinstance(value, str) else ' '.join(str(value).split())
  text = ''.join(c if c.isprintable() else '?' for c in text)
  return text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'


def say(line: object, stream: TextIO | None = None) -> None:
  """Prints a line, by default on stdout; once the stream is gone, it stays silent.

  Args:
    line: the line; whatever it holds, it stays one line.
    stream: the stream to print to.
  """
  quiet = Quiet(sys.stdout if stream is None else stream)
  quiet.write(f'{printable(line)}\n')
  quiet.flush()


def complain(line: object) -> None:
  """Prints a line on stderr."""
  say(line, sys.stderr)


def say_lines(text: str, stream: TextIO | None = None) -> None:
  """Prints a text of several lines."""
  for line in text.splitlines():
    say(line, stream)


def show_traceback(kind, error, trace) -> None:
  """Prints an uncaught error in place of `sys.excepthook`, since a message may quote anything."""
  say_lines(''.join(traceback.format_exception(kind, error, trace)), sys.stderr)


class Quiet(io.TextIOBase):
  """A stream that never raises, so that a run continues.

  After its first failure (a closed pipe, a full disk) it drops what it is given.
  """

  def __init__(self, stream):
    self._stream = stream

  @property
  def encoding(self):  # ty: ignore[incompatible-property-override]  # nobody sets it
    return getattr(self._stream, 'encoding', None) or 'utf-8'

  def isatty(self):
    with contextlib.suppress(Exception):
      return self._stream is not None and bool(self._stream.isatty())
    return False

  def fileno(self):
    return super().fileno() if self._stream is None else self._stream.fileno()

  def _try(self, action):
    try:
      if self._stream is not None:
        action(self._stream)
    except (OSError, ValueError):  # ValueError: the stream was closed
      _silence(self._stream)
      self._stream = None

  def write(self, text):
    text = text.encode(self.encoding, 'replace').decode(self.encoding)
    self._try(lambda stream: stream.write(text))
    return len(text)

  def flush(self):
    self._try(lambda stream: stream.flush())


def _silence(stream):
  """Points a broken stdout or stderr at the null device, so Python's last flush does not fail."""
  if any(stream is own for own in (sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__)):
    with contextlib.suppress(OSError, ValueError):
      null = os.open(os.devnull, os.O_WRONLY)
      os.dup2(null, stream.fileno())
      os.close(null)
