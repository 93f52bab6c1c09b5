"""Makes a function of fixed parameters that skips their zeros on CPU."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparsejax.compact.shrinking import MAX_SHAPES, PRECISION
from sparsejax.cpu_sparse import autotuning
from sparsejax.cpu_sparse.autotuning import Choice
from sparsejax.cpu_sparse.constant_folding import array_of, split_constants
from sparsejax.cpu_sparse.fused_layers import DENSE, Layer, Value
from sparsejax.cpu_sparse.fusion import fuse_products
from sparsejax.cpu_sparse.permuted import compute
from sparsejax.internal.answers import apart
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program import traced
from sparsejax.sparsity.program.equations import Equation, flatten

TOLERANCE = 1e-5  # relative to the spread of the answers
NO_GRADIENTS = (
  'sparse_apply has its parameters fixed and gives no gradients: differentiate the function that '
  'it was made from'
)


@dataclasses.dataclass(frozen=True)
class SparseFunction:
  """A function of (*inputs) with its parameters fixed.

  Attributes:
    layers: the implementation chosen for each product with a parameter, and its timings.
    seconds: {'sparse': seconds, 'dense': seconds} of the whole function on the examples; empty if
      it was not timed.
  """

  layers: tuple[Choice, ...]
  seconds: Mapping[str, float]
  _call: Callable[..., Any] = dataclasses.field(repr=False)

  def __call__(self, *inputs: Any) -> Any:
    """Returns what the function returns for (params, *inputs)."""
    return self._call(*inputs)


def sparse_apply(function: Callable[..., Any], params: Any, *examples: Any) -> SparseFunction:
  """Returns a function with its parameters fixed that skips the zeros of its kernels on CPU.

  The function is traced. Values that depend on parameters alone are computed once. Scales and
  biases of each output, such as BatchNorm's, and ReLU are fused into the product before them.
  Each product with a constant kernel then gets the implementation that is fastest in isolation on
  this machine: the sparse C++ kernel, or the dense product; where the kernel cannot be compiled,
  JAX's BCSR product takes its place. Finally, the whole function is timed against the dense one,
  and stays dense if it is more than 5 % slower.

  All timings are taken once, for inputs of the examples' shapes. The result accepts inputs of other
  batch sizes, within `jax.jit` too, but keeps the implementations chosen for the examples, and may
  be slower than dense there. Give examples with the batch size that matters. The programs for the
  16 shapes of inputs used last are kept; for others the function is traced and compiled again. The
  result has no gradients. Zero weights are skipped, so zero times infinity or NaN counts as zero.

  SPARSEJAX_CPU_SPARSE=kernel, bcsr or dense forces one implementation, untimed; layers that it
  cannot compute are dense.

  Args:
    function: takes (params, *examples), such as `lambda v, x: model.apply(v, x, train=False)`.
    params: a pytree of arrays.
    examples: the function's other arguments, as arrays with values, since the answers to them are
      compared with the function's own.

  Raises:
    ValueError: the answers to the examples differ from the function's by more than 1e-5 of their
      spread; examples or params have no values; or SPARSEJAX_CPU_SPARSE is not one of the three, or
      forces a kernel that cannot be compiled.

  Example:
    >>> params = {'w': jnp.array([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]])}
    >>> fast = sparse_apply(lambda p, x: jax.nn.relu(x @ p['w']), params, jnp.ones((4, 3)))
    >>> [(layer.name, round(layer.sparsity, 2)) for layer in fast.layers]
    [('w', 0.67)]
    >>> fast(jnp.array([[1.0, 2.0, 3.0]])).tolist()
    [[3.0, 2.0]]
  """
  _check_values('params', params)
  _check_values('examples', examples)
  params = jax.tree.map(jnp.asarray, params)
  sparse = _SparseProgram(function, params, examples)
  # It takes params as arguments, since XLA compiles large constants slowly. It wraps the function,
  # since JAX keeps a weak reference to it, and a named tuple does not allow that. The refusal of
  # gradients is compiled too: outside, JAX would follow it in Python at every call.
  jitted = jax.jit(_without_gradients(lambda *given: function(*given)))

  def dense(*inputs):
    return jitted(params, *inputs)

  _check_answers(dense(*examples), sparse.call(*examples))
  choices = tuple(sparse.choices)
  if autotuning.forced_implementation() or not sparse.has_sparse_layers:
    return SparseFunction(choices, {}, sparse.call)
  calls = {'sparse': lambda: sparse.call(*examples), 'dense': lambda: dense(*examples)}
  seconds = autotuning.measure(calls)
  if seconds['sparse'] > autotuning.MAX_SLOWDOWN * seconds['dense']:
    layers = tuple(choice._replace(implementation=DENSE) for choice in choices)
    return SparseFunction(layers, seconds, dense)
  return SparseFunction(choices, seconds, sparse.call)


def _check_values(name: str, arrays: Any) -> None:
  """Raises a ValueError if a pytree has tracers or shapes in place of arrays."""
  if any(isinstance(leaf, Tracer | jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(arrays)):
    raise ValueError(f'{name} must be arrays with numbers: call sparse_apply outside jax.jit')


class _Trace(NamedTuple):
  """The program for inputs of certain shapes; values are identified by their numbers.

  Attributes:
    steps: the equations and layers, in order.
    ins: the inputs.
    outs: the outputs.
    constants: {number: array} of the constants that steps or outputs read.
    out_tree: the structure of the outputs.
  """

  steps: list[Equation | Layer]
  ins: list[int]
  outs: list[int]
  constants: dict[int, Any]
  out_tree: Any


class _Program(NamedTuple):
  """The program for inputs of certain shapes, and the compiled function of (*inputs)."""

  trace: _Trace
  call: Callable[..., Any]


class _SparseProgram:
  """A function with fixed parameters, traced and compiled for each structure and shapes of inputs.

  Attributes:
    choices: the implementation of each layer, chosen for the examples.
  """

  def __init__(self, function: Callable[..., Any], params: Any, examples: Sequence[Any]):
    self._function, self._params = function, params
    self._program = functools.lru_cache(MAX_SHAPES)(self._compile)
    layers = [step for step in self.at(examples).trace.steps if isinstance(step, Layer)]
    self.choices = autotuning.choose_implementations(layers)

  @property
  def has_sparse_layers(self) -> bool:
    """Whether any layer has a sparse implementation."""
    return any(choice.implementation != DENSE for choice in self.choices)

  def call(self, *inputs: Any) -> Any:
    """Returns the outputs for inputs."""
    return self.at(inputs).call(*inputs)

  def at(self, inputs: Sequence[Any]) -> _Program:
    """Returns the program for inputs of these shapes, made at its first use."""
    leaves, structure = jax.tree.flatten(inputs)
    precision = getattr(jax.config, PRECISION)
    return self._program(structure, tuple(map(jax.typeof, leaves)), precision)

  def _compile(self, structure: Any, kinds: Sequence[Any], precision: str | None) -> _Program:
    """Returns the program for inputs of certain shapes.

    Args:
      structure: the structure of the inputs.
      kinds: the shape and the dtype of each; a dtype may be weak, as a Python number's is.
      precision: JAX's setting, given here so that each setting has its own programs.
    """
    del precision
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in kinds]
    trace = self._trace(jax.tree.unflatten(structure, shapes))
    evaluate = functools.partial(self._evaluate, trace)
    return _Program(trace, jax.jit(_without_gradients(evaluate)))

  def _trace(self, inputs: Sequence[Any]) -> _Trace:
    """Traces the function for abstract inputs, evaluates constants and fuses layers."""
    params = jax.tree.leaves(self._params)
    closed, out = traced(self._function, self._params, *inputs)
    trace = flatten(closed, primal=True)
    split = split_constants(trace, params)
    ins, outs = trace.program.ins, trace.program.outs
    names = dict(zip(ins, tree.named_leaves(self._params), strict=False))
    steps = fuse_products(split, outs, names)
    given = {**trace.constants, **dict(zip(ins, params, strict=False))}
    used = {number for step in steps if isinstance(step, Equation) for number in step.ins}
    constants = {}
    for number in used | {*outs}:
      if number in split.constants:
        constants[number] = array_of(split.constants[number])
      elif number in given:
        constants[number] = given[number]
    return _Trace(
      steps=steps,
      ins=ins[len(params) :],
      outs=outs,
      constants=constants,
      out_tree=jax.tree.structure(out),
    )

  def _evaluate(self, program: _Trace, *inputs: Any) -> Any:
    """Returns the outputs for inputs, evaluating the program step by step.

    At other shapes a function may have another number of layers; then all of them are dense.
    """
    values = {n: Value(jnp.asarray(array)) for n, array in program.constants.items()}
    leaves = jax.tree.leaves(inputs)
    values |= {n: Value(jnp.asarray(leaf)) for n, leaf in zip(program.ins, leaves, strict=True)}
    layer_count = sum(isinstance(step, Layer) for step in program.steps)
    chosen = [choice.implementation for choice in self.choices]
    implementations = iter(chosen if layer_count == len(chosen) else [DENSE] * layer_count)
    for step in program.steps:
      if isinstance(step, Layer):
        values[step.out] = step(values[step.data], next(implementations))
        continue
      outs = compute(step, [values[number] for number in step.ins])
      values.update(zip(step.outs, outs, strict=True))
    outs = [values[number].in_program_order for number in program.outs]
    return jax.tree.unflatten(program.out_tree, outs)


def _without_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns the same function, which raises a TypeError when it is differentiated."""
  wrapped = jax.custom_jvp(function)

  @wrapped.defjvp
  def _(primals, tangents):
    raise TypeError(NO_GRADIENTS)

  return wrapped


def _check_answers(expected: Any, actual: Any) -> None:
  """Raises a ValueError if two pytrees differ by more than the tolerance."""
  for want, have in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
    if (want.shape, want.dtype) != (have.shape, have.dtype):
      raise ValueError(
        f'sparse_apply: an answer would be {have.dtype}{have.shape}, where the function returns '
        f'{want.dtype}{want.shape}: use the function as it is, and report this'
      )
  if found := apart(actual, expected, TOLERANCE):
    raise ValueError(
      f'sparse_apply: the answers to the examples would differ by {found.difference:.3g}, where '
      f'their spread is {found.spread:.3g}: use the function as it is, and report this'
    )
