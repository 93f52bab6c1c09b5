"""What a report has drawn, and what could not be."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Picture(NamedTuple):
  """A figure.

  Attributes:
    name: of its files, without their endings.
    files: that were written.
    png: its picture, for a page.
  """

  name: str
  files: Sequence[str]
  png: bytes


class Drawn(NamedTuple):
  """The figures of a report.

  Attributes:
    pictures: by task, and by the stem of a search.
    missing: (name, why) of those that could not be drawn.
  """

  pictures: Mapping[str, Sequence[Picture]]
  missing: Sequence[tuple[str, str]]
