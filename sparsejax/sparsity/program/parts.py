"""Which part of a kernel is applied, and whether all its parts are applied equally often."""

import collections
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.program.nodes import Part

Key = frozenset[tuple[int, int | None, int]]  # of the parts: (axis, where it begins, size)


class Use(NamedTuple):
  """That so many of a parameter's weights are applied, each at so many positions."""

  weights: int
  positions: int
  part: Key = frozenset()


def key(parts: Sequence[Part]) -> Key:
  """Returns what tells parts apart, however often they were taken."""
  return frozenset((id(part.axis.find()), part.begin, part.size) for part in parts)


def positions(uses: Sequence[Use], whole: int) -> int | None:
  """Returns how often each weight of a parameter is applied; None where they differ or may.

  Uses of parts count where the parts are all of it, none lies on another, and each is used as often
  as the others.

  Args:
    uses: of this parameter.
    whole: how many weights it has.
  """
  found = sum(use.positions for use in uses if use.weights == whole)
  weights: dict[Key, set[int]] = collections.defaultdict(set)
  often: dict[Key, int] = collections.Counter()
  for use in uses:
    if use.weights != whole:
      weights[use.part].add(use.weights)
      often[use.part] += use.positions
  if not often:
    return found
  covered = sum(sum(sizes) for sizes in weights.values())
  if any(len(sizes) > 1 for sizes in weights.values()) or covered % whole:
    return None
  apart = all(_are_apart(*pair) for pair in itertools.combinations(often, 2))
  if not apart or len(set(often.values())) > 1:
    return None
  return found + next(iter(often.values())) * (covered // whole)


def _are_apart(one: Key, other: Key) -> bool:
  """Whether two parts have no weight in common: on some axis one ends where the other begins."""
  return any(
    axis == along and (begin + size <= start or start + length <= begin)
    for axis, begin, size in one
    for along, start, length in other
    if begin is not None and start is not None
  )
