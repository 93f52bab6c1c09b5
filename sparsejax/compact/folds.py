"""The constants that removed indices leave in the sums that read them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.removal import Removal
from sparsejax.compact.rules.products import product
from sparsejax.compact.ties import Sum, Ties
from sparsejax.compact.trace import known as known_of
from sparsejax.compact.trace.equations import Equation

ROWS = 32  # of a pattern at most: the borders of a few windows, and what lies within


class Fold(NamedTuple):
  """What is added to what an equation makes.

  Attributes:
    rows: the numbers, of size 1 along axes on which they do not depend.
    places: {axis: which of the rows each place has}, such as borders and what lies within.
  """

  rows: np.ndarray
  places: dict[int, np.ndarray]

  def add_to(self, value: jax.Array) -> jax.Array:
    rows = jnp.asarray(self.rows, value.dtype)
    for axis, at in self.places.items():
      rows = jnp.take(rows, at, axis)
    return value + jnp.broadcast_to(rows, value.shape)


def folds_of(ties: Ties, removal: Removal) -> dict[Equation, Fold]:
  """Returns what is to be added to which equation's value."""
  found = {}
  with jax.ensure_compile_time_eval(), jax.numpy_rank_promotion('allow'):
    for one in ties.sums_found:
      if (value := _left_by(ties, removal, one)) is not None and value.any():
        found[one.equation] = _fold(ties, removal, one, value)
  return found


def _left_by(ties, removal, one: Sum):
  """What those indices add that go; None where none goes."""
  ins = [removal.constants.values[number] for number in one.equation.ins]
  shape = [1] * len(ins[0].shape)
  goes = np.zeros(shape, bool)
  for axis in one.axes[0]:
    at = removal.gone[ties.roots[one.operands[0][axis]]]
    goes = goes | at.reshape([-1 if i == axis else 1 for i in range(len(shape))])
  if not goes.any():
    return None
  parts = [known.fixed_part() for known in ins]
  parts[0] = np.where(goes, parts[0], np.zeros((), parts[0].dtype))
  if not all(part.any() for part in parts):
    return None
  if len(parts) > 1:
    return product(one.equation, ins, *parts)
  [axes] = one.axes
  return known_of.spread(parts[0], ins[0].shape, axes).sum(tuple(axes))


def _fold(ties, removal, one: Sum, value) -> Fold:
  axes = ties.axes[one.equation.outs[0]]
  for i, labels in enumerate(axes):
    if value.shape[i] != 1:
      value = np.take(value, np.flatnonzero(~removal.gone[ties.roots[labels]]), i)
  value = known_of.rounded(known_of.fixed(value)).value
  places = {}
  for i, labels in enumerate(axes):
    if value.shape[i] > 1 and not removal.gone[ties.roots[labels]].any():
      rows, at = _rows(value, i)
      if len(rows) <= min(ROWS, value.shape[i] // 2):
        value, places[i] = np.take(value, rows, i), at
  return Fold(value, places)


def _rows(value, axis):
  """Which places along an axis are the first of their kind, and of which kind each is."""
  slices, close = np.moveaxis(value, axis, 0), known_of.ROUNDING * np.abs(value).max()
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
