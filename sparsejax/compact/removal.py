"""What can go: an index of which every sum that reads it gets zero, or a constant.

Removal is found in rounds: with a unit that goes, what only it read goes next. A constant must come
of what is removed alone, so that it stays one while the rest is trained further: what is to stay
counts as unknown, and what this keeps is kept, until nothing changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparsejax.compact import constants
from sparsejax.compact.constants import Constants
from sparsejax.compact.ties import Sum, Ties
from sparsejax.compact.trace import known as known_of
from sparsejax.compact.trace.equations import Trace
from sparsejax.compact.trace.known import Known


class Removal(NamedTuple):
  """What goes from a program.

  Attributes:
    gone: for each root whether it goes.
    constants: what is known of all values, where what stays counts as unknown.
  """

  gone: np.ndarray
  constants: Constants


def largest(
  trace: Trace, ties: Ties, params: Sequence[np.ndarray], ins: Sequence[Known]
) -> Removal:
  """Returns all that can go, and leaves every axis an index.

  Args:
    trace: the program.
    ties: what goes together in it.
    params: its parameters.
    ins: what is known of what else it is given.
  """
  numbers = trace.program.ins[: len(params)]
  allowed = np.zeros(len(ties.labels), bool)
  for number in numbers:
    for labels in ties.axes[number]:
      allowed[ties.roots[labels]] = True
  allowed &= ~ties.labels.pinned_roots()
  found = Constants(trace, [*map(known_of.of, params), *ins])
  gone = _without_last(ties, found, allowed)
  while True:
    found = constants_at(trace, ties, gone, params, ins)
    less = _without_last(ties, found, gone)
    if (less == gone).all():
      return Removal(gone, found)
    gone = less


def the_same(
  trace: Trace,
  ties: Ties,
  params: Sequence[np.ndarray],
  kept: Sequence[Sequence[np.ndarray]],
  ins: Sequence[Known],
) -> Removal | None:
  """Returns what goes from a program if these indices stay; None where others would go, or can not.

  Args:
    trace: the program, such as that for inputs of other shapes.
    ties: what goes together in it.
    params: its parameters, whole.
    kept: for each axis of each parameter, which of its indices are.
    ins: what is known of what else it is given.
  """
  gone = np.zeros(len(ties.labels), bool)
  axes = [ties.axes[number] for number in trace.program.ins[: len(params)]]
  pairs = [
    (ties.roots[labels], stays)
    for some, of_each in zip(axes, kept, strict=True)
    for labels, stays in zip(some, of_each, strict=True)
  ]
  for roots, stays in pairs:
    gone[roots[~stays]] = True
  if (gone & ties.labels.pinned_roots()).any() or any((gone[r] == k).any() for r, k in pairs):
    return None
  found = constants_at(trace, ties, gone, params, ins)
  return Removal(gone, found) if (_without_last(ties, found, gone) == gone).all() else None


def constants_at(trace, ties, gone, params, ins) -> Constants:
  """Returns what is constant once something goes, where all that stays may change."""
  values = [
    constants.parameter(value, [~gone[ties.roots[labels]] for labels in ties.axes[number]])
    for value, number in zip(params, trace.program.ins, strict=False)
  ]
  return Constants(trace, [*values, *ins])


def _without_last(ties, found, allowed):
  """What can go, without the first index of each axis that would lose all."""
  allowed = allowed.copy()
  while True:
    gone = grown(ties, found, allowed)
    roots = [ties.roots[labels] for axes in ties.axes.values() for labels in axes if len(labels)]
    last = [some[0] for some in roots if gone[some].all()]
    if not last:
      return gone
    allowed[last] = False


def grown(ties: Ties, found: Constants, allowed: np.ndarray) -> np.ndarray:
  """Returns for each root whether it goes, of those that may."""
  readers = [
    reader
    for one in ties.sums_found
    for i in range(len(one.axes[0]))
    if (reader := _Reader(ties, found, one, i, allowed)).reads_any
  ]
  gone = np.zeros_like(allowed)
  while True:
    more = allowed.copy()
    for reader in readers:
      more[reader.roots[reader.needs(gone)]] = False
    if (more == gone).all():
      return gone
    gone = more | gone


class _Reader:
  """One axis that a sum reads along, and what is known of its operands."""

  def __init__(self, ties: Ties, found: Constants, one: Sum, which: int, allowed: np.ndarray):
    self.roots = ties.roots[one.operands[0][one.axes[0][which]]]
    self.reads_any = bool(allowed[self.roots].any())
    if not self.reads_any:
      return
    self._operands = []
    for number, labels, axes in zip(one.equation.ins, one.operands, one.axes, strict=False):
      roots, along = [ties.roots[some] for some in labels], axes[which]
      others = [i for i in range(len(roots)) if i != along and not allowed[roots[i]].any()]
      value = found.values[number]
      arrays = [known_of.collapse(array, others) for array in (value.varies, value.maybe())]
      self._operands.append((along, roots, arrays))

  def needs(self, gone: np.ndarray) -> np.ndarray:
    """Which indices do something that may change, to what does not go itself."""
    there = [self._along(*operand, gone) for operand in self._operands]
    if len(there) == 1:
      return there[0][0]
    (varies, maybe), (others_vary, others_maybe) = there
    return (varies & others_maybe) | (maybe & others_vary)

  def _along(self, along, roots, arrays, gone):
    found = []
    for array in arrays:
      for axis, some in enumerate(roots):
        if axis == along:
          continue
        stays = ~gone[some]
        if array.shape[axis] == 1:
          array = array & stays.any()
        elif not stays.all():
          array = array & stays.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
      over = tuple(i for i in range(array.ndim) if i != along)
      found.append(np.broadcast_to(array.any(over), self.roots.shape))
    return found
