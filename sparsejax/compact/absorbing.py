"""Smaller parameters for a function whose layers take their sizes from them.

A constant that a removed unit contributes to a sum is added to the bias after that sum, or
subtracted from the running mean of the BatchNorm there. A unit is kept if neither follows, or if a
padded border makes its constant differ between positions; the plan gives the reason.
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
from sparsejax.compact.trace.equations import Equation, Program
from sparsejax.sparsity.leaves import tree

ALONE = 'a constant that no bias takes'
WHOLE = 'a fixed width'
PASSED_ON = frozenset(
  ['broadcast_in_dim', 'convert_element_type', 'copy', 'reshape', 'squeeze', 'stop_gradient']
)


class Home(NamedTuple):
  """The parameter that absorbs a constant.

  Attributes:
    parameter: its index among the leaves.
    sign: 1 if the constant is added to it, -1 if it is subtracted.
  """

  parameter: int
  sign: int


def absorb(
  function: Callable[..., Any], params: Any, *examples: Any, whole: Collection[str] = ()
) -> tuple[Any, Plan]:
  """Returns smaller parameters with which the function itself has the same outputs, and the plan.

  Unlike `shrink` it makes no new function: the given one, or the same network built with smaller
  layers, must accept parameters of other sizes.

  Args:
    function: takes (params, *examples), as in `shrink`.
    params: a pytree of arrays.
    examples: the function's other inputs, as arrays or `jax.ShapeDtypeStruct`.
    whole: the paths of parameters whose last axis must keep all its indices.

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
  if whole:
    for path, number in zip(tree.paths(params), trace.program.ins, strict=False):
      if path in whole:
        ties.labels.pin(ties.axes[number][-1], WHOLE)
    analysis = _anew(analysis, given, examples)
  homes = _Homes(trace.program, ties, len(jax.tree.leaves(params)))
  while homeless := _homeless(homes, analysis):
    for one in ties.sums_found:
      if one.equation in homeless:
        for labels in contributing(ties, analysis.removal, one):
          ties.labels.pin(labels, ALONE)
    analysis = _anew(analysis, given, examples)
  found = plan_of(given, analysis)
  return _with_folds(found.slice(params), homes, folds_of(ties, analysis.removal)), found


def _with_folds(params: Any, homes: '_Homes', folds: Mapping[Any, Any]) -> Any:
  """Returns the parameters with each fold added to the parameter that is its home."""
  leaves, structure = jax.tree.flatten(params)
  for equation, fold in folds.items():
    if fold.rows.any():
      home = homes.of(equation, fold)
      assert home is not None
      leaf = jnp.asarray(leaves[home.parameter])
      rows = jnp.asarray(home.sign * fold.rows, leaf.dtype)
      leaves[home.parameter] = leaf + (rows.reshape(leaf.shape) if rows.size > 1 else rows.item())
  return jax.tree.unflatten(structure, leaves)


def _anew(analysis: Analysis, params, examples) -> Analysis:
  """Returns the analysis with the removal that the pins allow now."""
  ins = [known.unknown(jnp.shape(x)) for x in jax.tree.leaves(examples)]
  found = removal.largest(analysis.trace, analysis.ties, jax.tree.leaves(params), ins)
  return analysis._replace(removal=found)


def _homeless(homes: '_Homes', analysis: Analysis) -> set[Equation]:
  """Returns the equations whose constants no parameter can absorb."""
  folds = folds_of(analysis.ties, analysis.removal)
  return {e for e, fold in folds.items() if fold.rows.any() and homes.of(e, fold) is None}


class _Homes:
  """Finds the parameter that can absorb the constant of an equation."""

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

  def of(self, equation: Equation, fold: Fold) -> Home | None:
    """Returns the parameter that absorbs a constant, or None if there is none."""
    if fold.places or sum(size != 1 for size in fold.rows.shape) > 1:
      return None
    [made] = equation.outs
    while (reader := self._only_reader(made)) is not None:
      if (
        reader.name in PASSED_ON - {'broadcast_in_dim'} and reader.out_shapes == equation.out_shapes
      ):
        [made] = reader.outs
        continue
      if reader.name not in ('add', 'sub'):
        return None
      [other] = [number for number in reader.ins if number != made] or [made]
      parameter = self._parameter(other)
      if parameter is None or not self._is_along(parameter, equation.outs[0], fold):
        return None
      return Home(self._parameters[parameter], 1 if reader.name == 'add' else -1)
    return None

  def _is_along(self, parameter: int, number: int, fold: Fold) -> bool:
    """Returns whether a parameter has an entry for each entry of a constant, or all are equal."""
    varying = [axis for axis, size in enumerate(fold.rows.shape) if size != 1]
    if not varying:
      return True
    wide = [labels for labels in self._ties.axes[parameter] if len(labels) != 1]
    roots = self._ties.roots
    return len(wide) == 1 and np.array_equal(
      roots[wide[0]], roots[self._ties.axes[number][varying[0]]]
    )

  def _only_reader(self, number: int) -> Equation | None:
    readers = self._readers.get(number, [])
    return readers[0] if len(readers) == 1 and number not in self._outs else None

  def _parameter(self, number: int) -> int | None:
    """Returns the only parameter that a value is made of, unchanged, if nothing else reads it."""
    while self._only_reader(number) is not None:
      if number in self._parameters:
        return number
      maker = self._makers.get(number)
      if maker is None or maker.name not in PASSED_ON:
        return None
      [number] = maker.ins
    return None
