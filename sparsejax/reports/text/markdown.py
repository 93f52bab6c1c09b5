"""Tables of a page, and how a cell is written."""

import math


def table(head: str, rows: list[str]) -> list[str]:
  """The lines of a table; the cells of head and rows are parted by ' | '."""
  return [f'| {row} |' for row in (head, '|'.join(['---'] * len(head.split(' | '))), *rows)]


def times(ratio: float | None) -> str:
  """A ratio as text; of a network without a weight it is infinite, and null in its summary."""
  return 'infinite' if ratio is None or math.isinf(ratio) else f'{ratio:.1f}x'
