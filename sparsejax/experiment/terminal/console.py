"""Tables and blocks of text: rich on a terminal, plain aligned text elsewhere."""

import io
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from sparsejax.experiment.terminal.say import Quiet, printable

BESIDE = 3  # columns of a terminal that a table's column needs besides its cells
LEAST = 8  # the least width of its first column, whose cells may be broken


def open_stream(stream):
  """The stream to write to, by default stdout, and whether it is a terminal that can redraw."""
  stream = Quiet(sys.stdout if stream is None else stream)
  return stream, stream.isatty() and os.environ.get('TERM') not in ('dumb', 'unknown')


def make_console(stream, terminal, **options):
  return Console(file=stream, force_terminal=terminal, markup=False, emoji=False, **options)


def _table(title, header, rows, justify='right', *, rules, widths=()):
  """A rich table with its first column to the left and the others as `justify` says."""
  table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD if rules else None)
  table.padding = (0, 1) if rules else (0, 2, 0, 0)
  for n, name in enumerate(header):
    width = widths[n] if widths else None
    where = justify if n else 'left'
    table.add_column(name, justify=where, no_wrap=not rules, width=width, overflow='fold')
  for row in rows:
    table.add_row(*row)
  return table


def print_blocks(stream, blocks: Iterable):
  """Prints lines and tables (_table's arguments), with rich on a terminal and plainly elsewhere."""
  stream, terminal = open_stream(stream)
  text = stream if terminal else io.StringIO()
  size = {} if terminal else {'width': 10_000, 'color_system': None}
  console = make_console(text, terminal, highlight=False, **size)
  for block in blocks:
    if isinstance(block, str):
      console.print(printable(block))
      continue
    title, header, rows, *justify = block
    header, rows = tuple(map(printable, header)), [tuple(map(printable, row)) for row in rows]
    for part in _parts(title, header, rows, console.width if terminal else None):
      is_text = isinstance(part, str)
      console.print(part if is_text else _table(*part[:3], *justify, rules=terminal, **part[3]))
  if not terminal:
    stream.write(''.join(f'{line.rstrip()}\n' for line in text.getvalue().splitlines()))
  stream.flush()


def _parts(title, header: Sequence[str], rows: Sequence[Sequence[str]], room: int | None):
  """Yields (title, header, rows, widths) of tables in which only cells of the first column break.

  A table that is too wide is divided by columns, and each part repeats the first column; without
  room for two columns there is a line for each cell.
  """
  columns = list(zip(header, *rows, strict=True))
  natural = [max(map(cell_len, column)) for column in columns]
  if room is None or sum(natural) + BESIDE * len(natural) + 1 <= room:
    yield title, header, rows, {}
    return
  least = [max(map(cell_len, (*name.split(), *cells))) for name, *cells in columns]
  first = min(least[0], room - 1 - 2 * BESIDE - max(least[1:], default=0))
  if first < min(least[0], LEAST):
    yield title
    for row in rows:
      yield from (f'{name}: {cell}' for name, cell in zip(header, row, strict=True))
    return
  for number, chosen in enumerate(_divided(least, room - 1 - first - BESIDE)):
    yield (
      title if number == 0 else f'{title}, continued',
      [header[n] for n in (0, *chosen)],
      [[row[n] for n in (0, *chosen)] for row in rows],
      {'widths': [first, *(least[n] for n in chosen)]},
    )


def _divided(widths: Sequence[int], room: int) -> Iterator[list[int]]:
  """The columns after the first, in parts of as many as there is room for."""
  chosen, taken = [], 0
  for n, width in enumerate(widths[1:], 1):
    if chosen and taken + width + BESIDE > room:
      yield chosen
      chosen, taken = [], 0
    chosen.append(n)
    taken += width + BESIDE
  yield chosen


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
