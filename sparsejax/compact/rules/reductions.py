"""Reductions: a sum does not need its zeros, while every other reduction needs all entries."""

import numpy as np

from sparsejax.compact.rules.rule import Rule
from sparsejax.compact.trace.known import Known, collapse, rounded, spread, zeros


def _without(axes, reduced):
  return [labels for i, labels in enumerate(axes) if i not in reduced]


def sum_axes(graph, eqn, ins):
  graph.sums(eqn, [eqn.params['axes']], ins)
  return [_without(ins[0], eqn.params['axes'])]


def reduce_axes(graph, eqn, ins):
  for i in eqn.params['axes']:
    graph.labels.pin(ins[0][i], eqn.name)
  return [_without(ins[0], eqn.params['axes']) for _ in eqn.outs]


def reduce_known(constants, eqn, ins):
  del constants
  [one] = ins
  reduced = tuple(eqn.params['axes'])
  varies = one.varies.any(reduced)
  if varies.all():
    return [zeros(varies, eqn.out_shapes[0])]
  value = _evaluate(eqn, spread(one.value, one.shape, reduced))
  return [Known(value, varies, eqn.out_shapes[0])]


def _evaluate(eqn, array):
  [value] = eqn.bind([array])
  return np.asarray(value)


# Windows


def _windowed(eqn):
  p = eqn.params
  settings = zip(
    p['window_dimensions'],
    p['window_strides'],
    p['padding'],
    p['base_dilation'],
    p['window_dilation'],
    strict=True,
  )
  return [i for i, one in enumerate(settings) if tuple(one) != (1, 1, (0, 0), 1, 1)]


def window_axes(graph, eqn, ins):
  windowed = _windowed(eqn)
  for i in windowed:
    graph.labels.pin(ins[0][i], eqn.name)
  sizes = zip(ins[0], eqn.out_shapes[0], strict=True)
  return [
    [graph.labels.pinned(n, eqn.name) if i in windowed else a for i, (a, n) in enumerate(sizes)]
  ]


def window_known(constants, eqn, ins):
  del constants
  [one] = ins
  windowed = _windowed(eqn)
  varies = collapse(one.varies, windowed)
  if varies.all():
    return [zeros(varies, eqn.out_shapes[0])]
  value = _evaluate(eqn, spread(one.value, one.shape, windowed))
  return [rounded(Known(value, varies, eqn.out_shapes[0]))]


# Along an axis


def along_axes(graph, eqn, ins):
  """Pins the axis that a cumulative operation or a sort runs along; other axes pass through."""
  along = eqn.params['axis' if 'axis' in eqn.params else 'dimension']
  for axes in ins:
    graph.labels.pin(axes[along], eqn.name)
  for axes in ins[1:]:
    graph.labels.union_axes(ins[0], axes)
  return [ins[0] for _ in eqn.outs]


RULES = {
  'reduce_sum': Rule(sum_axes, reduce_known),
  **{f'reduce_{n}': Rule(reduce_axes, reduce_known) for n in ('max', 'min', 'prod', 'and', 'or')},
  **{name: Rule(reduce_axes) for name in ('argmax', 'argmin')},
  **{f'reduce_window_{n}': Rule(window_axes, window_known) for n in ('sum', 'max', 'min')},
  **{n: Rule(along_axes) for n in ('cumsum', 'cumprod', 'cummax', 'cummin', 'sort')},
}
