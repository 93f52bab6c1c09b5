"""Indices that can be removed, because every sum that reads them gets zero or a constant.

Removal is found in rounds: once a unit is removed, the indices that only it read can be removed
too. A constant must depend on removed parameters alone, so that it stays constant while the rest is
trained further. Kept parameters therefore count as unknown, and an index whose constant depends on
them is kept as well, until nothing changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsejax.compact import constants
from sparsejax.compact.constants import Constants
from sparsejax.compact.ties import Sum, Ties
from sparsejax.compact.trace.known import Known, collapse, from_array
from sparsejax.sparsity.program.equations import Trace


class Removal(NamedTuple):
  """The indices removed from a program.

  Attributes:
    removed: for each root, whether it is removed.
    constants: what is known of every value, where kept parameters count as unknown.
  """

  removed: np.ndarray
  constants: Constants


def largest(
  trace: Trace, ties: Ties, params: Sequence[np.ndarray], ins: Sequence[Known]
) -> Removal:
  """Returns the largest possible removal that leaves every axis at least one index.

  Args:
    trace: the program.
    ties: its tied indices.
    params: its parameters.
    ins: what is known of its other inputs.
  """
  numbers = trace.program.ins[: len(params)]
  allowed = np.zeros(len(ties.labels), bool)
  for number in numbers:
    for labels in ties.axes[number]:
      allowed[ties.roots[labels]] = True
  allowed &= ~ties.labels.pinned_roots()
  found = Constants(trace, [*map(from_array, params), *ins])
  removed = _leaving_one(ties, found, allowed)
  while True:
    found = constants_at(trace, ties, removed, params, ins)
    less = _leaving_one(ties, found, removed)
    if (less == removed).all():
      return Removal(removed, found)
    removed = less


def keeping(
  trace: Trace,
  ties: Ties,
  params: Sequence[np.ndarray],
  kept: Sequence[Sequence[np.ndarray]],
  ins: Sequence[Known],
) -> Removal | None:
  """Returns the removal that keeps exactly these indices, or None if it is not possible.

  Args:
    trace: the program, such as that for inputs of other shapes.
    ties: its tied indices.
    params: its parameters, whole.
    kept: for each axis of each parameter, a boolean array of whether each index is kept.
    ins: what is known of its other inputs.
  """
  removed = np.zeros(len(ties.labels), bool)
  axes = [ties.axes[number] for number in trace.program.ins[: len(params)]]
  pairs = [
    (ties.roots[labels], is_kept)
    for some, masks in zip(axes, kept, strict=True)
    for labels, is_kept in zip(some, masks, strict=True)
  ]
  for roots, is_kept in pairs:
    removed[roots[~is_kept]] = True
  if (removed & ties.labels.pinned_roots()).any() or any((removed[r] == k).any() for r, k in pairs):
    return None
  found = constants_at(trace, ties, removed, params, ins)
  return Removal(removed, found) if (_leaving_one(ties, found, removed) == removed).all() else None


def constants_at(trace, ties, removed, params, ins) -> Constants:
  """Returns the known values of a program whose kept parameters count as unknown."""
  values = [
    constants.parameter(value, [~removed[ties.roots[labels]] for labels in ties.axes[number]])
    for value, number in zip(params, trace.program.ins, strict=False)
  ]
  return Constants(trace, [*values, *ins])


def _leaving_one(ties, found, allowed):
  """Like `grown`, but keeps the first index of each axis that would lose all of them."""
  allowed = allowed.copy()
  while True:
    removed = grown(ties, found, allowed)
    roots = [ties.roots[labels] for axes in ties.axes.values() for labels in axes if len(labels)]
    last = [some[0] for some in roots if removed[some].all()]
    if not last:
      return removed
    allowed[last] = False


def grown(ties: Ties, found: Constants, allowed: np.ndarray) -> np.ndarray:
  """Returns, for each root, whether it can be removed; only allowed ones can."""
  every = (
    _Reader(ties, found, one, i, allowed)
    for one in ties.sums_found
    for i in range(len(one.axes[0]))
  )
  readers = [reader for reader in every if reader.reads_any]
  removed = np.zeros_like(allowed)
  while True:
    more = allowed.copy()
    for reader in readers:
      more[reader.roots[reader.needs(removed)]] = False
    if (more == removed).all():
      return removed
    removed = more | removed


class _Reader:
  """One axis that a sum runs over, and what is known of its operands along it."""

  def __init__(self, ties: Ties, found: Constants, one: Sum, which: int, allowed: np.ndarray):
    self.roots = ties.roots[one.operands[0][one.axes[0][which]]]
    self.reads_any = bool(allowed[self.roots].any())
    if not self.reads_any:
      return
    self._operands = []
    for number, labels, axes in zip(one.equation.ins, one.operands, one.axes, strict=False):
      roots = [ties.roots[some] for some in labels]
      along = axes[which]
      others = [i for i in range(len(roots)) if i != along and not allowed[roots[i]].any()]
      value = found.values[number]
      arrays = [collapse(array, others) for array in (value.varies, value.maybe_nonzero())]
      self._operands.append((along, roots, arrays))

  def needs(self, removed: np.ndarray) -> np.ndarray:
    """Returns which indices contribute something that may vary to an output that is kept."""
    operands = [self._along(*operand, removed) for operand in self._operands]
    if len(operands) == 1:
      return operands[0][0]
    (varies, nonzero), (other_varies, other_nonzero) = operands
    return (varies & other_nonzero) | (nonzero & other_varies)

  def _along(self, along, roots, arrays, removed):
    """Returns, for each index, whether an operand varies there, and whether it may be nonzero."""
    found = []
    for array in arrays:
      for axis, some in enumerate(roots):
        if axis == along:
          continue
        is_kept = ~removed[some]
        if array.shape[axis] == 1:
          array = array & is_kept.any()
        elif not is_kept.all():
          array = array & is_kept.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
      over = tuple(i for i in range(array.ndim) if i != along)
      found.append(np.broadcast_to(array.any(over), self.roots.shape))
    return found
