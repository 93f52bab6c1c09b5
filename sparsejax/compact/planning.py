"""The plan of which units a function can lose, and why it must keep the others."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparsejax.compact import removal
from sparsejax.compact.averages import reasons_against_training
from sparsejax.compact.removal import Removal
from sparsejax.compact.ties import Ties
from sparsejax.compact.trace import known
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program import traced
from sparsejax.sparsity.program.equations import Trace, flatten

Indices = Mapping[str, Mapping[int, tuple[int, ...]]]  # {path: {axis: indices}}


class Tie(NamedTuple):
  """A unit: the slices of parameters that can only be removed together.

  Attributes:
    slices: {path: {axis: indices}}, of the parameters that make the unit or read it.
    removed: whether the unit is removed.
  """

  slices: Indices
  removed: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """The indices removed from a function's parameters, and the reasons that keep others.

  Attributes:
    shapes: {path: (shape before, shape after)}.
    removed: {path: {axis: removed indices}}, without axes that lose none.
    pinned: {path: {axis: {reason: number of indices that must be kept for it}}}. A reason is the
      name of a primitive, 'an input', 'an output', or 'no sum' where no sum reads the indices.
    ties: every unit that could be removed, whether or not it is.
    reasons: why training the smaller network with BatchNorm in training mode differs from training
      the whole one with masks, one line for each variance concerned.
  """

  shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
  removed: Indices
  pinned: Mapping[str, Mapping[int, Mapping[str, int]]]
  ties: tuple[Tie, ...]
  reasons: tuple[str, ...] = ()

  @property
  def trains_on(self) -> bool:
    """Whether training may go on with BatchNorm in training mode."""
    return not self.reasons

  def kept(self) -> list[list[np.ndarray]]:
    """Returns, for each axis of each parameter, a boolean array of whether each index is kept."""
    return [
      [_all_but(self.removed.get(path, {}).get(i, ()), size) for i, size in enumerate(before)]
      for path, (before, _) in self.shapes.items()
    ]

  def slice(self, params: Any) -> Any:
    """Returns the kept entries of parameters, in the same structure."""
    leaves = []
    for leaf, kept in zip(jax.tree.leaves(params), self.kept(), strict=True):
      for axis, is_kept in enumerate(kept):
        if not is_kept.all():
          leaf = jnp.take(jnp.asarray(leaf), np.flatnonzero(is_kept), axis)
      leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _all_but(removed: Sequence[int], size: int) -> np.ndarray:
  """Returns a boolean array of a size, False at the removed indices."""
  is_kept = np.ones(size, bool)
  is_kept[list(removed)] = False
  return is_kept


class Analysis(NamedTuple):
  """The analysis of a function at inputs of given shapes.

  Attributes:
    trace: its program.
    ties: its tied indices.
    removal: its removed indices.
    out_tree: the structure of its outputs.
  """

  trace: Trace
  ties: Ties
  removal: Removal
  out_tree: Any


def analyse(
  function: Callable[..., Any],
  params: Any,
  examples: Sequence[Any],
  kept: Sequence[Sequence[np.ndarray]] | None = None,
) -> Analysis | None:
  """Returns which indices of its parameters a function can lose, at inputs of these shapes.

  Args:
    function: takes (params, *examples).
    params: its parameters, whole, as NumPy arrays or random keys.
    examples: its other inputs, as arrays or shapes.
    kept: for each axis of each parameter, whether each index is kept; None keeps as few as it can.

  Returns:
    The analysis, or None if the function cannot lose exactly the indices that `kept` leaves out.
  """
  leaves = jax.tree.leaves(params)
  trace, ties, out_tree = _ties_of(function, params, examples)
  ins = [known.unknown(jnp.shape(x)) for x in jax.tree.leaves(examples)]
  if kept is None:
    found = removal.largest(trace, ties, leaves, ins)
  else:
    found = removal.keeping(trace, ties, leaves, kept, ins)
  return None if found is None else Analysis(trace, ties, found, out_tree)


def _ties_of(
  function: Callable[..., Any], params: Any, examples: Sequence[Any]
) -> tuple[Trace, Ties, Any]:
  """Returns the program of a function, its tied indices, and the structure of its outputs."""
  closed, made = traced(function, params, *examples)
  trace = flatten(closed)
  shapes = [tuple(var.aval.shape) for var in closed.jaxpr.invars]
  return trace, Ties(trace, shapes, len(jax.tree.leaves(params))), jax.tree.structure(made)


def on_host(params: Any) -> Any:
  """Returns parameters as NumPy arrays, and random keys unchanged.

  Raises:
    ValueError: if a parameter has no value yet, as within jax.jit.
  """
  leaves = jax.tree.leaves(params)
  if any(isinstance(leaf, Tracer | jax.ShapeDtypeStruct) for leaf in leaves):
    raise ValueError(
      'params must be arrays with values, since their zeros decide what is removed: call '
      'sparsejax.compact outside jax.jit'
    )
  return jax.tree.map(lambda x: x if _is_key(x) else np.asarray(x, jnp.result_type(x)), params)


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended)


def plan(function: Callable[..., Any], params: Any, *examples: Any) -> Plan:
  """Returns which units of a function can be removed, without removing them.

  A unit is a feature that passes from one layer to the next, such as a neuron or a channel. It is
  one index of an axis of each parameter that computes or reads it: neuron 1 below is column 1 of
  `a` and row 1 of `b`. These slices are tied, which means that they can only be removed together;
  `Plan.ties` lists them for each unit. Where the outputs of two layers are added, as in a residual
  network, the channels of both layers are tied.

  A unit is removed if every sum that reads it receives zero from it, or a constant that does not
  depend on the remaining parameters. The sums are those of contractions, convolutions and
  reductions. Units that make up the function's inputs or outputs are never removed.

  Args:
    function: takes (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`; it is
      traced, never run.
    params: a pytree of arrays, whose zeros decide which units are removed.
    examples: the function's other inputs, as arrays or `jax.ShapeDtypeStruct`.

  Returns:
    The plan: the shapes before and after, the removed indices, the ties, and the reasons why
    other indices must be kept.

  Raises:
    ValueError: if params have no values.

  Example:
    >>> params = {'a': np.ones((3, 4)), 'b': np.ones((4, 2))}
    >>> params['a'][:, 1] = 0.0  # nothing reaches unit 1,
    >>> params['b'][2] = 0.0  # and nothing reads unit 2
    >>> result = plan(lambda p, x: jnp.tanh(x @ p['a']) @ p['b'], params, np.ones((1, 3)))
    >>> result.removed
    {'a': {1: (1, 2)}, 'b': {0: (1, 2)}}
    >>> result.pinned
    {'a': {0: {'an input': 3}}, 'b': {1: {'an output': 2}}}
    >>> result.ties[0]
    Tie(slices={'a': {1: (0,)}, 'b': {0: (0,)}}, removed=False)
  """
  whole = on_host(params)
  analysis = analyse(function, whole, examples)
  assert analysis is not None
  return plan_of(whole, analysis)


def plan_of(params: Any, analysis: Analysis) -> Plan:
  """Returns the plan of an analysis, by the paths and axes of the parameters."""
  ties, is_removed = analysis.ties, analysis.removal.removed
  reasons = ties.labels.reasons()
  shapes, removed, pinned = {}, {}, {}
  units = collections.defaultdict(lambda: collections.defaultdict(dict))
  named = tree.named_leaves(params)
  for (path, leaf), number in zip(named.items(), analysis.trace.program.ins, strict=False):
    roots_by_axis = [ties.roots[labels] for labels in ties.axes[number]]
    after = tuple(int(np.count_nonzero(~is_removed[roots])) for roots in roots_by_axis)
    shapes[path] = (jnp.shape(leaf), after)
    for axis, roots in enumerate(roots_by_axis):
      if is_removed[roots].any():
        removed.setdefault(path, {})[axis] = tuple(np.flatnonzero(is_removed[roots]).tolist())
      if counts := _count_reasons(roots, reasons):
        pinned.setdefault(path, {})[axis] = counts
      for i, root in enumerate(roots.tolist()):
        if root not in reasons:
          units[root][path].setdefault(axis, []).append(i)
  return Plan(
    shapes=shapes,
    removed=removed,
    pinned=pinned,
    ties=tuple(_tie(unit, bool(is_removed[root])) for root, unit in units.items()),
    reasons=reasons_against_training(analysis.trace, ties, analysis.removal, list(named)),
  )


def _count_reasons(roots: np.ndarray, reasons: Mapping[int, Iterable[str]]) -> dict[str, int]:
  """Returns {reason: number of indices that it keeps}, the most common first."""
  counts = collections.Counter(text for root in roots.tolist() for text in reasons.get(root, ()))
  return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _tie(slices: Mapping[str, Mapping[int, Sequence[int]]], removed: bool) -> Tie:
  """Returns the tie of a unit, with its indices as tuples."""
  indices = {path: {axis: tuple(i) for axis, i in axes.items()} for path, axes in slices.items()}
  return Tie(indices, removed)


def units_of(
  function: Callable[..., Any], params: Any, *examples: Any
) -> dict[str, list[np.ndarray]]:
  """Returns, for each axis of each parameter, the number of the unit of each index.

  Args:
    function: as in `plan`.
    params: a pytree of arrays, or of their shapes; their values are not used.
    examples: as in `plan`.

  Returns:
    {path: [numbers of units]}, one array for each axis. Indices of the same number can only be
    removed together; -1 marks indices that must be kept.

  Example:
    >>> params = {'a': np.ones((3, 2)), 'b': np.ones((2, 4))}
    >>> units = units_of(lambda p, x: jnp.tanh(x @ p['a']) @ p['b'], params, np.ones((1, 3)))
    >>> bool((units['a'][1] == units['b'][0]).all()), units['b'][1].tolist()
    (True, [-1, -1, -1, -1])
  """
  trace, ties, _ = _ties_of(function, params, examples)
  is_pinned = ties.labels.pinned_roots()
  units = {}
  for path, number in zip(tree.paths(params), trace.program.ins, strict=False):
    roots_by_axis = [ties.roots[labels] for labels in ties.axes[number]]
    units[path] = [np.where(is_pinned[roots], -1, roots) for roots in roots_by_axis]
  return units
