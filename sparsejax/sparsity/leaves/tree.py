"""Parameters by path: the names of leaves, the kernels, and the leaves that a rule applies to."""

import collections
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.leaves import kinds

Choice = str | Callable[[str, jax.Array], bool] | Sequence[str]
BOXES = ('value', 'raw_value')  # attributes in which NNX variables and Flax boxes hold an array


def named_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
  """Returns {path: leaf} in the order of jax.tree.leaves, with the keys of a path joined by '/'.

  The `value` of NNX variables and Flax boxes is left out of paths: NNX's own optimizer passes
  variables to `init` and bare arrays to `update`. A module that holds more than its `value` is not
  a box.

  Raises:
    ValueError: if two leaves have the same path, as in {'a': {'b': 0}, 'a/b': 1}.

  Example:
    >>> named_leaves({'conv1': {'kernel': 0, 'bias': 1}})
    {'conv1/bias': 1, 'conv1/kernel': 0}
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf)
  keys = [path for path, _ in flat]
  if any(path and getattr(path[-1], 'name', '') in BOXES for path in keys):
    keys = _without_boxes(tree, keys, is_leaf)
  found: dict[str, Any] = {}
  for at, (_, leaf) in zip(keys, flat, strict=True):
    path = jax.tree_util.keystr(at, simple=True, separator='/')
    if path in found:
      raise ValueError(f"two parameters have the path '{path}', and each must have its own")
    found[path] = leaf
  return found


def paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
  """Returns the path of every leaf, in the order of jax.tree.leaves.

  Example:
    >>> paths({'conv1': {'kernel': 0, 'bias': 1}})
    ['conv1/bias', 'conv1/kernel']
  """
  return list(named_leaves(tree, is_leaf))


def _without_boxes(tree, keys, is_leaf) -> list[tuple[Any, ...]]:
  """Returns the keys of every leaf, without the attribute of a box that holds only this leaf."""

  def is_in_box(path):
    is_attribute = len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey)
    return is_attribute and path[-1].name in BOXES

  held = collections.Counter(_keys_of_nodes(tree, is_leaf))
  return [path[:-1] if is_in_box(path) and held[path[:-1]] <= 1 else path for path in keys]


def _keys_of_nodes(tree, is_leaf) -> Iterator[tuple[Any, ...]]:
  """Yields the keys of every node, once for each leaf or hole (a None or ()) below it."""

  def is_end(node):
    hole = node is None or (isinstance(node, tuple) and not node)
    return hole or (is_leaf is not None and is_leaf(node))

  for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_end)[0]:
    yield from (path[:n] for n in range(len(path)))


def module_of(path: str) -> str:
  """Returns the path of the module that owns a leaf, or '' for a leaf at the top level.

  Example:
    >>> module_of('block1/conv2/kernel'), module_of('w')
    ('block1/conv2', '')
  """
  return path.rpartition('/')[0]


def is_function(value: Any) -> bool:
  """Returns whether a value is a function and not a tree; Equinox models are callable trees."""
  return callable(value) and jax.tree_util.treedef_is_leaf(jax.tree.structure(value))


CHOICES = ('all', 'kernels')


def patterns(exclude: str | Sequence[str], argument: str = 'exclude') -> tuple[str, ...]:
  """Returns one or several regular expressions as a tuple, or raises a ValueError for a bad one.

  Example:
    >>> patterns('^head/')
    ('^head/',)
  """
  found = (exclude,) if isinstance(exclude, str) else tuple(exclude)
  for pattern in found:
    try:
      re.compile(pattern)
    except re.error as error:
      raise ValueError(f'{argument}={pattern!r} must be a regular expression: {error}') from None
  return found


def choose(params: Any, which: Choice = 'kernels', exclude: str | Sequence[str] = ()) -> Any:
  """Returns a tree of Python bools in the structure of params: whether each leaf is chosen.

  Args:
    params: any pytree of arrays.
    which: 'all' (every trainable parameter), 'kernels' (matrices and filter banks, no embeddings or
      tables of positions), or a function of (path, leaf), which may look at the leaf's shape and
      dtype only: under jit it has no values. Or a sequence of 'kernels' and regular expressions
      searched for in the paths, such as ('kernels', 'embedding$').
    exclude: regular expressions (or one) searched for in the paths of leaves to leave out, such as
      ('classifier', '^conv1/').

  Raises:
    ValueError: if a name is unknown, an expression matches no path, or no leaf is chosen.

  Example:
    >>> choose({'fc1': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}})
    {'fc1': {'bias': False, 'kernel': True}}
  """
  named = named_leaves(params)
  wanted = _selector(which, params, named)
  exclude = patterns(exclude)
  _check_found('exclude', exclude, named)
  chosen = [
    kinds.is_parameter(path, leaf)
    and wanted(path, leaf)
    and not any(re.search(pattern, path) for pattern in exclude)
    for path, leaf in named.items()
  ]
  if named and not any(chosen):
    raise ValueError(_nothing(which, exclude, named))
  return jax.tree.unflatten(jax.tree.structure(params), chosen)


def kernels(params: Any) -> dict[str, Any]:
  """Returns {path: leaf} of the kernels, the leaves whose values are counted as weights.

  Example:
    >>> list(kernels({'fc': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}}))
    ['fc/kernel']
  """
  named = named_leaves(params)
  wanted = _selector('kernels', params, named)
  return {p: leaf for p, leaf in named.items() if kinds.is_parameter(p, leaf) and wanted(p, leaf)}


def scales(params: Any) -> list[str]:
  """Returns the paths of the scales of normalisations, which multiply whole channels.

  Example:
    >>> scales({'bn': {'scale': jnp.ones(2), 'bias': jnp.ones(2)}})
    ['bn/scale']
  """
  nodes = kinds.equinox_nodes(params)
  kind = {path: kinds.kind(path, jnp.shape(p), nodes) for path, p in named_leaves(params).items()}
  return [path for path, found in kind.items() if found == kinds.SCALE]


def _selector(which: Any, params: Any, leaves: Mapping[str, Any]) -> Callable[[str, Any], bool]:
  """Returns a function of (path, leaf) that says whether a leaf is selected; exclusions come later.

  Args:
    which: 'all' or 'kernels'; a sequence of these and of regular expressions, searched for in the
      path; or a function of (path, leaf).
    params: the tree, in which the modules of Equinox tell which leaves are kernels.
    leaves: its leaves by path; an expression that matches none of them is refused.
  """
  if callable(which):
    predicate: Callable[..., Any] = which
    return lambda path, leaf: bool(predicate(path, leaf))
  if isinstance(which, str):  # must be a choice: expressions stand in a sequence
    lookup('choice of parameters', which, dict.fromkeys(CHOICES))  # refuses an unknown one
    which = (which,)
  nodes = kinds.equinox_nodes(params)
  expressions = patterns([entry for entry in which if entry not in CHOICES], 'parameters')
  _check_found('parameters', expressions, leaves)

  def is_selected(path, leaf):
    return (
      'all' in which
      or ('kernels' in which and kinds.is_kernel(path, leaf, nodes))
      or any(re.search(expression, path) for expression in expressions)
    )

  return is_selected


def _check_found(argument: str, expressions: Sequence[str], named: Mapping[str, Any]) -> None:
  for pattern in expressions:
    if named and not any(re.search(pattern, path) for path in named):
      raise ValueError(
        f'{argument}={pattern!r} matches no parameter; there are: {", ".join(named)}'
      )


def _nothing(which, exclude, named) -> str:
  if which == 'kernels' and not exclude:
    shapes = ', '.join(
      f'{path} {jnp.shape(leaf)} {jnp.result_type(leaf)}' for path, leaf in named.items()
    )
    return (
      f'no leaf of {shapes} is a kernel, which has two axes or more, a floating dtype and a '
      "name other than a bias's, a scale's or an embedding's: parameters='all' prunes every leaf, "
      'and a function of (path, leaf) or regular expressions choose some'
    )
  name = which if isinstance(which, str) else getattr(which, '__qualname__', repr(which))
  return f"parameters='{name}', exclude={exclude!r} leaves nothing to choose"


def pick(tree: Any, chosen: Any) -> Any:
  """Returns the tree with None (no leaf at all) in place of the leaves that are not chosen.

  Example:
    >>> pick({'a': 1, 'b': 2}, {'a': True, 'b': False})
    {'a': 1, 'b': None}
  """
  return jax.tree.map(lambda leaf, c: leaf if c else None, tree, chosen)


def merge(picked: Any, rest: Any) -> Any:
  """Returns `rest` with the picked leaves in their places.

  Example:
    >>> merge({'a': 10, 'b': None}, {'a': 1, 'b': 2})
    {'a': 10, 'b': 2}
  """
  return jax.tree.map(lambda p, r: r if p is None else p, picked, rest, is_leaf=lambda p: p is None)
