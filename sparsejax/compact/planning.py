"""What can go from a function's parameters, and why the rest stays."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparsejax.compact import removal
from sparsejax.compact.removal import Removal
from sparsejax.compact.ties import Ties
from sparsejax.compact.trace import known
from sparsejax.compact.trace.equations import Trace, flatten
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program import traced

Indices = Mapping[str, Mapping[int, tuple[int, ...]]]  # {path: {axis: indices}}


class Tie(NamedTuple):
  """What only goes together: a unit with all that makes it and all that reads it.

  Attributes:
    slices: {path: {axis: indices}} of the parameters.
    removed: whether it goes.
  """

  slices: Indices
  removed: bool


@dataclasses.dataclass(frozen=True)
class Plan:
  """What goes from a function's parameters.

  Attributes:
    shapes: {path: (shape before, shape after)}.
    removed: {path: {axis: indices that go}}, without axes that lose none.
    pinned: {path: {axis: {what keeps them: how many indices}}}: primitives by name, 'an input', 'an
      output', or 'no sum', where none reads them that could do without.
    ties: every unit that could go, with all slices of parameters that go with it.
  """

  shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
  removed: Indices
  pinned: Mapping[str, Mapping[int, Mapping[str, int]]]
  ties: tuple[Tie, ...]

  def kept(self) -> list[list[np.ndarray]]:
    """Returns for each axis of each parameter which of its indices stay."""
    return [
      [_without(size, self.removed.get(path, {}).get(i, ())) for i, size in enumerate(before)]
      for path, (before, _) in self.shapes.items()
    ]

  def slice(self, params: Any) -> Any:
    """Returns what stays of parameters, in the same structure."""
    leaves = []
    for leaf, kept in zip(jax.tree.leaves(params), self.kept(), strict=True):
      for axis, stays in enumerate(kept):
        if not stays.all():
          leaf = jnp.take(jnp.asarray(leaf), np.flatnonzero(stays), axis)
      leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _without(size, gone) -> np.ndarray:
  stays = np.ones(size, bool)
  stays[list(gone)] = False
  return stays


class Analysis(NamedTuple):
  """All that is known of a function at inputs of some shapes.

  Attributes:
    trace: its program.
    ties: what goes together in it.
    removal: what goes.
    out_tree: the structure of what it returns.
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
  """Returns what goes from a function's parameters at inputs of these shapes.

  Args:
    function: of (params, *examples).
    params: its parameters, whole, as NumPy's arrays or random keys.
    examples: arrays, or shapes.
    kept: which indices are to stay; None finds it.

  Returns:
    None where what is to go can not.
  """
  leaves = jax.tree.leaves(params)
  closed, made = traced(function, params, *examples)
  trace = flatten(closed)
  shapes = [tuple(var.aval.shape) for var in closed.jaxpr.invars]
  ties = Ties(trace, shapes, len(leaves))
  ins = [known.unknown(shape) for shape in shapes[len(leaves) :]]
  if kept is None:
    found = removal.largest(trace, ties, leaves, ins)
  else:
    found = removal.the_same(trace, ties, leaves, kept, ins)
  return None if found is None else Analysis(trace, ties, found, jax.tree.structure(made))


def on_host(params: Any) -> Any:
  """Returns parameters as NumPy's arrays, and random keys as they are.

  Raises:
    ValueError: parameters that have no values yet.
  """
  leaves = jax.tree.leaves(params)
  if any(isinstance(leaf, Tracer | jax.ShapeDtypeStruct) for leaf in leaves):
    raise ValueError(
      'params must be arrays with values, for what can go is read off their zeros: call '
      'sparsejax.compact outside jax.jit'
    )
  return jax.tree.map(lambda x: x if _is_key(x) else np.asarray(x, jnp.result_type(x)), params)


def _is_key(leaf) -> bool:
  return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended)


def plan(function: Callable[..., Any], params: Any, *examples: Any) -> Plan:
  """Returns what can go from a function's parameters, without making them smaller.

  A unit goes where every sum that reads it gets zero from it, or a constant that no parameter that
  stays has a part in.

  Args:
    function: takes (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`; it is
      traced, never run.
    params: a pytree of arrays.
    examples: what else the function takes, or its shapes.

  Raises:
    ValueError: params without values.

  Example:
    >>> params = {'a': np.ones((3, 4)), 'b': np.ones((4, 2))}
    >>> params['a'][:, 1] = 0.0  # nothing reaches unit 1,
    >>> params['b'][2] = 0.0  # and nothing reads unit 2
    >>> found = plan(lambda p, x: jnp.tanh(x @ p['a']) @ p['b'], params, np.ones((1, 3)))
    >>> found.removed
    {'a': {1: (1, 2)}, 'b': {0: (1, 2)}}
    >>> found.pinned
    {'a': {0: {'an input': 3}}, 'b': {1: {'an output': 2}}}
    >>> found.ties[0]
    Tie(slices={'a': {1: (0,)}, 'b': {0: (0,)}}, removed=False)
  """
  whole = on_host(params)
  analysis = analyse(function, whole, examples)
  assert analysis is not None
  return plan_of(whole, analysis)


def plan_of(params: Any, analysis: Analysis) -> Plan:
  """Returns an analysis in the parameters' own words."""
  ties, gone, reasons = analysis.ties, analysis.removal.gone, analysis.ties.labels.reasons()
  shapes, removed, pinned = {}, {}, {}
  units = collections.defaultdict(lambda: collections.defaultdict(dict))
  named = tree.named_leaves(params)
  for (path, leaf), number in zip(named.items(), analysis.trace.program.ins, strict=False):
    found = [ties.roots[labels] for labels in ties.axes[number]]
    after = tuple(int(np.count_nonzero(~gone[roots])) for roots in found)
    shapes[path] = (jnp.shape(leaf), after)
    for axis, roots in enumerate(found):
      if gone[roots].any():
        removed.setdefault(path, {})[axis] = tuple(np.flatnonzero(gone[roots]).tolist())
      if why := _counts(roots, reasons):
        pinned.setdefault(path, {})[axis] = why
      for i, root in enumerate(roots.tolist()):
        if root not in reasons:
          units[root][path].setdefault(axis, []).append(i)
  return Plan(
    shapes, removed, pinned, tuple(_tie(u, bool(gone[root])) for root, u in units.items())
  )


def _counts(roots, reasons) -> dict[str, int]:
  """How many indices each reason keeps, the most common first."""
  found = collections.Counter(why for root in roots.tolist() for why in reasons.get(root, ()))
  return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _tie(slices, is_removed) -> Tie:
  bare = {path: {axis: tuple(i) for axis, i in axes.items()} for path, axes in slices.items()}
  return Tie(bare, is_removed)
