"""Finds BatchNorms that would give removed channels other constants in training mode.

In evaluation mode, BatchNorm maps a channel of zeros to a constant computed from its running mean
and variance. In training mode it uses the mean and variance of the batch, which are zero there, and
the constant differs. A smaller network in which the constant was folded into a bias then
does not train like the whole network with masks.
"""

from collections.abc import Sequence

import numpy as np

from sparsejax.compact.folds import contributing
from sparsejax.compact.removal import Removal
from sparsejax.compact.ties import Ties
from sparsejax.sparsity.program.equations import Equation, Trace

ROOTS = frozenset(['rsqrt', 'sqrt'])
# The primitives that may be applied to a variance before its root is taken; `add` adds an epsilon.
BEFORE_ROOT = frozenset(
  ['add', 'max', 'broadcast_in_dim', 'convert_element_type', 'copy', 'reshape', 'squeeze']
)


def reasons_against_training(
  trace: Trace, ties: Ties, removal: Removal, paths: Sequence[str]
) -> tuple[str, ...]:
  """Returns one line for each variance whose removed channels contribute a constant.

  A variance is a parameter whose root the program takes, after adding at most an epsilon.

  Args:
    trace: the program.
    ties: its tied indices.
    removal: its removed indices.
    paths: the paths of its parameters, in order.

  Returns:
    A line for each variance, with its path and the number of removed channels.
  """
  roots_of = [
    ties.roots[labels] for one in ties.sums_found for labels in contributing(ties, removal, one)
  ]
  contributing_roots = np.unique(np.concatenate(roots_of)) if roots_of else np.zeros(0, int)
  if not contributing_roots.size:
    return ()
  reasons = []
  variances = _variances(trace)
  for number, path in zip(trace.program.ins, paths, strict=False):
    if number in variances:
      roots = np.concatenate([ties.roots[labels] for labels in ties.axes[number]])
      if count := int(np.isin(roots, contributing_roots).sum()):
        reasons.append(
          f"'{path}': BatchNorm gives removed channels constants ({count}) that it computes from "
          'its running averages, and different ones in training mode'
        )
  return tuple(reasons)


def _variances(trace: Trace) -> set[int]:
  """Returns the numbers of the values that become operands of a root, program inputs included."""
  makers: dict[int, Equation] = {n: eqn for eqn in trace.program.equations for n in eqn.outs}
  pending = [n for eqn in trace.program.equations if eqn.name in ROOTS for n in eqn.ins]
  variances = set()
  while pending:
    number = pending.pop()
    variances.add(number)
    if number in makers and makers[number].name in BEFORE_ROOT:
      pending += makers[number].ins
  return variances
