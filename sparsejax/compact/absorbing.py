"""Removes units from the parameters of a function and adds their constants to its biases.

A removed unit may contribute a constant to a sum. This constant is added to the bias that follows
the sum, or subtracted from the running mean of the BatchNorm that follows it. A unit is kept if
neither follows, or if zero padding makes its constant differ between positions; the plan gives the
reason.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact import removal
from sparsejax.compact.folds import Fold, contributing, folds_of
from sparsejax.compact.planning import Analysis, Plan, analyse, on_host, plan_of
from sparsejax.compact.ties import Ties
from sparsejax.compact.trace import known
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program.equations import Equation, Program

# Reasons that pin indices.
NO_BIAS = 'a constant that no bias takes'
FIXED_WIDTH = 'a fixed width'
# Primitives that return the elements of their operand in the same order.
COPYING = frozenset(['convert_element_type', 'copy', 'reshape', 'squeeze', 'stop_gradient'])
COPYING_OR_BROADCASTING = COPYING | {'broadcast_in_dim'}


class Absorber(NamedTuple):
  """The parameter that absorbs a constant.

  Attributes:
    parameter: its index among the leaves of the parameters.
    sign: 1 if the constant is added to it, -1 if it is subtracted.
  """

  parameter: int
  sign: int


def absorb(
  function: Callable[..., Any], params: Any, *examples: Any, unchanged: Collection[str] = ()
) -> tuple[Any, Plan]:
  """Returns smaller parameters for which a function has the same outputs, and the plan.

  Unlike `shrink` this makes no new function. The given one must accept parameters of other sizes,
  or there must be one like it that does, such as the same network built with smaller layers.

  Args:
    function: takes (params, *examples), as in `shrink`.
    params: a pytree of arrays.
    examples: the function's other inputs, as arrays or `jax.ShapeDtypeStruct`.
    unchanged: the paths of the parameters whose last axis must keep all its indices.

  Returns:
    The parameters, in the same structure, and the plan.

  Raises:
    ValueError: if params have no values.

  Example:
    >>> params = {'a': np.ones((3, 2)), 'b': np.ones((2, 2)), 'c': np.zeros(2)}
    >>> params['a'][:, 1] = 0.0
    >>> small, plan = absorb(lambda p, x: jnp.cos(x @ p['a']) @ p['b'] + p['c'], params, np.ones(3))
    >>> small['b'].shape, small['c'].tolist()
    ((1, 2), [1.0, 1.0])
  """
  given = on_host(params)
  analysis = analyse(function, given, examples)
  assert analysis is not None
  trace, ties, _, _ = analysis
  if unchanged:
    for path, number in zip(tree.paths(params), trace.program.ins, strict=False):
      if path in unchanged:
        ties.labels.pin(ties.axes[number][-1], FIXED_WIDTH)
    analysis = _with_new_removal(analysis, given, examples)
  absorbers = _Absorbers(trace.program, ties, len(jax.tree.leaves(params)))
  while unabsorbed := _unabsorbed(absorbers, analysis):
    for one in ties.sums_found:
      if one.equation in unabsorbed:
        for labels in contributing(ties, analysis.removal, one):
          ties.labels.pin(labels, NO_BIAS)
    analysis = _with_new_removal(analysis, given, examples)
  plan = plan_of(given, analysis)
  return _add_constants(plan.slice(params), absorbers, folds_of(ties, analysis.removal)), plan


def _add_constants(params: Any, absorbers: '_Absorbers', folds: Mapping[Equation, Fold]) -> Any:
  """Returns the parameters with the constant of each fold added to its absorber.

  Args:
    params: the smaller parameters.
    absorbers: finds the parameter for each constant.
    folds: {equation of a sum: the constant that removed units contribute to it}.
  """
  leaves, structure = jax.tree.flatten(params)
  for equation, fold in folds.items():
    if fold.rows.any():
      absorber = absorbers.find(equation, fold)
      assert absorber is not None
      leaf = jnp.asarray(leaves[absorber.parameter])
      constant = jnp.asarray(absorber.sign * fold.rows, leaf.dtype)
      added = constant.reshape(leaf.shape) if constant.size > 1 else constant.item()
      leaves[absorber.parameter] = leaf + added
  return jax.tree.unflatten(structure, leaves)


def _with_new_removal(analysis: Analysis, params: Any, examples: Any) -> Analysis:
  """Returns the analysis with the largest removal that is possible with its current pins."""
  ins = [known.unknown(jnp.shape(x)) for x in jax.tree.leaves(examples)]
  largest = removal.largest(analysis.trace, analysis.ties, jax.tree.leaves(params), ins)
  return analysis._replace(removal=largest)


def _unabsorbed(absorbers: '_Absorbers', analysis: Analysis) -> set[Equation]:
  """Returns the equations whose constants no parameter can absorb."""
  folds = folds_of(analysis.ties, analysis.removal)
  return {
    equation
    for equation, fold in folds.items()
    if fold.rows.any() and absorbers.find(equation, fold) is None
  }


class _Absorbers:
  """Finds the parameter that can absorb the constant of an equation.

  The constant of a sum can be absorbed by a parameter that is added to the sum or subtracted from
  it, if nothing else reads either of them.
  """

  def __init__(self, program: Program, ties: Ties, parameters: int):
    self._ties = ties
    self._parameters = {number: i for i, number in enumerate(program.ins[:parameters])}
    self._makers: Mapping[int, Equation] = {
      number: eqn for eqn in program.equations for number in eqn.outs
    }
    self._readers: dict[int, list[Equation]] = {}
    for eqn in program.equations:
      for number in eqn.ins:
        self._readers.setdefault(number, []).append(eqn)
    self._outs = set(program.outs)

  def find(self, equation: Equation, fold: Fold) -> Absorber | None:
    """Returns the parameter that absorbs a constant, or None if there is none.

    Args:
      equation: the sum.
      fold: its constant.
    """
    if fold.places or sum(size != 1 for size in fold.rows.shape) > 1:
      return None
    [value] = equation.outs
    while (reader := self._only_reader(value)) is not None:
      if reader.name in COPYING and reader.out_shapes == equation.out_shapes:
        [value] = reader.outs
        continue
      if reader.name not in ('add', 'sub'):
        return None
      [other] = [number for number in reader.ins if number != value] or [value]
      parameter = self._parameter(other)
      if parameter is None or not self._matches(parameter, equation.outs[0], fold):
        return None
      return Absorber(self._parameters[parameter], 1 if reader.name == 'add' else -1)
    return None

  def _matches(self, parameter: int, number: int, fold: Fold) -> bool:
    """Returns whether a parameter varies along the same axis as a constant.

    A constant whose entries are all equal matches any parameter.

    Args:
      parameter: the number of the parameter in the program.
      number: the number of the sum.
      fold: the constant of the sum.
    """
    varying = [axis for axis, size in enumerate(fold.rows.shape) if size != 1]
    if not varying:
      return True
    wide = [labels for labels in self._ties.axes[parameter] if len(labels) != 1]
    roots = self._ties.roots
    return len(wide) == 1 and np.array_equal(
      roots[wide[0]], roots[self._ties.axes[number][varying[0]]]
    )

  def _only_reader(self, number: int) -> Equation | None:
    """Returns the only equation that reads a value; None if others do too, or it is an output."""
    readers = self._readers.get(number, [])
    return readers[0] if len(readers) == 1 and number not in self._outs else None

  def _parameter(self, number: int) -> int | None:
    """Returns the number of the parameter that a value is a copy of.

    It is None if the value is not a copy, or if anything else reads the parameter or the copies
    in between.
    """
    while self._only_reader(number) is not None:
      if number in self._parameters:
        return number
      maker = self._makers.get(number)
      if maker is None or maker.name not in COPYING_OR_BROADCASTING:
        return None
      [number] = maker.ins
    return None
