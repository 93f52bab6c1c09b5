"""The figures that a report has drawn, and those it could not draw."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Picture(NamedTuple):
  """A figure.

  Attributes:
    name: the name of its files, without their endings.
    files: the files that were written.
    png: the picture itself, for a page.
  """

  name: str
  files: Sequence[str]
  png: bytes


class Drawn(NamedTuple):
  """The figures of a report.

  Attributes:
    pictures: the pictures of each task, and of each search by its stem.
    missing: (name, reason) of each figure that could not be drawn.
  """

  pictures: Mapping[str, Sequence[Picture]]
  missing: Sequence[tuple[str, str]]
