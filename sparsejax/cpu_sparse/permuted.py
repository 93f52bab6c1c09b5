"""Evaluates the equations between products on values with permuted axes.

Equations without a rule in `RULES` get their operands transposed to the program's order.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules import entrywise
from sparsejax.cpu_sparse.fused_layers import Value
from sparsejax.sparsity.program.equations import Equation
from sparsejax.sparsity.program.rules.shapes import matching_axes


def compute(eqn: Equation, ins: Sequence[Value]) -> list[Value]:
  """Returns the outputs of an equation, in the axis order of its inputs where that is possible."""
  if any(value.is_permuted for value in ins):
    rule = RULES.get(eqn.name)
    out = rule(eqn, ins) if rule else None
    if out is not None:
      return [out]
  return [Value(out) for out in eqn.bind([value.in_program_order for value in ins])]


# Each rule returns the equation's only output, or None if it needs operands in program order.


def _entrywise(eqn: Equation, ins: Sequence[Value]) -> Value | None:
  """Computes an entrywise function in the axis order of its first permuted operand."""
  ranks = {jnp.ndim(value.array) for value in ins} - {0}
  if len(ranks) != 1 or len(eqn.out_shapes) != 1:
    return None
  order = next(value.order for value in ins if value.is_permuted)
  operands = [value.transposed_to(order) if jnp.ndim(value.array) else value.array for value in ins]
  return Value(eqn.bind(operands)[0], order)


def _reduction(eqn: Equation, ins: Sequence[Value]) -> Value | None:
  """Reduces over the stored axes that correspond to the program's."""
  if len(ins) != 1 or eqn.params.get('out_sharding') is not None:
    return None
  [x] = ins
  reduced = eqn.params['axes']
  [out] = eqn.bind([x.array], axes=tuple(sorted(x.order.index(axis) for axis in reduced)))
  return Value(out, _renumbered([axis for axis in x.order if axis not in reduced]))


def _renumbered(axes: Sequence[int]) -> tuple[int, ...]:
  """Returns the rank of each axis among the axes: (0, 3, 1) becomes (0, 2, 1)."""
  return tuple(sorted(axes).index(axis) for axis in axes)


def _squeeze(eqn: Equation, ins: Sequence[Value]) -> Value:
  """Removes axes of size 1."""
  [x] = ins
  removed = eqn.params['dimensions']
  kept = [axis for axis in x.order if axis not in removed]
  shape = [x.array.shape[x.order.index(axis)] for axis in kept]
  return Value(x.array.reshape(shape), _renumbered(kept))


def _transpose(eqn: Equation, ins: Sequence[Value]) -> Value:
  """Renumbers the axes, without copying the array."""
  [x] = ins
  return Value(x.array, tuple(eqn.params['permutation'].index(axis) for axis in x.order))


def _reshape(eqn: Equation, ins: Sequence[Value]) -> Value | None:
  """Splits and merges axes; the results keep the relative order of the axes they came from."""
  [x], [old], [new] = ins, eqn.in_shapes, eqn.out_shapes
  groups = matching_axes(old, new)
  if eqn.params.get('dimensions') is not None or not groups:
    return None
  # The batch stays last. The axes of one group have to be adjacent, in the program's order.
  groups.sort(key=lambda group: min(x.order.index(axis) for axis in group[0]))
  before, after = ([*itertools.chain(*part)] for part in zip(*groups, strict=True))
  # Axes of size 1 belong to no group; they come first.
  array = x.transposed_to((*(axis for axis in x.order if axis not in before), *before))
  order = (*(axis for axis in range(len(new)) if axis not in after), *after)
  return Value(array.reshape([new[axis] for axis in order]), order)


# Windows

MAX_SLICES = 9  # elements of a window; larger windows are left to XLA's reduce_window


def _windows(eqn: Equation, ins: Sequence[Value]) -> Value:
  """Computes the maximum, minimum or sum of every window.

  Small windows without padding and dilation are combined from strided slices, one for each element
  of a window, which XLA computes faster than its own `reduce_window` on CPU.
  """
  [x] = ins
  names = ('window_dimensions', 'window_strides', 'padding', 'base_dilation', 'window_dilation')
  settings = {name: tuple(eqn.params[name][axis] for axis in x.order) for name in names}
  dims, strides = settings['window_dimensions'], settings['window_strides']
  is_dilated = max(*settings['base_dilation'], *settings['window_dilation']) > 1
  if is_dilated or np.any(settings['padding']) or np.prod(dims) > MAX_SLICES:
    return Value(eqn.bind([x.array], **settings)[0], x.order)
  out_shape = [eqn.out_shapes[0][axis] for axis in x.order]
  slices = [
    jax.lax.slice(
      x.array,
      start,
      [at + (n - 1) * stride + 1 for at, n, stride in zip(start, out_shape, strides, strict=True)],
      strides,
    )
    for start in itertools.product(*map(range, dims))
  ]
  return Value(functools.reduce(COMBINE[eqn.name], slices), x.order)


COMBINE = {
  'reduce_window_max': jnp.maximum,
  'reduce_window_min': jnp.minimum,
  'reduce_window_sum': jnp.add,
}

# Concatenation and padding


def _concatenate(eqn: Equation, ins: Sequence[Value]) -> Value:
  """Concatenates in the axis order of the first permuted operand."""
  order = next(value.order for value in ins if value.is_permuted)
  operands = [value.transposed_to(order) for value in ins]
  return Value(eqn.bind(operands, dimension=order.index(eqn.params['dimension']))[0], order)


def _pad(eqn: Equation, ins: Sequence[Value]) -> Value:
  """Pads the stored axes as the program pads its own."""
  x, filler = ins
  config = tuple(eqn.params['padding_config'][axis] for axis in x.order)
  return Value(eqn.bind([x.array, filler.array], padding_config=config)[0], x.order)


RULES: dict[str, Callable[[Equation, Sequence[Value]], Value | None]] = {
  **dict.fromkeys(entrywise.RULES, _entrywise),
  **{f'reduce_{name}': _reduction for name in ('sum', 'max', 'min', 'prod', 'and', 'or')},
  **dict.fromkeys(COMBINE, _windows),
  'squeeze': _squeeze,
  'transpose': _transpose,
  'reshape': _reshape,
  'concatenate': _concatenate,
  'pad': _pad,
}
