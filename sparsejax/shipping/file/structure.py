"""Trees of parameters as JSON: dicts, lists, tuples and None, with 0 in place of each leaf."""

from typing import Any

import jax

from sparsejax.shipping.file.format import DEPTH_MOST, NODES_MOST, PATHS_MOST, refuse

LEAF, LIST, TUPLE, DICT = 0, 'l', 't', 'd'
_BARE = jax.tree.structure(0)


def described(tree: Any, depth: int = 0) -> Any:
  """Returns [a tree's JSON value], or [] if the tree has nodes of other classes.

  A list or a tuple becomes a list that begins with its kind, and so does a dict with integer keys.

  Example:
    >>> described({'fc': [1.5, (2.5, None)]}), described({0: 1.5})
    ([{'fc': ['l', 0, ['t', 0, None]]}], [['d', 0, 0]])
  """
  if depth > DEPTH_MOST:
    raise ValueError(f'the tree of parameters must be at most {DEPTH_MOST} levels deep')
  if tree is None:
    return [None]
  if type(tree) is dict and all(type(key) is str for key in tree):
    below = [described(node, depth + 1) for node in tree.values()]
    return [dict(zip(tree, (node[0] for node in below), strict=True))] if all(below) else []
  if type(tree) is dict and all(map(_is_key, tree)):
    below = [described(node, depth + 1) for node in tree.values()]
    pairs = zip(tree, below, strict=True)
    return [[DICT, *(x for key, node in pairs for x in (key, node[0]))]] if all(below) else []
  if type(tree) in (list, tuple):
    below = [described(node, depth + 1) for node in tree]
    kind = LIST if type(tree) is list else TUPLE
    return [[kind, *(node[0] for node in below)]] if all(below) else []
  return [LEAF] if jax.tree.structure(tree) == _BARE else []


def rebuilt(value: Any, name: str) -> Any:
  """Returns the tree that a JSON value describes, with True in place of each leaf.

  Args:
    value: the element of the list that `described` returned.
    name: the name of the file, for messages.

  Raises:
    ValueError: if the value describes no tree, or one that is too large.

  Example:
    >>> rebuilt({'fc': ['l', 0, ['t', 0, None]]}, 'file')
    {'fc': [True, (True, None)]}
  """
  _check_extent(value, name)
  return _rebuilt(value, name)


def _check_extent(value: Any, name: str) -> None:
  """Raises a ValueError if the tree is too deep, or its paths would take too much memory."""
  waiting = [(value, 0, 0)]
  nodes, characters = 0, 0
  while waiting:
    node, depth, length = waiting.pop()
    nodes, characters = nodes + 1, characters + length
    below = len(node) if isinstance(node, dict | list) else 0
    if depth > DEPTH_MOST:
      refuse(name, 'the depth of tree', depth, f'at most {DEPTH_MOST}')
    found = nodes + len(waiting) + below
    if found > NODES_MOST:
      refuse(name, 'the number of nodes of tree', found, f'at most {NODES_MOST}')
    if characters > PATHS_MOST:
      refuse(name, 'the total length of the paths of tree', characters, f'at most {PATHS_MOST}')
    if isinstance(node, dict):
      waiting += [(child, depth + 1, length + len(key) + 1) for key, child in node.items()]
    elif isinstance(node, list):
      waiting += [(child, depth + 1, length + 8) for child in node]


def _rebuilt(value: Any, name: str) -> Any:
  if value is None:
    return None
  if type(value) is int and value == LEAF:
    return True
  if isinstance(value, dict):
    return {key: _rebuilt(node, name) for key, node in value.items()}
  kind, *nodes = value if isinstance(value, list) and value else [None]
  if kind == DICT and len(nodes) % 2 == 0 and all(map(_is_key, nodes[::2])):
    return {k: _rebuilt(node, name) for k, node in zip(nodes[::2], nodes[1::2], strict=True)}
  if kind not in (LIST, TUPLE):
    refuse(name, 'a node of tree', value, 'a dict, a list, a tuple, a leaf or None')
  below = [_rebuilt(node, name) for node in nodes]
  return below if kind == LIST else tuple(below)


def _is_key(key: Any) -> bool:
  return type(key) is int and abs(key) < 2**63
