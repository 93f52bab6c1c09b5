"""The smaller parameters of a function, and the function for them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.evaluate import Smaller
from sparsejax.compact.folds import folds_of
from sparsejax.compact.planning import Analysis, Plan, analyse, on_host, plan_of

CLOSE = 1e-5  # of the spread of the answers
PRECISION = 'jax_default_matmul_precision'  # which a program is traced with


@dataclasses.dataclass(frozen=True)
class Shrunk:
  """A smaller network.

  Attributes:
    params: the parameters that stay, in the structure that they had.
    function: takes these and what the function took, of any batch size.
    plan: what went, and why the rest stayed.
  """

  params: Any
  function: Callable[..., Any]
  plan: Plan


def shrink(function: Callable[..., Any], params: Any, *examples: Any) -> Shrunk:
  """Returns the smaller network that a function is whose parameters have groups of zeros.

  The function is traced, and what its sums get zero of, or a constant, is taken out of every
  parameter on the way. Constants, such as what a bias makes of a unit without weights, are added
  where they were read, exactly. What nobody knows keeps all that it touches, and the plan says so.

  The function for the smaller parameters can be compiled, differentiated, mapped and trained
  further: its gradients are those of the whole network for what stays, as long as what went is
  masked. Inputs of other shapes are traced anew, for which it keeps the whole parameters, and their
  constants are found anew. Numbers are taken to be finite: zero times any other is zero.

  Args:
    function: takes (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`, and
      does as in evaluation.
    params: a pytree of arrays: all that may get smaller, BatchNorm's averages too.
    examples: what else the function takes; of shapes alone, random numbers check the result.

  Raises:
    ValueError: params without values; answers to the examples that differ from the whole network's.

  Example:
    >>> params = {'a': np.ones((3, 4)), 'b': np.ones((4, 2))}
    >>> params['a'][:, 1:] = 0.0
    >>> function = lambda p, x: jnp.tanh(x @ p['a'] + 1.0) @ p['b']
    >>> small = shrink(function, params, np.ones((1, 3)))
    >>> jax.tree.map(jnp.shape, small.params)
    {'a': (3, 1), 'b': (1, 2)}
    >>> x = np.arange(6.0).reshape(2, 3)
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
  _check(function, params, small, examples)
  return small


class _Function:
  """A function of smaller parameters: traced for whole ones, computed with what stays."""

  def __init__(self, function: Callable[..., Any], params: Any, plan: Plan):
    self._function, self._params, self._plan = function, params, plan
    self._found: dict[Any, tuple[Smaller, Any]] = {}

  def remember(self, inputs: Any, analysis: Analysis) -> None:
    """Keeps what is already known for inputs of these shapes."""
    self._found[self._key(self._dtypes(self._params), inputs)] = _smaller(analysis)

  def __call__(self, params: Any, *inputs: Any) -> Any:
    leaves = jax.tree.structure(self._params).flatten_up_to(params)
    for (path, (_, shape)), leaf in zip(self._plan.shapes.items(), leaves, strict=True):
      if jnp.shape(leaf) != shape:
        raise ValueError(
          f"'{path}' of shape {jnp.shape(leaf)} must be of shape {shape}, as shrink made it"
        )
    smaller, out_tree = self._at(leaves, inputs)
    made = smaller([jnp.asarray(x) for x in (*leaves, *jax.tree.leaves(inputs))])
    return jax.tree.unflatten(out_tree, made)

  def _at(self, leaves, inputs):
    """The program for inputs of these shapes."""
    dtypes = self._dtypes(leaves)
    key = self._key(dtypes, inputs)
    if key not in self._found:
      whole = jax.tree.leaves(self._params)
      cast = [
        x if x.dtype == dtype else x.astype(dtype) for x, dtype in zip(whole, dtypes, strict=True)
      ]
      params = jax.tree.unflatten(jax.tree.structure(self._params), cast)
      given = jax.tree.map(_shape, inputs)
      analysis = analyse(self._function, params, given, self._plan.kept())
      if analysis is None:
        raise ValueError(
          f'inputs of shapes {[x.shape for x in jax.tree.leaves(given)]} make the function use its '
          'parameters otherwise than the examples did: shrink it with examples of these shapes'
        )
      self._found[key] = _smaller(analysis)
    return self._found[key]

  @staticmethod
  def _dtypes(params):
    return tuple(jnp.result_type(leaf) for leaf in jax.tree.leaves(params))

  @staticmethod
  def _key(dtypes, inputs):
    leaves, structure = jax.tree.flatten(inputs)
    shapes = tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)
    return dtypes, structure, shapes, getattr(jax.config, PRECISION)


def _smaller(analysis: Analysis) -> tuple[Smaller, Any]:
  trace, ties, removal, out_tree = analysis
  return Smaller(trace, ties, removal.gone, folds_of(ties, removal)), out_tree


def _shape(x) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


# What checks the result


def _check(function, params, small: Shrunk, examples) -> None:
  """Raises a ValueError where the answers to the examples differ."""
  examples = [jax.tree.map(_drawn, example) for example in examples]
  precision = None if jax.default_backend() == 'cpu' else 'highest'
  with jax.default_matmul_precision(precision):
    wanted = jax.jit(function)(params, *examples)
    found = jax.jit(small.function)(small.params, *examples)
  coarsest = max([_epsilon(leaf) for leaf in jax.tree.leaves((params, wanted))], default=0.0)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    _check_answer(one, other, max(CLOSE, 4 * coarsest))


def _drawn(example):
  """An example of a shape."""
  if not isinstance(example, jax.ShapeDtypeStruct):
    return example
  if jnp.issubdtype(example.dtype, jnp.floating):
    return jax.random.normal(jax.random.key(0), example.shape, example.dtype)
  return jnp.zeros(example.shape, example.dtype)


def _epsilon(leaf) -> float:
  dtype = jnp.result_type(leaf)
  return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _check_answer(found, wanted, close: float) -> None:
  if jnp.issubdtype(jnp.result_type(wanted), jax.dtypes.extended):
    return
  found, wanted = np.asarray(found), np.asarray(wanted)
  if not jnp.issubdtype(wanted.dtype, jnp.inexact):
    differ, spread, same = float((found != wanted).sum()), 0.0, np.array_equal(found, wanted)
  else:
    kind = np.complex128 if np.iscomplexobj(wanted) else np.float64
    found, wanted = found.astype(kind), wanted.astype(kind)
    finite = wanted[np.isfinite(wanted)]
    spread = float(np.abs(finite - finite.mean()).max(initial=0)) if finite.size else 0.0
    spread = spread or float(np.abs(finite).max(initial=0))
    apart = np.where(
      (found == wanted) | (np.isnan(found) & np.isnan(wanted)), 0, np.abs(found - wanted)
    )
    differ = float(np.where(np.isnan(apart), np.inf, apart).max(initial=0))
    same = differ <= close * (spread or 1.0)
  if not same:
    raise ValueError(
      f'shrink: the answers to the examples would differ by {differ:.3g}, where their spread is '
      f'{spread:.3g}: keep the parameters as they are, and report a fault of sparsejax.compact'
    )
