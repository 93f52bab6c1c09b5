"""Rules for loops and branches: what their inner jaxprs do, and how often each runs.

A rule takes (reader, equation, operands, how often the equation runs) and returns the outputs.
"""

import numpy as np
from jax.extend import core

from sparsejax.sparsity.program.rules import dependence
from sparsejax.sparsity.program.rules.nodes import (
  KERNEL,
  PARAMETER_KINDS,
  Node,
  Scalar,
  Value,
  slice_per_iteration,
  unify_axes,
)


def scan(reader, eqn, ins, times):
  """Reads the body once and counts it `length` times; a scanned axis of a parameter is a stack."""
  p = eqn.params
  length = p['length']
  carry_start, carry_end = p['num_consts'], p['num_consts'] + p['num_carry']
  kinds = dependence.carry_kinds(eqn, [value.kind for value in ins])
  init = ins[carry_start:carry_end]
  carry = _set_kinds(init, kinds)
  body_ins = [*ins[:carry_start], *carry]
  for value in ins[carry_end:]:
    scanned, *rest = value.axes
    if value.kind in PARAMETER_KINDS:
      scanned.assign_role('stack')
    body_ins.append(_slice_of_iteration(value, scanned, rest))
  for value, first, is_counter in zip(carry, init, _find_counters(eqn), strict=True):
    if is_counter and first.scalar is not None and first.scalar.number == 0:
      value.scalar = Scalar(stop=length)
  outs = reader.run(p['jaxpr'].jaxpr, body_ins, times * length)
  new_carry, ys = outs[: p['num_carry']], outs[p['num_carry'] :]
  for new, old in zip(new_carry, carry, strict=True):
    unify_axes(new.axes, old.axes)
  stacked = [Value([Node(length), *y.axes], y.kind) for y in ys]
  return [*_set_kinds(new_carry, kinds), *stacked]


def _set_kinds(values, kinds):
  """Returns copies of the values, each of the kind that it has over all iterations or branches."""
  return [Value(list(v.axes), kind, v.slices) for v, kind in zip(values, kinds, strict=True)]


def _slice_of_iteration(value, scanned, rest):
  """Returns one iteration's slice of a scanned value; a slice of arange(n) is a counter."""
  if value.kind == KERNEL:
    return value.replace_axes(rest, slice_per_iteration(scanned, 1))
  return Value(rest, value.kind, (), value.scalar if not rest else None)


def _find_counters(eqn) -> list[bool]:
  """Returns which parts of a scan's carry grow by one in every iteration."""
  body, p = eqn.params['jaxpr'].jaxpr, eqn.params
  carry = body.invars[p['num_consts'] : p['num_consts'] + p['num_carry']]
  made_by = {var: inner for inner in body.eqns for var in inner.outvars}

  def is_counter(old, new) -> bool:
    step = made_by.get(new) if not isinstance(new, core.Literal) else None
    if step is None or step.primitive.name != 'add':
      return False
    ones = [a for a in step.invars if isinstance(a, core.Literal) and np.all(a.val == 1)]
    return len(ones) == 1 and any(a is old for a in step.invars)

  return [is_counter(*pair) for pair in zip(carry, body.outvars, strict=False)]


def while_loop(reader, eqn, ins, times):
  """Reads the body and the condition for their roles; refuses to count products in either."""
  body_start = eqn.params['cond_nconsts']
  carry_start = body_start + eqn.params['body_nconsts']
  kinds = dependence.carry_kinds(eqn, [value.kind for value in ins])
  carry = _set_kinds(ins[carry_start:], kinds)
  counts_before = reader.counts()
  outs = reader.run(eqn.params['body_jaxpr'].jaxpr, [*ins[body_start:carry_start], *carry], times)
  reader.run(eqn.params['cond_jaxpr'].jaxpr, [*ins[:body_start], *carry], times)
  if reader.counts() != counts_before:
    reader.refuse_to_count('a while loop has products, and how often it runs is not fixed')
  for new, old in zip(outs, carry, strict=True):
    unify_axes(new.axes, old.axes)
  return _set_kinds(outs, kinds)


def cond(reader, eqn, ins, times):
  """Reads every branch, and counts one: they must all cost the same."""
  counts_before = reader.counts()
  outs_by_branch, counts_by_branch = [], []
  for branch in eqn.params['branches']:
    reader.reset_counts(counts_before)
    outs_by_branch.append(reader.run(branch.jaxpr, ins[1:], times))
    counts_by_branch.append(reader.counts())
  if any(counts != counts_by_branch[0] for counts in counts_by_branch):
    reader.refuse_to_count('the branches of a condition have different products')
  first, *others = outs_by_branch
  for other in others:
    for out, same_out in zip(first, other, strict=True):
      unify_axes(out.axes, same_out.axes)
  return _set_kinds(first, dependence.branch_kinds(eqn, [value.kind for value in ins]))


RULES = {'scan': scan, 'while': while_loop, 'cond': cond}
