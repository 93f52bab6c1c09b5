"""Equations between products, computed on values whose axes lie in another order.

What is not known here gets its values in the program's own order.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules import entrywise
from sparsejax.compact.trace.equations import Equation
from sparsejax.cpu_sparse.layers import Value
from sparsejax.sparsity.program.rules.shapes import matching_axes


def compute(eqn: Equation, ins: Sequence[Value]) -> list[Value]:
  """Returns what an equation makes of values, lying as they do where that is possible."""
  if any(value.is_moved for value in ins):
    rule = RULES.get(eqn.name)
    found = rule(eqn, ins) if rule else None
    if found is not None:
      return [found]
  return [Value(made) for made in eqn.bind([value.plain for value in ins])]


def _entrywise(eqn: Equation, ins: Sequence[Value]) -> Value | None:
  ranks = {jnp.ndim(value.array) for value in ins} - {0}
  if len(ranks) != 1 or len(eqn.out_shapes) != 1:
    return None
  order = next(value.order for value in ins if value.is_moved)
  given = [value.lying(order) if jnp.ndim(value.array) else value.array for value in ins]
  return Value(eqn.bind(given)[0], order)


def _reduction(eqn: Equation, ins: Sequence[Value]) -> Value | None:
  if len(ins) != 1 or eqn.params.get('out_sharding') is not None:
    return None
  [x] = ins
  gone = eqn.params['axes']
  [made] = eqn.bind([x.array], axes=tuple(sorted(x.order.index(axis) for axis in gone)))
  return Value(made, _ranks([axis for axis in x.order if axis not in gone]))


def _ranks(axes: Sequence[int]) -> tuple[int, ...]:
  """The same order, of axes that are numbered without gaps."""
  return tuple(sorted(axes).index(axis) for axis in axes)


def _squeeze(eqn: Equation, ins: Sequence[Value]) -> Value:
  [x] = ins
  gone = eqn.params['dimensions']
  kept = [axis for axis in x.order if axis not in gone]
  return Value(x.array.reshape([x.array.shape[x.order.index(a)] for a in kept]), _ranks(kept))


def _transpose(eqn: Equation, ins: Sequence[Value]) -> Value:
  """Moves nothing: only what the axes are called changes."""
  [x] = ins
  return Value(x.array, tuple(eqn.params['permutation'].index(axis) for axis in x.order))


def _reshape(eqn: Equation, ins: Sequence[Value]) -> Value | None:
  """Splits and merges axes, in the order of those that they were."""
  [x], [old], [new] = ins, eqn.in_shapes, eqn.out_shapes
  groups = matching_axes(old, new)
  if eqn.params.get('dimensions') is not None or not groups:
    return None
  # The batch stays where it is, last; axes of one group have to lie side by side.
  groups.sort(key=lambda group: min(x.order.index(axis) for axis in group[0]))
  before, after = ([*itertools.chain(*part)] for part in zip(*groups, strict=True))
  lies = x.lying((*(i for i in x.order if i not in before), *before))  # those of size 1 first
  order = (*(i for i in range(len(new)) if i not in after), *after)
  return Value(lies.reshape([new[i] for i in order]), order)


# Windows

MOST_SLICES = 9  # of a window; a larger one is left to XLA


def _windows(eqn: Equation, ins: Sequence[Value]) -> Value:
  """The largest, smallest or sum of every window; slices, where windows lie side by side."""
  [x] = ins
  names = ('window_dimensions', 'window_strides', 'padding', 'base_dilation', 'window_dilation')
  moved = {name: tuple(eqn.params[name][axis] for axis in x.order) for name in names}
  dims, strides = moved['window_dimensions'], moved['window_strides']
  dilated = max(*moved['base_dilation'], *moved['window_dilation']) > 1
  if dilated or np.any(moved['padding']) or np.prod(dims) > MOST_SLICES:
    return Value(eqn.bind([x.array], **moved)[0], x.order)
  made = [eqn.out_shapes[0][axis] for axis in x.order]
  slices = [
    jax.lax.slice(
      x.array,
      start,
      [at + (n - 1) * stride + 1 for at, n, stride in zip(start, made, strides, strict=True)],
      strides,
    )
    for start in itertools.product(*map(range, dims))
  ]
  return Value(functools.reduce(OF_WINDOWS[eqn.name], slices), x.order)


OF_WINDOWS = {
  'reduce_window_max': jnp.maximum,
  'reduce_window_min': jnp.minimum,
  'reduce_window_sum': jnp.add,
}

# Concatenate, pad


def _concatenate(eqn: Equation, ins: Sequence[Value]) -> Value:
  order = next(value.order for value in ins if value.is_moved)
  given = [value.lying(order) for value in ins]
  return Value(eqn.bind(given, dimension=order.index(eqn.params['dimension']))[0], order)


def _pad(eqn: Equation, ins: Sequence[Value]) -> Value:
  x, filler = ins
  config = tuple(eqn.params['padding_config'][axis] for axis in x.order)
  return Value(eqn.bind([x.array, filler.array], padding_config=config)[0], x.order)


RULES: dict[str, Callable[[Equation, Sequence[Value]], Value | None]] = {
  **dict.fromkeys(entrywise.RULES, _entrywise),
  **{f'reduce_{name}': _reduction for name in ('sum', 'max', 'min', 'prod', 'and', 'or')},
  **dict.fromkeys(OF_WINDOWS, _windows),
  'squeeze': _squeeze,
  'transpose': _transpose,
  'reshape': _reshape,
  'concatenate': _concatenate,
  'pad': _pad,
}
