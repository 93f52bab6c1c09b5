"""Loops and branches: programs within a program, and how often they run."""

import numpy as np
from jax.extend import core

from sparsejax.sparsity.program.rules import dependence
from sparsejax.sparsity.program.rules.nodes import (
  KERNEL,
  OF_PARAMETERS,
  Node,
  Scalar,
  Value,
  same_axes,
  taken_by_turns,
)


def scan(reader, eqn, ins, times):
  p = eqn.params
  first, last = p['num_consts'], p['num_consts'] + p['num_carry']
  kinds = dependence.of_carried(eqn, [value.kind for value in ins])
  carries = _carried(ins[first:last], kinds)
  inner = [*ins[:first], *carries]
  for value in ins[last:]:
    along, *rest = value.axes
    if value.kind in OF_PARAMETERS:
      along.use('stack')
    inner.append(_of_one_turn(value, along, rest))
  for value, begins, counts in zip(carries, ins[first:last], _counters(eqn), strict=True):
    if counts and begins.scalar is not None and begins.scalar.number == 0:
      value.scalar = Scalar(turns=p['length'])
  outs = reader.run(p['jaxpr'].jaxpr, inner, times * p['length'])
  carried, stacked = outs[: p['num_carry']], outs[p['num_carry'] :]
  for out, value in zip(carried, carries, strict=True):
    same_axes(out.axes, value.axes)
  made = [Value([Node(p['length']), *out.axes], out.kind) for out in stacked]
  return [*_carried(carried, kinds), *made]


def _carried(values, kinds):
  """Values with nodes in lists of their own, of the kinds that any turn may make of them."""
  return [Value(list(v.axes), kind, v.taken) for v, kind in zip(values, kinds, strict=True)]


def _of_one_turn(value, along, rest):
  """What a turn gets of a value, slice by slice; of the integers from 0 on, its own number."""
  if value.kind == KERNEL:
    return value.with_axes(rest, taken_by_turns(along, 1))
  return Value(rest, value.kind, (), value.scalar if not rest else None)


def _counters(eqn) -> list[bool]:
  """Which of what a scan carries are one more after every turn."""
  body, p = eqn.params['jaxpr'].jaxpr, eqn.params
  carried = body.invars[p['num_consts'] : p['num_consts'] + p['num_carry']]
  made = {var: inner for inner in body.eqns for var in inner.outvars}

  def counts(before, after) -> bool:
    step = made.get(after) if not isinstance(after, core.Literal) else None
    if step is None or step.primitive.name != 'add':
      return False
    ones = [a for a in step.invars if isinstance(a, core.Literal) and np.all(a.val == 1)]
    return len(ones) == 1 and any(a is before for a in step.invars)

  return [counts(*pair) for pair in zip(carried, body.outvars, strict=False)]


def while_loop(reader, eqn, ins, times):
  first = eqn.params['cond_nconsts']
  last = first + eqn.params['body_nconsts']
  kinds = dependence.of_carried(eqn, [value.kind for value in ins])
  carried = _carried(ins[last:], kinds)
  before = reader.counted()
  outs = reader.run(eqn.params['body_jaxpr'].jaxpr, [*ins[first:last], *carried], times)
  reader.run(eqn.params['cond_jaxpr'].jaxpr, [*ins[:first], *carried], times)
  if reader.counted() != before:
    reader.not_known('a while loop makes products, how often is not fixed')
  for out, value in zip(outs, carried, strict=True):
    same_axes(out.axes, value.axes)
  return _carried(outs, kinds)


def cond(reader, eqn, ins, times):
  before = reader.counted()
  found, counted = [], []
  for branch in eqn.params['branches']:
    reader.count_from(before)
    found.append(reader.run(branch.jaxpr, ins[1:], times))
    counted.append(reader.counted())
  if any(count != counted[0] for count in counted):
    reader.not_known('the branches of a condition make different products')
  for other in found[1:]:
    for one, two in zip(found[0], other, strict=True):
      same_axes(one.axes, two.axes)
  kinds = dependence.of_branches(eqn, [value.kind for value in ins])
  return _carried(found[0], kinds)


RULES = {'scan': scan, 'while': while_loop, 'cond': cond}
