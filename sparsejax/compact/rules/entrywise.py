"""What works entry by entry: an index of what comes out is the same index of all that goes in."""

from collections.abc import Callable

import numpy as np

from sparsejax.compact.rules.rule import Rule, pin_all
from sparsejax.compact.trace import known as known_of
from sparsejax.compact.trace.known import Known, zeros
from sparsejax.sparsity.program.rules.primitives import ELEMENTWISE

# What changes shapes of bits, draws numbers, or is tied to a mesh of devices.
NOT_HERE = """
bitcast_convert_type device_put layout_constraint mesh_cast pbroadcast pvary random_gamma reshard
sharding_constraint
"""


def axes(graph, eqn, ins):
  if len(eqn.made) > 1:
    return ins if eqn.shapes == eqn.made else pin_all(graph, eqn, ins)
  [shape] = eqn.made
  if not all(_fits(of, shape) for of in eqn.shapes):
    return pin_all(graph, eqn, ins)
  out = graph.labels.axes(shape)
  for axes in ins:
    for mine, other in zip(out, axes, strict=False):  # a scalar has none
      if len(mine) == len(other):
        graph.labels.union(mine, other)
      else:
        graph.labels.pin(other, eqn.name)
  return [out]


def _fits(of, shape) -> bool:
  """Whether an operand is as large as what comes out, or repeated along axes of size 1."""
  return not of or (
    len(of) == len(shape) and all(n in (1, size) for n, size in zip(of, shape, strict=True))
  )


def known(constants, eqn, ins):
  del constants
  if len(eqn.made) > 1:
    return list(ins) if eqn.shapes == eqn.made else [known_of.unknown(s) for s in eqn.made]
  [shape] = eqn.made
  if not all(_fits(of, shape) for of in eqn.shapes):
    return [known_of.unknown(shape)]
  ins = [_of_rank(one, len(shape)) for one in ins]
  varies = VARIES.get(eqn.name, _any_varies)(ins)
  if varies.all():
    return [zeros(varies, shape)]
  values = [one.fixed_part() for one in ins]
  if eqn.name == 'div':  # 1 stands for what is not known, of which 0 would make no number
    values[1] = np.where(ins[1].varies, np.ones((), values[1].dtype), values[1])
  arrays = np.broadcast_arrays(*values)
  if eqn.name in NUMPY:
    with np.errstate(all='ignore'):
      value = NUMPY[eqn.name](eqn.params, *arrays)
  else:
    [value] = eqn.bind(arrays)
  return [Known(np.asarray(value), varies, shape)]


# What most programs are made of, without a compiler's quarter of a second for each shape.
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
  'select_n': lambda p, which, *cases: np.choose(which.astype(np.int32), cases),
  'sqrt': lambda p, x: np.sqrt(x),
  'square': lambda p, x: x * x,
  'stop_gradient': lambda p, x: x,
  'sub': lambda p, x, y: x - y,
  'tanh': lambda p, x: np.tanh(x),
}


def _of_rank(one: Known, rank: int) -> Known:
  """A scalar as if it had been broadcast."""
  if one.value.ndim == rank:
    return one
  return Known(*(x.reshape((1,) * rank) for x in (one.value, one.varies)), (1,) * rank)


def _any_varies(ins):
  varies = ins[0].varies
  for one in ins[1:]:
    varies = varies | one.varies
  return varies


def _of_product(ins):
  """Nothing varies that is multiplied by zero."""
  one, other = ins
  return (one.varies & other.maybe()) | (other.varies & one.maybe())


def _of_quotient(ins):
  """Nothing varies of zero that is divided."""
  one, other = ins
  return one.varies | (other.varies & one.maybe())


def _of_choice(ins):
  """Of several the one that is chosen, where that is known."""
  which, *cases = ins
  if not which.is_fixed:
    return _any_varies(ins)
  varies = cases[0].varies
  for i, case in enumerate(cases[1:], start=1):
    varies = np.where(which.value == i, case.varies, varies)
  return varies


VARIES = {'mul': _of_product, 'div': _of_quotient, 'select_n': _of_choice, 'and': _of_product}
RULES = {name: Rule(axes, known) for name in {*ELEMENTWISE.split(), 'copy_p'} - {*NOT_HERE.split()}}
