"""Elementwise primitives: an index of the output is the same index of every input."""

from collections.abc import Callable

import numpy as np

from sparsejax.compact.rules.rule import Constants, Graph, Rule, pin_all
from sparsejax.compact.trace.known import Known, unknown, zeros
from sparsejax.compact.trace.labels import Axes
from sparsejax.sparsity.program.equations import Equation
from sparsejax.sparsity.program.rules.primitives import ELEMENTWISE

# Primitives that reinterpret bits, draw random numbers, or depend on a mesh of devices.
EXCLUDED = """
bitcast_convert_type device_put layout_constraint mesh_cast pbroadcast pvary random_gamma reshard
sharding_constraint
"""


def axes(graph: Graph, eqn: Equation, ins: list[Axes]) -> list[Axes]:
  if len(eqn.out_shapes) > 1:
    return ins if eqn.in_shapes == eqn.out_shapes else pin_all(graph, eqn, ins)
  [shape] = eqn.out_shapes
  if not all(_fits(one, shape) for one in eqn.in_shapes):
    return pin_all(graph, eqn, ins)
  out = graph.labels.axes(shape)
  for axes in ins:
    for mine, other in zip(out, axes, strict=False):  # a scalar has no axes
      if len(mine) == len(other):
        graph.labels.union(mine, other)
      else:
        graph.labels.pin(other, eqn.name)
  return [out]


def _fits(operand, shape) -> bool:
  """Returns whether an operand's shape is the output's, has size 1 instead, or is a scalar's."""
  return not operand or (
    len(operand) == len(shape)
    and all(n in (1, size) for n, size in zip(operand, shape, strict=True))
  )


def known(constants: Constants, eqn: Equation, ins: list[Known]) -> list[Known]:
  del constants
  if len(eqn.out_shapes) > 1:
    return list(ins) if eqn.in_shapes == eqn.out_shapes else [unknown(s) for s in eqn.out_shapes]
  [shape] = eqn.out_shapes
  if not all(_fits(one, shape) for one in eqn.in_shapes):
    return [unknown(shape)]
  ins = [_with_rank(one, len(shape)) for one in ins]
  varies = VARIES.get(eqn.name, _any_varies)(ins)
  if varies.all():
    return [zeros(varies, shape)]
  values = [one.fixed_part() for one in ins]
  if eqn.name == 'div':  # unknown divisors count as 1: 0 would give NaN
    values[1] = np.where(ins[1].varies, np.ones((), values[1].dtype), values[1])
  arrays = np.broadcast_arrays(*values)
  if eqn.name in NUMPY:
    with np.errstate(all='ignore'):
      value = NUMPY[eqn.name](eqn.params, *arrays)
  else:
    [value] = eqn.bind(arrays)
  return [Known(np.asarray(value), varies, shape)]


# The commonest primitives in NumPy: compiling one takes a quarter of a second for each shape.
NUMPY: dict[str, Callable[..., np.ndarray]] = {
  'abs': lambda p, x: np.abs(x),
  'add': lambda p, x, y: x + y,
  'convert_element_type': lambda p, x: x.astype(p['new_dtype']),
  'copy': lambda p, x: x,
  'div': lambda p, x, y: (x / y).astype(x.dtype),
  'exp': lambda p, x: np.exp(x),
  'max': lambda p, x, y: np.maximum(x, y),
  'min': lambda p, x, y: np.minimum(x, y),
  'mul': lambda p, x, y: x * y,
  'neg': lambda p, x: -x,
  'rsqrt': lambda p, x: (1 / np.sqrt(x)).astype(x.dtype),
  'select_n': lambda p, selector, *cases: np.choose(selector.astype(np.int32), cases),
  'sqrt': lambda p, x: np.sqrt(x),
  'square': lambda p, x: x * x,
  'stop_gradient': lambda p, x: x,
  'sub': lambda p, x, y: x - y,
  'tanh': lambda p, x: np.tanh(x),
}


def _with_rank(one: Known, rank: int) -> Known:
  """Returns a scalar as a known value of the given rank, with every axis of size 1."""
  if one.value.ndim == rank:
    return one
  return Known(*(x.reshape((1,) * rank) for x in (one.value, one.varies)), (1,) * rank)


def _any_varies(ins):
  varies = ins[0].varies
  for one in ins[1:]:
    varies = varies | one.varies
  return varies


def _product_varies(ins):
  """A product is known to be zero wherever a factor is."""
  one, other = ins
  return (one.varies & other.maybe_nonzero()) | (other.varies & one.maybe_nonzero())


def _quotient_varies(ins):
  """A quotient is known to be zero wherever its dividend is."""
  one, other = ins
  return one.varies | (other.varies & one.maybe_nonzero())


def _choice_varies(ins):
  """A selection varies where the selected case does, if the selector is known."""
  selector, *cases = ins
  if not selector.is_fixed:
    return _any_varies(ins)
  varies = cases[0].varies
  for i, case in enumerate(cases[1:], start=1):
    varies = np.where(selector.value == i, case.varies, varies)
  return varies


VARIES = {
  'mul': _product_varies,
  'div': _quotient_varies,
  'select_n': _choice_varies,
  'and': _product_varies,
}
RULES = {name: Rule(axes, known) for name in {*ELEMENTWISE.split(), 'copy_p'} - {*EXCLUDED.split()}}
