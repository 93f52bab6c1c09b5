"""The smaller parameters of a function, and the function that takes them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.compact.evaluate import Smaller
from sparsejax.compact.folds import folds_of
from sparsejax.compact.planning import Analysis, Plan, analyse, on_host, plan_of
from sparsejax.internal.answers import apart

CLOSE = 1e-5  # relative to the spread of the outputs
MAX_SHAPES = 16  # the number of shapes, those used last, whose programs are kept
PRECISION = 'jax_default_matmul_precision'  # the precision that a program is traced with


@dataclasses.dataclass(frozen=True)
class Shrunk:
  """A smaller network.

  Attributes:
    params: the smaller parameters, in the structure that they had.
    function: takes these and the inputs of the original function, of any batch size.
    plan: the removed units, and the reasons that kept others.
  """

  params: Any
  function: Callable[..., Any]
  plan: Plan


def shrink(function: Callable[..., Any], params: Any, *examples: Any) -> Shrunk:
  """Removes the units of a function that the zeros in its parameters make dead.

  The function is traced. A unit is removed from every parameter if each sum that reads it gets
  zero from it, or a constant. Constants, such as the output of a unit that has a bias but no
  weights, are added exactly where they were read. A primitive that is not known keeps every index
  that it touches, and the plan names it.

  The smaller function can be compiled, differentiated, mapped and trained further. Its gradients
  are those of the whole function whose removed entries are masked. For inputs of other shapes it is
  traced again with the whole parameters; it keeps these, and the programs for the 16 shapes used
  last. Numbers are assumed to be finite: zero times anything is zero.

  Args:
    function: takes (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`, in
      evaluation mode.
    params: a pytree of arrays: all that may become smaller, BatchNorm's running averages included.
    examples: the function's other inputs, as arrays or `jax.ShapeDtypeStruct`; the result is
      checked on them, or on random numbers of these shapes.

  Returns:
    The smaller parameters, the function that takes them, and the plan.

  Raises:
    ValueError: if params have no values, or the outputs for the examples would change.

  Example:
    >>> params = {'a': jnp.eye(3, 4).at[1:].set(0.0), 'b': jnp.ones((4, 2))}
    >>> function = lambda p, x: jnp.tanh(x @ p['a'] + 1.0) @ p['b']
    >>> small = shrink(function, params, jnp.ones((1, 3)))
    >>> jax.tree.map(jnp.shape, small.params)
    {'a': (3, 1), 'b': (1, 2)}
    >>> x = jnp.arange(6.0).reshape(2, 3)
    >>> bool(jnp.allclose(small.function(small.params, x), function(params, x)))
    True
  """
  whole = on_host(params)
  analysis = analyse(function, whole, examples)
  assert analysis is not None
  found = plan_of(whole, analysis)
  smaller = _Function(function, whole, found)
  smaller.remember(examples, analysis)
  small = Shrunk(found.slice(params), smaller, found)
  check_answers((function, params), (small.function, small.params), examples)
  return small


class _Program(NamedTuple):
  """The program for inputs of certain shapes.

  Attributes:
    call: takes the leaves of parameters and inputs, and returns those of the outputs; compiled.
    out_tree: the structure of the outputs.
  """

  call: Callable[[Sequence[Any]], list[Any]]
  out_tree: Any


class _Function:
  """A function of smaller parameters, traced with the whole ones."""

  def __init__(self, function: Callable[..., Any], params: Any, plan: Plan):
    self._function, self._params, self._plan = function, params, plan
    self._structure = jax.tree.structure(params)
    self._shapes = tuple(shape for _, shape in plan.shapes.values())
    self._analysed: dict[Any, _Program] = {}  # by the analysis of the examples
    self._program = functools.lru_cache(MAX_SHAPES)(self._make)

  def remember(self, inputs: Any, analysis: Analysis) -> None:
    """Stores the program of an analysis for inputs of these shapes, until its first use."""
    params = [_kind(leaf) for leaf in jax.tree.leaves(self._params)]
    leaves, structure = jax.tree.flatten(inputs)
    self._analysed[_key(params, structure, leaves)] = _program(analysis)

  def __call__(self, params: Any, *inputs: Any) -> Any:
    leaves = self._structure.flatten_up_to(params)
    kinds = [_kind(leaf) for leaf in leaves]
    self._check_shapes(tuple(shape for shape, _ in kinds))
    given, structure = jax.tree.flatten(inputs)
    program = self._program(*_key(kinds, structure, given))
    return jax.tree.unflatten(program.out_tree, program.call([*leaves, *given]))

  def _check_shapes(self, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raises a ValueError if the shapes of parameters are not those of the smaller ones."""
    if shapes == self._shapes:
      return
    for path, shape, wanted in zip(self._plan.shapes, shapes, self._shapes, strict=True):
      if shape != wanted:
        raise ValueError(
          f"'{path}' of shape {shape} must have shape {wanted}: pass the params of shrink"
        )

  def _make(self, *key) -> _Program:
    """Returns the program for parameters and inputs of a key."""
    if (found := self._analysed.pop(key, None)) is not None:  # another thread may ask for it too
      return found
    dtypes, inputs, shapes, _ = key
    whole, structure = jax.tree.flatten(self._params)
    cast = [
      x if x.dtype == dtype else x.astype(dtype) for x, dtype in zip(whole, dtypes, strict=True)
    ]
    given = jax.tree.unflatten(inputs, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    params = jax.tree.unflatten(structure, cast)
    analysis = analyse(self._function, params, given, self._plan.kept())
    if analysis is None:
      raise ValueError(
        f'inputs of shapes {[shape for shape, _ in shapes]} must let the function lose the same '
        'units as the examples did: call shrink with examples of these shapes'
      )
    return _program(analysis)


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any]:
  """Returns the shape and the dtype that a leaf has within JAX."""
  if isinstance(leaf, jax.Array):  # many times as fast as the functions, which take any number
    return leaf.shape, leaf.dtype
  return jnp.shape(leaf), jnp.result_type(leaf)


def _key(params: Sequence[Any], structure: Any, inputs: Sequence[Any]) -> tuple[Any, ...]:
  """Returns the dtypes of the parameters, the structure and kinds of inputs, the precision."""
  dtypes = tuple(dtype for _, dtype in params)
  return dtypes, structure, tuple(map(_kind, inputs)), getattr(jax.config, PRECISION)


def _program(analysis: Analysis) -> _Program:
  trace, ties, removal, out_tree = analysis
  smaller = Smaller(trace, ties, removal.removed, folds_of(ties, removal))
  # It is inlined, so that a program that calls it has the equations themselves.
  return _Program(jax.jit(smaller, inline=True), out_tree)


# Checking the result


def check_answers(
  whole: tuple[Callable[..., Any], Any], small: tuple[Callable[..., Any], Any], examples: Any
) -> None:
  """Raises a ValueError if the outputs for the examples differ.

  Args:
    whole: the whole function and its parameters.
    small: the smaller ones.
    examples: the other inputs of both functions, as arrays or shapes.
  """
  examples = [jax.tree.map(_concrete, example) for example in examples]
  precision = None if jax.default_backend() == 'cpu' else 'highest'
  with jax.default_matmul_precision(precision):
    # JAX keeps a weak reference to what it compiles, which a named tuple does not allow.
    wanted, found = (
      jax.jit(lambda *given, function=function: function(*given))(params, *examples)
      for function, params in (whole, small)
    )
  coarsest = max([_epsilon(leaf) for leaf in jax.tree.leaves((whole[1], wanted))], default=0.0)
  if differ := apart(found, wanted, max(CLOSE, 4 * coarsest)):
    raise ValueError(
      f"shrink: the smaller function's outputs for the examples differ by {differ.difference:.3g}, "
      f'where their spread is {differ.spread:.3g}: keep the whole parameters, and report this '
      'fault of sparsejax.compact'
    )


def _concrete(example):
  """Returns an example; for a shape, one of random numbers, or of zeros if it is not a float."""
  if not isinstance(example, jax.ShapeDtypeStruct):
    return example
  if jnp.issubdtype(example.dtype, jnp.floating):
    return jax.random.normal(jax.random.key(0), example.shape, example.dtype)
  return jnp.zeros(example.shape, example.dtype)


def _epsilon(leaf) -> float:
  dtype = jnp.result_type(leaf)
  return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
