"""Jaxprs as flat lists of equations: calls are inlined, and every value has a number."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core

from sparsejax.sparsity.program.rules.dependence import inner_jaxprs

CALLS = frozenset(
  ['jit', 'pjit', 'closed_call', 'core_call', 'remat', 'remat2', 'checkpoint', 'custom_lin']
)
DERIVED = frozenset(['custom_jvp_call', 'custom_vjp_call'])  # with a derivative of their own


@dataclasses.dataclass(eq=False)
class Equation:
  """One equation.

  Attributes:
    primitive: the JAX primitive.
    ins: the numbers of the inputs.
    outs: the numbers of the outputs.
    params: the primitive's parameters.
    in_shapes: the shapes of the inputs.
    out_shapes: the shapes of the outputs.
    context: the JAX settings that the equation was traced with.
    inner: the program of a `jax.custom_jvp` call, or the body of a scan.
    tangents: the program of the call's derivative, which takes (*inputs, *their tangents).
  """

  primitive: Any
  ins: list[int]
  outs: list[int]
  params: dict[str, Any]
  in_shapes: list[tuple[int, ...]]
  out_shapes: list[tuple[int, ...]]
  context: Any
  inner: 'Program | None' = None
  tangents: 'Program | None' = None

  @property
  def name(self) -> str:
    return self.primitive.name

  def bind(self, values: Sequence[Any], **changed: Any) -> list[Any]:
    """Evaluates the primitive on other values, with some of its parameters changed."""
    params = self.primitive.get_bind_params({**self.params, **changed})
    functions, params = params if isinstance(params, tuple) else ((), params)  # before JAX 0.10.2
    with self.context.manager:
      outs = self.primitive.bind(*functions, *values, **params)
    return list(outs) if self.primitive.multiple_results else [outs]


@dataclasses.dataclass(eq=False)
class Program:
  """Equations in order, with the numbers of the program's inputs and outputs."""

  equations: list[Equation]
  ins: list[int]
  outs: list[int]


@dataclasses.dataclass(eq=False)
class Trace:
  """A traced function: its program, and its constants by number."""

  program: Program
  constants: dict[int, Any]


def flatten(closed: Any, *, primal: bool = False) -> Trace:
  """Returns a closed jaxpr as a trace, with plain calls inlined.

  A `jax.custom_jvp` call, such as `jax.nn.relu`, and a scan stay single equations: each has its
  body as an `inner` program.

  Args:
    closed: the jaxpr.
    primal: whether nobody will differentiate the trace, so that calls with a derivative of their
      own are inlined as well.
  """
  flattener = _Flattener(primal)
  return Trace(flattener.closed(closed), flattener.constants)


class _Flattener:
  """Inlines calls, and numbers the values of jaxprs consecutively."""

  def __init__(self, primal: bool):
    self.constants: dict[int, Any] = {}
    self.count = 0
    self.calls = CALLS | DERIVED if primal else CALLS
    self.is_tangent = False  # in a derivative, a custom_jvp call is inlined

  def closed(self, closed) -> Program:
    ins = [self._next() for _ in closed.jaxpr.invars]
    equations: list[Equation] = []
    outs = self._body(closed.jaxpr, closed.consts, ins, equations)
    return Program(equations, ins, outs)

  def _next(self) -> int:
    self.count += 1
    return self.count

  def _constant(self, value) -> int:
    number = self._next()
    self.constants[number] = value
    return number

  def _body(self, jaxpr, constants, ins: Sequence[int], equations: list[Equation]) -> list[int]:
    env: dict[Any, int] = dict(zip(jaxpr.invars, ins, strict=True))
    env |= {var: self._constant(c) for var, c in zip(jaxpr.constvars, constants, strict=True)}

    def number(atom) -> int:
      return self._constant(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
      given = [number(atom) for atom in eqn.invars]
      env |= dict(zip(eqn.outvars, self._equation(eqn, given, equations), strict=True))
    return [number(atom) for atom in jaxpr.outvars]

  def _equation(self, eqn, ins: list[int], equations: list[Equation]) -> list[int]:
    name = eqn.primitive.name
    if name in self.calls or (name == 'custom_jvp_call' and self.is_tangent):
      key = next(k for k in ('jaxpr', 'call_jaxpr') if k in eqn.params)
      [inner] = inner_jaxprs(eqn)
      consts = getattr(eqn.params[key], 'consts', ())
      return self._body(inner, consts, ins, equations)
    outs = [self._next() for _ in eqn.outvars]
    shapes = _shapes(eqn.invars), _shapes(eqn.outvars)
    equation = Equation(eqn.primitive, ins, outs, dict(eqn.params), *shapes, eqn.ctx)
    if name == 'scan':
      equation.inner = self.closed(eqn.params['jaxpr'])
    elif name == 'custom_jvp_call':
      tangents = _derivative(eqn)
      if tangents is not None:
        equation.inner = self.closed(eqn.params['call_jaxpr'])
        self.is_tangent = True
        equation.tangents = self.closed(tangents)
        self.is_tangent = False
    equations.append(equation)
    return outs


def _shapes(atoms) -> list[tuple[int, ...]]:
  return [tuple(getattr(atom.aval, 'shape', ())) for atom in atoms]


def _derivative(eqn) -> Any:
  """Returns a call's own derivative as a closed jaxpr, or None if JAX gives none."""
  values = [v.aval for v in (*eqn.invars, *eqn.outvars)]
  is_unsupported = eqn.params.get('symbolic_zeros') or eqn.params.get('num_consts')
  if is_unsupported or not all(_has_tangent(value) for value in values):
    return None
  try:
    given = [False] * len(eqn.invars)
    jaxpr, consts, zeros = eqn.params['jvp_jaxpr_fun'].call_wrapped(*given)
  except (
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
  ):  # some versions of JAX store it differently
    return None
  is_complete = not any(zeros) and len(jaxpr.outvars) == 2 * len(eqn.outvars)
  return core.ClosedJaxpr(jaxpr, consts) if is_complete else None


def _has_tangent(value) -> bool:
  return jnp.issubdtype(value.dtype, jnp.inexact)
