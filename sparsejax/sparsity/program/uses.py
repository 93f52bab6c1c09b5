"""The number of times that products apply each weight of a parameter, all of it or a part."""

import collections
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.program.rules.nodes import Node, Slice

# Which part of a parameter is applied: (axis, start, size) of every slice that was taken.
Part = frozenset[tuple[Node, int | None, int]]


class Use(NamedTuple):
  """Products that apply a part of a parameter.

  Attributes:
    weights: the number of weights in the part.
    positions: how often each of them is applied.
    part: the slices that make the part; empty for the whole parameter.
  """

  weights: int
  positions: int
  part: Part = frozenset()


def use_of_slices(weights: int, macs: int, slices: Sequence[Slice]) -> Use:
  """Returns the use of a part of a parameter, for all iterations of a loop together.

  A loop that takes one layer after the other from a (5, 3, 3) stack applies 9 weights in an
  iteration, and 45 altogether.

  Args:
    weights: the number of weights that one iteration applies.
    macs: the multiply-accumulates of all iterations together.
    slices: the slices that were taken from the parameter.
  """
  weights *= math.prod(taken.iterations for taken in slices if taken.start is None)
  part = frozenset((taken.axis.find(), taken.start, taken.size) for taken in slices)
  return Use(weights, macs // weights, part)


def positions(uses: Sequence[Use], size: int) -> int | None:
  """Returns the times that each weight of a parameter is applied, or None if they may differ.

  Uses of parts are counted if the parts make up the whole parameter, do not overlap, and are all
  applied equally often.

  Args:
    uses: the parameter's uses.
    size: the number of its weights.
  """
  whole_positions = sum(use.positions for use in uses if use.weights == size)
  weights_of: dict[Part, set[int]] = collections.defaultdict(set)
  positions_of: dict[Part, int] = collections.Counter()
  for use in uses:
    if use.weights != size:
      weights_of[use.part].add(use.weights)
      positions_of[use.part] += use.positions
  if not positions_of:
    return whole_positions
  if any(len(sizes) > 1 for sizes in weights_of.values()):
    return None
  are_all_weights = sum(min(sizes) for sizes in weights_of.values()) == size
  if not are_all_weights or len(set(positions_of.values())) > 1:
    return None
  if not all(_are_disjoint(*pair) for pair in itertools.combinations(positions_of, 2)):
    return None
  return whole_positions + min(positions_of.values())


def _are_disjoint(one: Part, other: Part) -> bool:
  """Returns whether two parts share no weight: on some axis, one ends before the other starts."""
  return any(
    axis is other_axis and (start + size <= other_start or other_start + other_size <= start)
    for axis, start, size in one
    for other_axis, other_start, other_size in other
    if start is not None and other_start is not None
  )
