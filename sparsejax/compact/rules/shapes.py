"""Primitives that only move entries: an index moves with its entries."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsejax.compact.rules.rule import Constants, Graph, Rule, Small, evaluate_known
from sparsejax.compact.trace.known import Known, compressed, spread, unknown
from sparsejax.compact.trace.labels import Axes
from sparsejax.sparsity.program.equations import Equation
from sparsejax.sparsity.program.rules.shapes import matching_axes


def _moving(function):
  """Returns a rule for known values that moves `value` and `varies` in the same way."""

  def known(constants, eqn, ins):
    del constants
    moved = [function(eqn, array, ins[0].shape) for array in (ins[0].value, ins[0].varies)]
    return [Known(*moved, eqn.out_shapes[0])]

  return known


# Broadcast


def broadcast_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  out = graph.labels.axes(eqn.out_shapes[0])
  for labels, place in zip(ins[0], eqn.params['broadcast_dimensions'], strict=True):
    if len(labels) == len(out[place]):
      out[place] = labels
    else:
      graph.labels.pin(labels, eqn.name)
  return [out]


def _broadcast(eqn, array, shape):
  del shape
  sizes = [1] * len(eqn.out_shapes[0])
  for size, place in zip(array.shape, eqn.params['broadcast_dimensions'], strict=True):
    sizes[place] = size
  return array.reshape(sizes)


def broadcast(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  return eqn.bind(values[:1], shape=small.sizes(eqn.outs[0]))


# Transpose, squeeze, reverse


def transpose_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  del graph
  return [[ins[0][i] for i in eqn.params['permutation']]]


def squeeze_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  squeezed = eqn.params['dimensions']
  for i in squeezed:
    graph.labels.pin(ins[0][i], eqn.name)
  return [[labels for i, labels in enumerate(ins[0]) if i not in squeezed]]


def reverse_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  del graph
  flipped = eqn.params['dimensions']
  return [[labels[::-1] if i in flipped else labels for i, labels in enumerate(ins[0])]]


# Reshape


def reshape_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  labels = graph.labels
  [old], [new] = eqn.in_shapes, eqn.out_shapes
  if eqn.params.get('dimensions') is not None:
    labels.pin_axes(ins[0], eqn.name)
    return [labels.axes(new, eqn.name)]
  out = [labels.pinned(size, eqn.name) if size == 1 else None for size in new]
  for size, axis in zip(old, ins[0], strict=True):
    if size == 1:
      labels.pin(axis, eqn.name)
  for before, after in matching_axes(old, new):
    if len(before) == len(after) == 1:
      out[after[0]] = ins[0][before[0]]
      continue
    flat = _merge(labels, [ins[0][i] for i in before], eqn.name)
    for i, axis in zip(after, _split(labels, flat, [new[i] for i in after], eqn.name), strict=True):
      out[i] = axis
  return [[labels.pinned(n, eqn.name) if a is None else a for a, n in zip(out, new, strict=True)]]


def _merge(labels, axes, why):
  """Merges the labels of axes into one axis: those of the first not fully pinned, repeated."""
  if len(axes) == 1:
    return axes[0]
  free = [i for i, axis in enumerate(axes) if not labels.is_pinned(axis).all()]
  carrier = free[0] if free else 0
  for i, axis in enumerate(axes):
    if i != carrier:
      labels.pin(axis, why)
  shape = [1] * len(axes)
  shape[carrier] = -1
  return np.broadcast_to(axes[carrier].reshape(shape), [len(axis) for axis in axes]).reshape(-1)


def _split(labels, flat, sizes, why):
  """Splits the labels of one axis into several axes: one carries them, the others are pinned."""
  if len(sizes) == 1:
    return [flat]
  box = labels.find(flat).reshape(sizes)
  rows = [np.moveaxis(box, i, 0).reshape(sizes[i], -1) for i in range(len(sizes))]
  carriers = [i for i, row in enumerate(rows) if (row == row[:, :1]).all()]
  carrier = max(carriers, key=lambda i: sizes[i]) if carriers else 0
  row = np.moveaxis(flat.reshape(sizes), carrier, 0).reshape(sizes[carrier], -1)
  for i in range(1, row.shape[1]):  # one index of the carrier is removed whole or not at all
    labels.union(row[:, 0], row[:, i])
  out = [labels.pinned(size, why) if i != carrier else row[:, 0] for i, size in enumerate(sizes)]
  return out


def _reshape(eqn: Equation, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """Reshapes an array of this shape, which may hold equal entries along an axis as one."""
  [new] = eqn.out_shapes
  if all(size == 1 for size in array.shape):
    return array.reshape((1,) * len(new))
  sizes = [1] * len(new)
  if eqn.params.get('dimensions') is not None or not math.prod(shape):
    return np.broadcast_to(array, shape).reshape(new)
  together = matching_axes(shape, new)
  array = array.reshape([n for n, full in zip(array.shape, shape, strict=True) if full != 1])
  full = [n for n in shape if n != 1]
  at = {i: k for k, i in enumerate(i for i, n in enumerate(shape) if n != 1)}
  for before, after in together:
    before = [at[i] for i in before]
    if any(array.shape[i] != 1 for i in before):
      array = spread(array, full, before)
      for i in after:
        sizes[i] = new[i]
  return array.reshape(sizes)


def reshape(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  return eqn.bind(values[:1], new_sizes=small.sizes(eqn.outs[0]))


# Concatenate, pad, iota


def concatenate_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  along = eqn.params['dimension']
  out = list(ins[0])
  for i in range(len(out)):
    if i != along:
      for other in ins[1:]:
        graph.labels.union(out[i], other[i])
  out[along] = np.concatenate([axes[along] for axes in ins])
  return [out]


def concatenate_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants
  along = eqn.params['dimension']
  [shape] = eqn.out_shapes

  def joined(arrays):
    arrays = [spread(a, one.shape, [along]) for a, one in zip(arrays, ins, strict=True)]
    sizes = [max(s) for s in zip(*(a.shape for a in arrays), strict=True)]
    each = [[*sizes[:along], a.shape[along], *sizes[along + 1 :]] for a in arrays]
    wide = [np.broadcast_to(a, size) for a, size in zip(arrays, each, strict=True)]
    return np.concatenate(wide, along)

  return [Known(joined([k.value for k in ins]), joined([k.varies for k in ins]), shape)]


def pad_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  out = []
  for labels, (low, high, between), size in zip(
    ins[0], eqn.params['padding_config'], eqn.out_shapes[0], strict=True
  ):
    if low < 0 or high < 0 or between:
      graph.labels.pin(labels, eqn.name)
      out.append(graph.labels.pinned(size, eqn.name))
    else:
      out.append(np.concatenate([graph.labels.fresh(low), labels, graph.labels.fresh(high)]))
  return [out]


def pad_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants
  one, filler = ins
  if not filler.is_fixed:
    return [unknown(eqn.out_shapes[0])]
  padding = eqn.params['padding_config']
  padded = [i for i, amounts in enumerate(padding) if any(amounts)]
  value = spread(one.value, one.shape, padded)
  varies = spread(one.varies, one.shape, padded)
  [value] = eqn.bind([value.astype(filler.value.dtype), filler.value])
  [varies] = eqn.bind([varies, np.zeros((), bool)])
  return [Known(np.asarray(value), np.asarray(varies), eqn.out_shapes[0])]


def pad(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  config = []
  for labels, (low, high, between) in zip(
    small.axes(eqn.outs[0]), eqn.params['padding_config'], strict=True
  ):
    if low > 0 or high > 0:
      low, high = len(small.kept(labels[:low])), len(small.kept(labels[len(labels) - high :]))
    config.append((low, high, between))
  return eqn.bind(values, padding_config=tuple(config))


def iota_axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  del ins
  out = graph.labels.axes(eqn.out_shapes[0])
  graph.labels.pin(out[eqn.params['dimension']], eqn.name)
  return [out]


def iota_known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants
  return [compressed(one) for one in evaluate_known(eqn, ins)]


def iota(small: Small, eqn: Equation, values: Sequence[Any]) -> list[Any]:
  return eqn.bind(values, shape=small.sizes(eqn.outs[0]))


RULES = {
  'broadcast_in_dim': Rule(broadcast_axes, _moving(_broadcast), broadcast),
  'transpose': Rule(
    transpose_axes, _moving(lambda eqn, array, _: array.transpose(eqn.params['permutation']))
  ),
  'squeeze': Rule(
    squeeze_axes, _moving(lambda eqn, array, _: array.squeeze(tuple(eqn.params['dimensions'])))
  ),
  'rev': Rule(
    reverse_axes, _moving(lambda eqn, array, _: np.flip(array, eqn.params['dimensions']))
  ),
  'reshape': Rule(reshape_axes, _moving(_reshape), reshape),
  'concatenate': Rule(concatenate_axes, concatenate_known),
  'pad': Rule(pad_axes, pad_known, pad),
  'iota': Rule(iota_axes, iota_known, iota),
}
