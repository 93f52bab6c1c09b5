"""Slices, splits and gathers: an index that is left out is one that the equation does not read."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules.rule import Constants, Graph, Rule, Small, evaluate_known
from sparsejax.compact.trace.known import Known, collapse, compressed, spread
from sparsejax.compact.trace.labels import Axes
from sparsejax.sparsity.program.equations import Equation

# Slice


def _ranges(eqn):
  strides = eqn.params['strides'] or (1,) * len(eqn.out_shapes[0])
  bounds = zip(eqn.params['start_indices'], eqn.params['limit_indices'], strides, strict=True)
  return [slice(*bound) for bound in bounds]


def slice_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  del graph
  return [[labels[taken] for labels, taken in zip(ins[0], _ranges(eqn), strict=True)]]


def slice_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants

  def part(array):
    ranges = zip(_ranges(eqn), array.shape, strict=True)
    return array[tuple(taken if size > 1 else slice(None) for taken, size in ranges)]

  return [Known(part(ins[0].value), part(ins[0].varies), eqn.out_shapes[0])]


def slice_small(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  [value] = values
  for axis, (labels, taken) in enumerate(zip(small.axes(eqn.ins[0]), _ranges(eqn), strict=True)):
    chosen = np.flatnonzero(np.isin(small.kept(labels), np.arange(len(labels))[taken]))
    if len(chosen) != value.shape[axis]:
      value = _part(value, chosen, axis)
  return [value]


def _part(value, chosen, axis):
  """Takes positions along an axis, by a slice if they are evenly spaced."""
  steps = set(np.diff(chosen).tolist()) or {1}
  if not len(chosen) or len(steps) > 1:
    return jnp.take(value, chosen, axis)
  ranges = [slice(None)] * value.ndim
  ranges[axis] = slice(int(chosen[0]), int(chosen[-1]) + 1, steps.pop())
  return value[tuple(ranges)]


# Split


def _pieces(eqn):
  begins = itertools.accumulate(eqn.params['sizes'], initial=0)
  return [slice(b, b + size) for b, size in zip(begins, eqn.params['sizes'], strict=False)]


def split_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  del graph
  along = eqn.params['axis']
  return [[*ins[0][:along], ins[0][along][p], *ins[0][along + 1 :]] for p in _pieces(eqn)]


def split_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants
  along = eqn.params['axis']
  one = ins[0]

  def part(array, piece):
    return (
      array
      if array.shape[along] == 1
      else np.moveaxis(np.moveaxis(array, along, 0)[piece], 0, along)
    )

  made = zip(_pieces(eqn), eqn.out_shapes, strict=True)
  return [Known(part(one.value, piece), part(one.varies, piece), shape) for piece, shape in made]


def split(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  along = eqn.params['axis']
  return eqn.bind(values, sizes=tuple(small.sizes(out)[along] for out in eqn.outs))


# Dynamic slice


def dynamic_slice_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  operand, *_ = ins
  out = []
  for labels, size in zip(operand, eqn.out_shapes[0], strict=True):
    if len(labels) == size:
      out.append(labels)
    else:
      graph.labels.pin(labels, eqn.name)
      out.append(graph.labels.pinned(size, eqn.name))
  return [out]


def dynamic_slice_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  """Returns the entries that all indices of the sliced axes share: any of them may be taken."""
  del constants
  if all(one.is_fixed for one in ins):
    return evaluate_known(eqn, ins)
  operand = compressed(ins[0])
  [shape] = eqn.out_shapes
  taken = [i for i, (n, m) in enumerate(zip(operand.shape, shape, strict=True)) if n != m]
  return [_shared(operand, taken, shape)]


def _shared(operand, taken, shape):
  """Returns the entries that all indices along some axes share; they vary where indices differ."""
  value = operand.value[
    tuple(slice(0, 1) if i in taken else slice(None) for i in range(len(shape)))
  ]
  varies = collapse(operand.varies | (operand.value != value), taken)
  return Known(value, varies, shape)


def dynamic_slice(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  return eqn.bind(values, slice_sizes=small.sizes(eqn.outs[0]))


# Gather: rows of a table


def _through(eqn):
  """Returns [(axis of the operand, axis of the output)] for the axes that are taken whole."""
  numbers = eqn.params['dimension_numbers']
  taken = eqn.params['slice_sizes']
  dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
  kept = [i for i in range(len(eqn.in_shapes[0])) if i not in dropped]
  pairs = zip(kept, numbers.offset_dims, strict=True)
  return [(i, place) for i, place in pairs if taken[i] == eqn.in_shapes[0][i]]


def gather_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  operand, at = ins
  graph.labels.pin_axes(at, eqn.name)
  out: list = [None] * len(eqn.out_shapes[0])
  through = _through(eqn)
  for i, place in through:
    out[place] = operand[i]
  for i, labels in enumerate(operand):
    if i not in [axis for axis, _ in through]:
      graph.labels.pin(labels, eqn.name)
  sizes = zip(out, eqn.out_shapes[0], strict=True)
  return [[graph.labels.pinned(n, eqn.name) if a is None else a for a, n in sizes]]


def gather_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  """Returns the entries that all rows share: the inputs may choose any of them."""
  del constants
  if all(one.is_fixed for one in ins):
    return evaluate_known(eqn, ins)
  operand, at = ins
  through = _through(eqn)
  [shape] = eqn.out_shapes
  taken = [i for i in range(len(operand.shape)) if i not in [axis for axis, _ in through]]
  if not at.is_fixed and 'FILL' in str(eqn.params['mode']):
    operand = operand._replace(varies=operand.varies | (operand.value != 0))  # NaN past the end
  rows = _shared(compressed(operand), taken, operand.shape)
  sizes = [1] * len(shape)
  order = [i for i, _ in through]
  for i, place in through:
    sizes[place] = max(rows.value.shape[i], rows.varies.shape[i])

  def placed(array):
    array = spread(array, rows.shape, [i for i, p in through if sizes[p] != 1])
    return array.transpose([*taken, *order]).reshape(sizes)

  return [Known(placed(rows.value), placed(rows.varies), shape)]


def gather(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  taken = list(eqn.params['slice_sizes'])
  for i, _ in _through(eqn):
    taken[i] = len(small.kept(small.axes(eqn.ins[0])[i]))
  return eqn.bind(values, slice_sizes=tuple(taken))


RULES = {
  'slice': Rule(slice_axes, slice_known, slice_small),
  'split': Rule(split_axes, split_known, split),
  'dynamic_slice': Rule(dynamic_slice_axes, dynamic_slice_known, dynamic_slice),
  'gather': Rule(gather_axes, gather_known, gather),
}
