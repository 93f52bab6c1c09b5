"""Tables and blocks of text: rich on a terminal, plain aligned text elsewhere."""

import io
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from sparsejax.experiment.terminal.say import Quiet, printable

# Widths are in characters of the terminal.
COLUMN_PADDING = 3  # what rich adds to the width of every column
TABLE_PADDING = 1  # what rich adds to the width of a table
MIN_FIRST_WIDTH = 8  # a first column narrower than this is unreadable: cells become lines
FILE_WIDTH = 10_000  # outside a terminal nothing is wrapped


class Part(NamedTuple):
  """A part of a table, as wide as there is room for; without a header it is lines of text.

  Attributes:
    title: the title of the table.
    header: the names of the columns; empty for lines of text.
    rows: the cells of each row; for lines of text one cell each.
    widths: the width of each column; empty to leave them to rich.
  """

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  widths: Sequence[int] = ()


def open_stream(stream: TextIO | None) -> tuple[Any, bool]:
  """Returns the stream to write to, by default stdout, and whether it can redraw lines."""
  quiet = Quiet(sys.stdout if stream is None else stream)
  return quiet, quiet.isatty() and os.environ.get('TERM') not in ('dumb', 'unknown')


def make_console(stream: Any, terminal: bool, **options: Any) -> Console:
  """Returns a rich console on a stream, without markup and emoji codes."""
  return Console(file=stream, force_terminal=terminal, markup=False, emoji=False, **options)


def _rich_table(part: Part, justify: Any = 'right', *, rules: bool) -> Table:
  """Returns a rich table, its first column justified to the left, the others as `justify` says."""
  table = Table(title=part.title, title_justify='left', box=box.SIMPLE_HEAD if rules else None)
  table.padding = (0, 1) if rules else (0, 2, 0, 0)
  for index, name in enumerate(part.header):
    width = part.widths[index] if part.widths else None
    side = justify if index else 'left'
    table.add_column(name, justify=side, no_wrap=not rules, width=width, overflow='fold')
  for row in part.rows:
    table.add_row(*row)
  return table


def _renderables(part: Part, justify: Any = 'right', *, rules: bool) -> list[str | Table]:
  """Returns what rich prints for a part: one table, or its title and its lines of text."""
  if part.header:
    return [_rich_table(part, justify, rules=rules)]
  return [part.title, *(cell for [cell] in part.rows)]


def print_blocks(stream: TextIO | None, blocks: Iterable[Any]) -> None:
  """Prints lines and tables, with rich on a terminal and as plain aligned text elsewhere.

  Args:
    stream: the stream to print to; None for stdout.
    blocks: each a line of text, or a table (title, header, rows) or (title, header, rows, justify).
  """
  stream, terminal = open_stream(stream)
  text = stream if terminal else io.StringIO()
  size = {} if terminal else {'width': FILE_WIDTH, 'color_system': None}
  console = make_console(text, terminal, highlight=False, **size)
  for block in blocks:
    if isinstance(block, str):
      console.print(printable(block))
      continue
    title, header, rows, *justify = block
    header = tuple(map(printable, header))
    rows = [tuple(map(printable, row)) for row in rows]
    for part in _split_table(title, header, rows, console.width if terminal else None):
      for renderable in _renderables(part, *justify, rules=terminal):
        console.print(renderable)
  if not terminal:
    stream.write(''.join(f'{line.rstrip()}\n' for line in text.getvalue().splitlines()))
  stream.flush()


def _split_table(
  title: str, header: Sequence[str], rows: Sequence[Sequence[str]], max_width: int | None
) -> list[Part]:
  """Splits a table into parts that fit in a width.

  A table that fits stays whole. A wider one is split by columns, and each part repeats the first
  column. Its column names may wrap between words; cells wrap in the first column only, and only if
  it would otherwise leave no room for the widest of the others. If it would become narrower than
  `MIN_FIRST_WIDTH`, the result is one part of lines `name: cell`.

  Args:
    title: the title; later parts are marked as continued.
    header: the names of the columns.
    rows: the cells of each row, one for each column.
    max_width: the width in characters; None if there is no limit.
  """
  columns = list(zip(header, *rows, strict=True))
  widths = [max(map(cell_len, column)) for column in columns]
  padding = COLUMN_PADDING * len(widths) + TABLE_PADDING
  if max_width is None or sum(widths) + padding <= max_width:
    return [Part(title, header, rows)]
  wrapped_widths = [max(map(cell_len, (*name.split(), *cells))) for name, *cells in columns]
  widest_other = max(wrapped_widths[1:], default=0)
  first_room = max_width - TABLE_PADDING - 2 * COLUMN_PADDING - widest_other
  first = min(wrapped_widths[0], first_room)
  if first < min(wrapped_widths[0], MIN_FIRST_WIDTH):
    pairs = (pair for row in rows for pair in zip(header, row, strict=True))
    return [Part(title, (), [(f'{name}: {cell}',) for name, cell in pairs])]
  room = max_width - TABLE_PADDING - first - COLUMN_PADDING
  return [
    Part(
      title if number == 0 else f'{title}, continued',
      [header[n] for n in (0, *chosen)],
      [[row[n] for n in (0, *chosen)] for row in rows],
      [first, *(wrapped_widths[n] for n in chosen)],
    )
    for number, chosen in enumerate(_group_columns(wrapped_widths, room))
  ]


def _group_columns(widths: Sequence[int], room: int) -> Iterator[list[int]]:
  """Yields the indices of the columns after the first, in groups that each fit in `room`."""
  group = []
  used = 0
  for n, width in enumerate(widths[1:], 1):
    if group and used + width + COLUMN_PADDING > room:
      yield group
      group = []
      used = 0
    group.append(n)
    used += width + COLUMN_PADDING
  yield group


def wrapped(line: str, width: int) -> list[str]:
  """Breaks a line between words, never within one, so that numbers stay whole.

  Example:
    >>> wrapped('* learning_rate = 0.001  (default 1e-2)', 24)
    ['* learning_rate = 0.001', '    (default 1e-2)']
  """
  indent = '    '
  return textwrap.wrap(
    line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
  )
