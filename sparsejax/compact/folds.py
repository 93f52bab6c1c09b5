"""Constants that removed indices contribute to sums, added to the smaller sums."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.removal import Removal
from sparsejax.compact.rules.products import product
from sparsejax.compact.ties import Sum, Ties
from sparsejax.compact.trace.known import ROUNDING, fixed, rounded, spread
from sparsejax.sparsity.program.equations import Equation

ROWS = 32  # the most rows that a pattern may have: the borders of a few windows, and the interior


class Fold(NamedTuple):
  """A constant to add to the output of an equation.

  Attributes:
    rows: the distinct entries along each axis, of size 1 along axes where all are equal.
    places: {axis: the index in `rows` of each position}, such as those of borders and interior.
  """

  rows: np.ndarray
  places: dict[int, np.ndarray]

  def add_to(self, value: jax.Array) -> jax.Array:
    rows = jnp.asarray(self.rows, value.dtype)
    for axis, at in self.places.items():
      rows = jnp.take(rows, at, axis)
    return value + jnp.broadcast_to(rows, value.shape)


def folds_of(ties: Ties, removal: Removal) -> dict[Equation, Fold]:
  """Returns {equation: the constant to add to its output}, where that is not zero."""
  found = {}
  with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion('allow'):
    for one in ties.sums_found:
      value = _removed_part(ties, removal, one)
      if value is not None and value.any():
        found[one.equation] = _fold(ties, removal, one, value)
  return found


def _removed_part(ties: Ties, removal: Removal, one: Sum) -> np.ndarray | None:
  """Returns the contribution of the removed indices to a sum, or None if there is none."""
  ins = [removal.constants.values[number] for number in one.equation.ins]
  shape = [1] * len(ins[0].shape)
  is_removed = np.zeros(shape, bool)
  for axis in one.axes[0]:
    at = removal.removed[ties.roots[one.operands[0][axis]]]
    is_removed = is_removed | at.reshape([-1 if i == axis else 1 for i in range(len(shape))])
  if not is_removed.any():
    return None
  parts = [known.fixed_part() for known in ins]
  parts[0] = np.where(is_removed, parts[0], np.zeros((), parts[0].dtype))
  if not all(part.any() for part in parts):
    return None
  if len(parts) > 1:
    return product(one.equation, ins, *parts)
  [axes] = one.axes
  return spread(parts[0], ins[0].shape, axes).sum(tuple(axes))


def contributing(ties: Ties, removal: Removal, one: Sum) -> list[np.ndarray]:
  """Returns, for each axis that a sum runs over, the labels of removed indices that contribute.

  Args:
    ties: the tied indices of the program.
    removal: its removed indices.
    one: the sum.
  """
  ins = [removal.constants.values[number] for number in one.equation.ins]
  found = []
  for which, axis in enumerate(one.axes[0]):
    labels = one.operands[0][axis]
    contributes = removal.removed[ties.roots[labels]]
    for known, axes in zip(ins, one.axes, strict=False):
      others = tuple(i for i in range(len(known.shape)) if i != axes[which])
      contributes = contributes & (known.fixed_part() != 0).any(others)
    found.append(labels[contributes])
  return found


def _fold(ties: Ties, removal: Removal, one: Sum, value: np.ndarray) -> Fold:
  axes = ties.axes[one.equation.outs[0]]
  for i, labels in enumerate(axes):
    if value.shape[i] != 1:
      value = np.take(value, np.flatnonzero(~removal.removed[ties.roots[labels]]), i)
  value = rounded(fixed(value)).value
  places = {}
  for i, labels in enumerate(axes):
    if value.shape[i] > 1 and not removal.removed[ties.roots[labels]].any():
      rows, at = _rows(value, i)
      if len(rows) <= min(ROWS, value.shape[i] // 2):
        value = np.take(value, rows, i)
        places[i] = at
  return Fold(value, places)


def _rows(value, axis):
  """Returns the distinct positions along an axis, and for each position which one it equals."""
  slices = np.moveaxis(value, axis, 0)
  close = ROUNDING * np.abs(value).max()
  rows: list[int] = []
  at = np.zeros(len(slices), np.int32)
  for i, one in enumerate(slices):
    alike = (k for k, row in enumerate(rows) if np.abs(slices[row] - one).max() <= close)
    at[i] = next(alike, len(rows))
    if at[i] == len(rows):
      rows.append(i)
    if len(rows) > ROWS:
      break
  return rows, at
