"""Where a run writes to: rich on a terminal, plain aligned text elsewhere, and never an end to it.

Once the stream is gone (the pipe closed, the disk full), it is silent.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table


class _Quiet(io.TextIOBase):
  """A stream that never raises: after the first failure (the pipe closed, the disk full) it drops
  what it is given, so that the run goes on."""

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
  """Points a broken stdout at the null device, or Python's last flush would exit with 120."""
  if stream is sys.stdout or stream is sys.__stdout__:
    with contextlib.suppress(OSError, ValueError):
      null = os.open(os.devnull, os.O_WRONLY)
      os.dup2(null, stream.fileno())
      os.close(null)


def open_stream(stream):
  """The stream to write to, stdout by default, and whether it is a terminal that can move."""
  stream = _Quiet(sys.stdout if stream is None else stream)
  return stream, stream.isatty() and os.environ.get('TERM') not in ('dumb', 'unknown')


def console_on(stream, terminal, **options):
  return Console(file=stream, force_terminal=terminal, markup=False, emoji=False, **options)


def _table(title, header, rows, justify='right', *, rules):
  """A rich table, its first column to the left and the others as `justify` says."""
  table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD if rules else None)
  table.padding = (0, 1) if rules else (0, 2, 0, 0)
  for n, name in enumerate(header):
    table.add_column(name, justify=justify if n else 'left', no_wrap=not rules)
  for row in rows:
    table.add_row(*row)
  return table


def print_blocks(stream, blocks: Iterable):
  """Prints lines and tables (_table's arguments), rich on a terminal and plain elsewhere."""
  stream, terminal = open_stream(stream)
  text = stream if terminal else io.StringIO()
  size = {} if terminal else {'width': 10_000, 'color_system': None}
  console = console_on(text, terminal, highlight=False, **size)
  for block in blocks:
    if isinstance(block, str):
      console.print(block)
    else:
      console.print(_table(*block, rules=terminal))
  if not terminal:
    stream.write(''.join(f'{line.rstrip()}\n' for line in text.getvalue().splitlines()))
  stream.flush()


def say(line: str, stream: TextIO | None = None) -> None:
  """Prints a line of text, on stdout by default."""
  print_blocks(stream, [line])
