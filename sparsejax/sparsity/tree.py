"""Parameters by path: which leaf is called what, which are kernels, which a rule is over."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.lookup import lookup

# The names that Flax, Haiku, Equinox and PyTorch give to what is added or rescales, whatever its
# rank: a convolution's bias in Equinox has shape (channels, 1, 1) and still is no kernel.
NOT_KERNELS = frozenset({'bias', 'b', 'scale', 'offset', 'mean', 'var'})
# And what `posterior` gives to what a posterior has beside its means.
NOT_KERNELS_END = ('_log_variance', '_mean')

Choice = str | Callable[[str, jax.Array], bool]


def paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
  """Returns the '/'-joined path of every leaf, in the order of jax.tree.leaves.

  Example:
    >>> paths({'conv1': {'kernel': 0, 'bias': 1}})
    ['conv1/bias', 'conv1/kernel']
  """
  flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf)
  return [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in flat]


def named_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
  """Returns {path: leaf} in the order of jax.tree.leaves."""
  return dict(zip(paths(tree, is_leaf), jax.tree.leaves(tree, is_leaf), strict=True))


def is_kernel(path: str, leaf: jax.Array) -> bool:
  """Whether a leaf holds connections (a matrix or a filter bank), as the papers count weights.

  Example:
    >>> is_kernel('conv1/kernel', jnp.zeros((3, 3, 8, 16))), is_kernel('conv1/bias', jnp.zeros(16))
    (True, False)
  """
  name = path.rsplit('/', 1)[-1]
  return jnp.ndim(leaf) >= 2 and name not in NOT_KERNELS and not name.endswith(NOT_KERNELS_END)


def is_scale(path: str) -> bool:
  """Whether a leaf is the scale of a normalisation, by which a whole channel is multiplied.

  Example:
    >>> is_scale('bn1/scale'), is_scale('bn1/bias')
    (True, False)
  """
  return path.rsplit('/', 1)[-1] == 'scale'


def is_parameter(path: str, leaf: jax.Array) -> bool:
  """Whether a leaf is trainable at all: anything of a floating type."""
  del path
  return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


CHOICES: dict[str, Callable[[str, jax.Array], bool]] = {
  'all': is_parameter,
  'kernels': lambda path, leaf: is_kernel(path, leaf) and is_parameter(path, leaf),
}


def patterns(exclude: str | Sequence[str]) -> tuple[str, ...]:
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
      raise ValueError(f'exclude={pattern!r}: no regular expression: {error}') from None
  return found


def choose(params: Any, which: Choice = 'kernels', exclude: str | Sequence[str] = ()) -> Any:
  """Returns a tree of Python bools, the shape of params: the leaves that a rule is over.

  Args:
    params: any pytree of arrays.
    which: 'all' (every trainable parameter), 'kernels', or a function of (path, leaf), which
      should look at the leaf's shape and dtype alone: under jit it has no values.
    exclude: regular expressions (or one) searched for in the paths, to leave leaves out, such as
      ('classifier', '^conv1/').

  Raises:
    ValueError: an unknown name, an expression that no path matches, or nothing left to choose.

  Example:
    >>> choose({'fc1': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}})
    {'fc1': {'bias': False, 'kernel': True}}
  """
  predicate = lookup('choice of parameters', which, CHOICES) if isinstance(which, str) else which
  exclude = patterns(exclude)
  named = named_leaves(params)
  for pattern in exclude:
    if named and not any(re.search(pattern, path) for path in named):
      raise ValueError(f'exclude={pattern!r} matches no parameter; there are: {", ".join(named)}')
  excluded = [any(re.search(pattern, path) for pattern in exclude) for path in named]
  chosen = [
    bool(predicate(path, leaf)) and not out
    for (path, leaf), out in zip(named.items(), excluded, strict=True)
  ]
  if named and not any(chosen):
    name = which if isinstance(which, str) else getattr(which, '__qualname__', repr(which))
    raise ValueError(f"parameters='{name}', exclude={exclude!r} leaves nothing to choose")
  return jax.tree.unflatten(jax.tree.structure(params), chosen)


def pick(tree: Any, chosen: Any) -> Any:
  """Returns the tree of the chosen leaves alone, None (no leaf at all) for the others.

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
