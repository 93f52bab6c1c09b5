"""Tables in Markdown, and their cells."""

import math


def table(head: str, rows: list[str]) -> list[str]:
  """The lines of a table; the cells of head and rows are separated by ' | '."""
  return [f'| {row} |' for row in (head, '|'.join(['---'] * len(head.split(' | '))), *rows)]


def times(ratio: float | None) -> str:
  """A ratio as text; for a network without weights it is infinite, and null in its summary."""
  return 'infinite' if ratio is None or math.isinf(ratio) else f'{ratio:.1f}x'
