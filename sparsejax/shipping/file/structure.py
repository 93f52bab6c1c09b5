"""A tree of parameters as JSON: dicts, lists, tuples and None, with 0 in the place of each leaf."""

from typing import Any

import jax

from sparsejax.shipping.file.format import DEPTH_MOST, refuse

LEAF, LIST, TUPLE, DICT = 0, 'l', 't', 'd'
_BARE = jax.tree.structure(0)


def described(tree: Any, depth: int = 0) -> Any:
  """Returns a tree as JSON has it, in a list; an empty list where it has nodes of other classes.

  A list or a tuple is a list that begins with which it is; a dict with numbers for keys is one too.

  Example:
    >>> described({'fc': [1.5, (2.5, None)]}), described({0: 1.5})
    ([{'fc': ['l', 0, ['t', 0, None]]}], [['d', 0, 0]])
  """
  if depth > DEPTH_MOST:
    raise ValueError(f'a tree of parameters must be at most {DEPTH_MOST} deep')
  if tree is None:
    return [None]
  if type(tree) is dict and all(type(key) is str for key in tree):
    below = [described(node, depth + 1) for node in tree.values()]
    return [dict(zip(tree, (node[0] for node in below), strict=True))] if all(below) else []
  if type(tree) is dict and all(type(key) is int for key in tree):
    below = [described(node, depth + 1) for node in tree.values()]
    pairs = zip(tree, below, strict=True)
    return [[DICT, *(x for key, node in pairs for x in (key, node[0]))]] if all(below) else []
  if type(tree) in (list, tuple):
    below = [described(node, depth + 1) for node in tree]
    kind = LIST if type(tree) is list else TUPLE
    return [[kind, *(node[0] for node in below)]] if all(below) else []
  return [LEAF] if jax.tree.structure(tree) == _BARE else []


def rebuilt(value: Any, name: str, depth: int = 0) -> Any:
  """Returns the tree that JSON tells of, with True in the place of each leaf.

  Args:
    value: the one that `described` returned in its list.
    name: of the file, for what is wrong with it.

  Raises:
    ValueError: a value that is not of such a tree.

  Example:
    >>> rebuilt({'fc': ['l', 0, ['t', 0, None]]}, 'file')
    {'fc': [True, (True, None)]}
  """
  if depth > DEPTH_MOST:
    refuse(name, 'the depth of tree', depth, f'at most {DEPTH_MOST}')
  if value is None:
    return None
  if type(value) is int and value == LEAF:
    return True
  if isinstance(value, dict):
    return {key: rebuilt(node, name, depth + 1) for key, node in value.items()}
  kind, *nodes = value if isinstance(value, list) and value else [None]
  if kind == DICT and len(nodes) % 2 == 0 and all(type(key) is int for key in nodes[::2]):
    keys = nodes[::2]
    return {k: rebuilt(node, name, depth + 1) for k, node in zip(keys, nodes[1::2], strict=True)}
  if kind not in (LIST, TUPLE):
    refuse(name, 'a node of tree', value, 'a dict, a list, a tuple, a leaf or nothing')
  below = [rebuilt(node, name, depth + 1) for node in nodes]
  return below if kind == LIST else tuple(below)
