"""How often each weight of a parameter is applied, from the products that apply it or a part."""

import collections
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.program.rules.nodes import Node, Taken

Key = frozenset[tuple[Node, int | None, int]]  # (axis, where it begins, size) of what was taken


class Use(NamedTuple):
  """That so many of a parameter's weights are applied, each at so many positions."""

  weights: int
  positions: int
  part: Key = frozenset()


def use_of(weights: int, macs: int, taken: Sequence[Taken]) -> Use:
  """Returns a use of a part: where the turns of a loop take one after the other, of them all.

  Args:
    weights: how many one turn uses.
    macs: the multiply-accumulates of all turns together.
    taken: what was taken of the parameter, axis by axis.
  """
  weights *= math.prod(part.turns for part in taken if part.begin is None)
  part = frozenset((part.axis.find(), part.begin, part.size) for part in taken)
  return Use(weights, macs // weights, part)


def positions(uses: Sequence[Use], whole: int) -> int | None:
  """Returns how often each weight of a parameter is applied; None where they differ or may.

  Uses of parts count where the parts are all of it, none lies on another, and each is used as often
  as the others.

  Args:
    uses: the parameter's uses.
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
  if any(len(sizes) > 1 for sizes in weights.values()):
    return None
  if sum(min(sizes) for sizes in weights.values()) != whole or len(set(often.values())) > 1:
    return None
  if not all(_are_apart(*pair) for pair in itertools.combinations(often, 2)):
    return None
  return found + min(often.values())


def _are_apart(one: Key, other: Key) -> bool:
  """Whether two parts have no weight in common: on some axis one ends where the other begins."""
  return any(
    axis is along and (begin + size <= start or start + length <= begin)
    for axis, begin, size in one
    for along, start, length in other
    if begin is not None and start is not None
  )
