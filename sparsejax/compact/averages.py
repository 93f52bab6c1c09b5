"""Constants that BatchNorm makes of its averages, which training mode would replace by others.

In evaluation a channel whose inputs are all zero is a constant, computed from its running mean and
variance. In training mode the batch has mean 0 and variance 0 there, which gives another constant.
"""

from collections.abc import Sequence

import numpy as np

from sparsejax.compact.folds import contributing
from sparsejax.compact.removal import Removal
from sparsejax.compact.ties import Ties
from sparsejax.compact.trace.equations import Equation, Trace

ROOTS = frozenset(['rsqrt', 'sqrt'])
# The primitives that may stand between a variance and its root, besides an added epsilon.
BEFORE = frozenset(
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
  """
  roots_of = [
    ties.roots[labels] for one in ties.sums_found for labels in contributing(ties, removal, one)
  ]
  contributes = np.unique(np.concatenate(roots_of)) if roots_of else np.zeros(0, int)
  if not contributes.size:
    return ()
  found, variances = [], _variances(trace)
  for number, path in zip(trace.program.ins, paths, strict=False):
    if number in variances:
      roots = np.concatenate([ties.roots[labels] for labels in ties.axes[number]])
      if count := int(np.isin(roots, contributes).sum()):
        found.append(
          f"'{path}': removed channels contribute constants ({count}), which BatchNorm computes "
          'from its averages, and otherwise in training mode'
        )
  return tuple(found)


def _variances(trace: Trace) -> set[int]:
  """Returns the values whose roots are taken, traced back to the inputs of the program."""
  makers: dict[int, Equation] = {n: eqn for eqn in trace.program.equations for n in eqn.outs}
  ahead = [n for eqn in trace.program.equations if eqn.name in ROOTS for n in eqn.ins]
  found = set()
  while ahead:
    number = ahead.pop()
    found.add(number)
    if number in makers and makers[number].name in BEFORE:
      ahead += makers[number].ins
  return found
