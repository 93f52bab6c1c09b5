"""What the values of a program are made of, followed through its loops and branches."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from sparsejax.sparsity.program.rules import products
from sparsejax.sparsity.program.rules.nodes import CONSTANT, join, of_product

INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr', 'body_jaxpr')  # where an equation may have a program


def of_outputs(jaxpr: Any, given: Sequence[str]) -> list[str]:
  """Returns the kinds of what comes out of a program, from those of what goes in."""
  env: dict[Any, str] = dict(zip(jaxpr.invars, given, strict=True))
  env |= dict.fromkeys(jaxpr.constvars, CONSTANT)

  def kind(atom) -> str:
    return CONSTANT if isinstance(atom, core.Literal) else env[atom]

  for eqn in jaxpr.eqns:
    outs = _of_equation(eqn, [kind(atom) for atom in eqn.invars])
    env |= dict(zip(eqn.outvars, outs, strict=True))
  return [kind(atom) for atom in jaxpr.outvars]


def of_branches(eqn: Any, ins: Sequence[str]) -> list[str]:
  """Returns the kinds of what a condition makes, whichever branch it takes."""
  found = [of_outputs(branch.jaxpr, ins[1:]) for branch in eqn.params['branches']]
  return [join(kinds) for kinds in zip(*found, strict=True)]


def of_carried(eqn: Any, ins: Sequence[str]) -> list[str]:
  """Returns the kinds of what a scan or a while loop carries: all that any turn may make of it.

  Args:
    eqn: the loop.
    ins: the kinds of what goes into it.
  """
  consts, carried, rest = _parts(eqn, ins)
  body = programs_in(eqn)[0]
  while True:
    outs = of_outputs(body, [*consts, *carried, *rest])
    joined = [join(pair) for pair in zip(carried, outs, strict=False)]
    if joined == carried:
      return joined
    carried = joined


def _of_equation(eqn, ins) -> list[str]:
  match eqn.primitive.name:
    case 'scan':
      consts, _, rest = _parts(eqn, ins)
      carried = of_carried(eqn, ins)
      made = of_outputs(programs_in(eqn)[0], [*consts, *carried, *rest])
      return [*carried, *made[len(carried) :]]
    case 'while':
      return of_carried(eqn, ins)
    case 'cond':
      return of_branches(eqn, ins)
    case name if name in products.RULES:
      return [of_product(ins)] * len(eqn.outvars)
  for inner in programs_in(eqn):
    if is_called(eqn, inner):
      return of_outputs(inner, ins)
  return [join(ins)] * len(eqn.outvars)


def _parts(eqn, ins) -> tuple[list[str], list[str], list[str]]:
  """What stays the same in every turn, what is carried on, and what is taken slice by slice."""
  p = eqn.params
  if eqn.primitive.name == 'scan':
    first, last = p['num_consts'], p['num_consts'] + p['num_carry']
    return [*ins[:first]], [*ins[first:last]], [*ins[last:]]
  first = p['cond_nconsts']
  last = first + p['body_nconsts']
  return [*ins[first:last]], [*ins[last:]], []


def programs_in(eqn: Any) -> list[Any]:
  """Returns the programs that an equation holds, as jaxprs without constants."""
  found = [eqn.params[key] for key in INNER if key in eqn.params]
  return [getattr(program, 'jaxpr', program) for program in found]


def is_called(eqn: Any, inner: Any) -> bool:
  """Whether a program takes and makes just what its equation does."""
  return _shapes(inner) == _shapes(eqn)


def _shapes(of) -> list[list[tuple[int, ...]]]:
  return [[getattr(v.aval, 'shape', ()) for v in some] for some in (of.invars, of.outvars)]
