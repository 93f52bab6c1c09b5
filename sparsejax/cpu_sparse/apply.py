"""A function of fixed parameters whose zeros make it faster on CPU."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparsejax.compact.trace.equations import Equation, flatten
from sparsejax.cpu_sparse import planning
from sparsejax.cpu_sparse.constants import array_of, split
from sparsejax.cpu_sparse.folding import steps_of
from sparsejax.cpu_sparse.layers import DENSE, Layer, Value
from sparsejax.cpu_sparse.moved import compute
from sparsejax.cpu_sparse.planning import Choice
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program import traced

CLOSE = 1e-5  # of the spread of the answers
PRECISION = 'jax_default_matmul_precision'  # which a program is traced with
NO_GRADIENTS = (
  'sparse_apply has its parameters fixed and gives no gradients: differentiate the function that '
  'it was made of'
)


@dataclasses.dataclass(frozen=True)
class SparseFunction:
  """A function of (*inputs) with its parameters fixed.

  Attributes:
    layers: which way each product with a parameter takes, with what was timed.
    seconds: of the whole function, 'sparse' and 'dense', for the examples; empty if not timed.
  """

  layers: tuple[Choice, ...]
  seconds: Mapping[str, float]
  _call: Callable[..., Any] = dataclasses.field(repr=False)

  def __call__(self, *inputs: Any) -> Any:
    return self._call(*inputs)


def sparse_apply(function: Callable[..., Any], params: Any, *examples: Any) -> SparseFunction:
  """Returns a function with its parameters fixed, for which their zeros are not computed.

  The function is traced. What depends on parameters alone is computed once, scales and biases of
  each output (as those of BatchNorm) and ReLU go into the product before them, and each product
  with a kernel takes the way that is fastest for its shape, its zeros and the examples' batch on
  this machine: a sparse kernel, JAX's own sparse product, or the dense one. All of this is timed
  when the function is made; a whole that would be slower than dense stays dense.

  The result can be called with any batch size, within `jax.jit` too; the ways stay those of the
  examples, so examples should have the batch size that matters. It has no gradients. Weights that
  are zero take no part: zero times infinity, or NaN, is zero.

  With SPARSEJAX_CPU_SPARSE=kernel, bcsr or dense all layers take that way, if they can, untimed.

  Args:
    function: takes (params, *examples), such as `lambda v, x: model.apply(v, x, train=False)`.
    params: a pytree of arrays.
    examples: what else the function takes, with numbers, since the answers are compared.

  Raises:
    ValueError: answers to the examples that differ from the function's by more than 1e-5 of their
      spread; examples or params without numbers; a way that there is not.

  Example:
    >>> params = {'w': jnp.array([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]])}
    >>> fast = sparse_apply(lambda p, x: jax.nn.relu(x @ p['w']), params, jnp.ones((4, 3)))
    >>> [(layer.name, round(layer.sparsity, 2)) for layer in fast.layers]
    [('w', 0.67)]
    >>> fast(jnp.array([[1.0, 2.0, 3.0]])).tolist()
    [[3.0, 2.0]]
  """
  _check_numbers('params', params)
  _check_numbers('examples', examples)
  params = jax.tree.map(jnp.asarray, params)
  found = _Programs(function, params, examples)
  whole = jax.jit(function)  # of arguments: XLA takes long to compile large constants

  def dense(*inputs):
    return whole(params, *inputs)

  _check(dense(*examples), found.call(*examples))
  if planning.forced() or not found.is_sparse():
    return SparseFunction(tuple(found.choices), {}, found.call)
  calls = {'sparse': lambda: found.call(*examples), 'dense': lambda: dense(*examples)}
  seconds = planning.measure(calls)
  if seconds['sparse'] > planning.SLOWER * seconds['dense']:
    return _all_dense(found.choices, seconds, dense)
  return SparseFunction(tuple(found.choices), seconds, found.call)


def _all_dense(choices, seconds: Mapping[str, float], dense) -> SparseFunction:
  layers = tuple(choice._replace(way=DENSE) for choice in choices)
  return SparseFunction(layers, seconds, _without_gradients(dense))


def _check_numbers(name, given):
  if any(isinstance(leaf, Tracer | jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(given)):
    raise ValueError(f'{name} must be arrays with numbers: call sparse_apply outside jax.jit')


class _Program(NamedTuple):
  """What is computed for inputs of some shapes."""

  steps: list[Equation | Layer]
  ins: list[int]
  outs: list[int]
  constants: dict[int, Any]
  out_tree: Any


class _Programs:
  """A function's program for the examples, and for inputs of other shapes when they come."""

  def __init__(self, function, params, examples):
    self._function, self._params = function, params
    self._found: dict[Any, _Program] = {}
    program = self._at(examples)
    self.choices = planning.choices([s for s in program.steps if isinstance(s, Layer)])
    self._ways = [choice.way for choice in self.choices]
    self.call = jax.jit(_without_gradients(self._compute))

  def is_sparse(self) -> bool:
    return any(way != DENSE for way in self._ways)

  def _at(self, inputs) -> _Program:
    leaves, structure = jax.tree.flatten(inputs)
    shapes = tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)
    key = structure, shapes, getattr(jax.config, PRECISION)
    if key not in self._found:
      given = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
      self._found[key] = self._trace(jax.tree.unflatten(structure, given))
    return self._found[key]

  def _trace(self, inputs) -> _Program:
    params = jax.tree.leaves(self._params)
    closed, made = traced(self._function, self._params, *inputs)
    trace = flatten(closed, primal=True)
    parts = split(trace, params)
    ins, outs = trace.program.ins, trace.program.outs
    names = dict(zip(ins, tree.named_leaves(self._params), strict=False))
    steps = steps_of(parts, outs, names)
    read = {number for step in steps if isinstance(step, Equation) for number in step.ins}
    own = {**trace.constants, **dict(zip(ins, params, strict=False))}
    constants = {
      number: array_of(parts.constants[number]) if number in parts.constants else own[number]
      for number in read | {*outs}
      if number in parts.constants or number in own
    }
    return _Program(steps, ins[len(params) :], outs, constants, jax.tree.structure(made))

  def _compute(self, *inputs):
    program = self._at(inputs)
    env = {number: Value(jnp.asarray(value)) for number, value in program.constants.items()}
    leaves = jax.tree.leaves(inputs)
    env |= {n: Value(jnp.asarray(leaf)) for n, leaf in zip(program.ins, leaves, strict=True)}
    layers = sum(isinstance(step, Layer) for step in program.steps)
    ways = iter(self._ways if layers == len(self._ways) else [DENSE] * layers)
    for step in program.steps:
      if isinstance(step, Layer):
        env[step.out] = step(env[step.data], next(ways))
        continue
      made = compute(step, [env[number] for number in step.ins])
      env.update(zip(step.outs, made, strict=True))
    return jax.tree.unflatten(program.out_tree, [env[number].plain for number in program.outs])


def _without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
  """The same function, which says in one line that it can't be differentiated."""
  whole = jax.custom_jvp(function)

  @whole.defjvp
  def _(primals, tangents):
    raise TypeError(NO_GRADIENTS)

  return whole


# What checks the result


def _check(wanted: Any, found: Any) -> None:
  """Raises a ValueError where answers to the examples differ."""
  for one, other in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
    if jnp.issubdtype(one.dtype, jax.dtypes.extended):
      continue
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    finite = one[np.isfinite(one)]
    spread = float(np.ptp(finite)) if finite.size else 0.0
    spread = spread or float(np.abs(finite).max(initial=0)) or 1.0
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    apart = np.where(same, 0.0, np.abs(one - other)).max(initial=0)
    if not apart <= CLOSE * spread:
      raise ValueError(
        f'sparse_apply: the answers to the examples would differ by {apart:.3g}, where their '
        f'spread is {spread:.3g}: use the function as it is, and report this'
      )
