"""The kinds of a program's values, followed through its loops and branches without its axes."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from sparsejax.sparsity.program.rules import products
from sparsejax.sparsity.program.rules.nodes import CONSTANT, join_kinds, kind_of_product

# The equation parameters under which primitives keep an inner jaxpr.
INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr', 'body_jaxpr')


def output_kinds(jaxpr: Any, input_kinds: Sequence[str]) -> list[str]:
  """Returns the kinds of a jaxpr's outputs, from the kinds of its inputs."""
  env: dict[Any, str] = dict(zip(jaxpr.invars, input_kinds, strict=True))
  env |= dict.fromkeys(jaxpr.constvars, CONSTANT)

  def kind(atom) -> str:
    return CONSTANT if isinstance(atom, core.Literal) else env[atom]

  for eqn in jaxpr.eqns:
    outs = _equation_kinds(eqn, [kind(atom) for atom in eqn.invars])
    env |= dict(zip(eqn.outvars, outs, strict=True))
  return [kind(atom) for atom in jaxpr.outvars]


def branch_kinds(eqn: Any, ins: Sequence[str]) -> list[str]:
  """Returns the kinds of the outputs of a `cond`, joined over its branches."""
  by_branch = [output_kinds(branch.jaxpr, ins[1:]) for branch in eqn.params['branches']]
  return [join_kinds(kinds) for kinds in zip(*by_branch, strict=True)]


def carry_kinds(eqn: Any, ins: Sequence[str]) -> list[str]:
  """Returns the kinds of the carry of a scan or a while loop, joined over all iterations.

  Args:
    eqn: the loop.
    ins: the kinds of its operands.
  """
  consts, carry, xs = _loop_operands(eqn, ins)
  body = inner_jaxprs(eqn)[0]
  # One pass is not enough: data may reach one part of the carry in the first iteration and pass
  # on to another in the second. Joining only ever raises a kind, so that this ends.
  while True:
    outs = output_kinds(body, [*consts, *carry, *xs])
    joined = [join_kinds(pair) for pair in zip(carry, outs, strict=False)]
    if joined == carry:
      return joined
    carry = joined


def _equation_kinds(eqn, ins) -> list[str]:
  match eqn.primitive.name:
    case 'scan':
      consts, _, xs = _loop_operands(eqn, ins)
      carry = carry_kinds(eqn, ins)
      outs = output_kinds(inner_jaxprs(eqn)[0], [*consts, *carry, *xs])
      return [*carry, *outs[len(carry) :]]
    case 'while':
      return carry_kinds(eqn, ins)
    case 'cond':
      return branch_kinds(eqn, ins)
    case name if name in products.RULES:
      return [kind_of_product(ins)] * len(eqn.outvars)
  for inner in inner_jaxprs(eqn):
    if is_called(eqn, inner):
      return output_kinds(inner, ins)
  return [join_kinds(ins)] * len(eqn.outvars)


def _loop_operands(eqn, ins) -> tuple[list[str], list[str], list[str]]:
  """Splits a loop's operands into the body's constants, the carry, and the scanned inputs."""
  p = eqn.params
  if eqn.primitive.name == 'scan':
    carry_start, carry_end = p['num_consts'], p['num_consts'] + p['num_carry']
    return [*ins[:carry_start]], [*ins[carry_start:carry_end]], [*ins[carry_end:]]
  body_start = p['cond_nconsts']
  carry_start = body_start + p['body_nconsts']
  return [*ins[body_start:carry_start]], [*ins[carry_start:]], []


def inner_jaxprs(eqn: Any) -> list[Any]:
  """Returns the jaxprs that an equation holds, each without its constants."""
  closed = [eqn.params[key] for key in INNER if key in eqn.params]
  return [getattr(program, 'jaxpr', program) for program in closed]


def is_called(eqn: Any, inner: Any) -> bool:
  """Returns whether an equation just calls an inner jaxpr: their inputs and outputs agree."""
  return _shapes(inner) == _shapes(eqn)


def _shapes(eqn_or_jaxpr) -> list[list[tuple[int, ...]]]:
  """Returns the shapes of the inputs and those of the outputs."""
  ends = (eqn_or_jaxpr.invars, eqn_or_jaxpr.outvars)
  return [[getattr(v.aval, 'shape', ()) for v in variables] for variables in ends]
