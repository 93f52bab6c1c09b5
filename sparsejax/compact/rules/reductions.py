"""What makes one number of several along an axis: a sum can do without zeros, others need all."""

import numpy as np

from sparsejax.compact.rules.rule import Rule
from sparsejax.compact.trace import known as known_of
from sparsejax.compact.trace.known import Known, collapse, spread


def _without(axes, gone):
  return [labels for i, labels in enumerate(axes) if i not in gone]


def sum_axes(graph, eqn, ins):
  graph.sums(eqn, [eqn.params['axes']], ins)
  return [_without(ins[0], eqn.params['axes'])]


def reduce_axes(graph, eqn, ins):
  for i in eqn.params['axes']:
    graph.labels.pin(ins[0][i], eqn.name)
  return [_without(ins[0], eqn.params['axes']) for _ in eqn.outs]


def reduce_known(constants, eqn, ins):
  del constants
  [one], gone = ins, tuple(eqn.params['axes'])
  varies = one.varies.any(gone)
  if varies.all():
    return [known_of.zeros(varies, eqn.made[0])]
  value = _bound(eqn, spread(one.value, one.shape, gone))
  return [Known(value, varies, eqn.made[0])]


def _bound(eqn, array):
  [value] = eqn.bind([array])
  return np.asarray(value)


# Windows


def _windowed(eqn):
  p = eqn.params
  plain = zip(
    p['window_dimensions'],
    p['window_strides'],
    p['padding'],
    p['base_dilation'],
    p['window_dilation'],
    strict=True,
  )
  return [i for i, one in enumerate(plain) if tuple(one) != (1, 1, (0, 0), 1, 1)]


def window_axes(graph, eqn, ins):
  windowed = _windowed(eqn)
  for i in windowed:
    graph.labels.pin(ins[0][i], eqn.name)
  sizes = zip(ins[0], eqn.made[0], strict=True)
  return [
    [graph.labels.pinned(n, eqn.name) if i in windowed else a for i, (a, n) in enumerate(sizes)]
  ]


def window_known(constants, eqn, ins):
  del constants
  [one], windowed = ins, _windowed(eqn)
  varies = collapse(one.varies, windowed)
  if varies.all():
    return [known_of.zeros(varies, eqn.made[0])]
  value = _bound(eqn, spread(one.value, one.shape, windowed))
  return [known_of.rounded(Known(value, varies, eqn.made[0]))]


# Along an axis


def along_axes(graph, eqn, ins):
  """Of what runs along an axis, or sorts along it, the others go on as they are."""
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
