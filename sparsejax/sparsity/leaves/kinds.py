"""The kind of a leaf: a kernel, an embedding table, a scale, or other.

The names given by Flax, Haiku, Equinox and PyTorch decide. Where Equinox layers look alike by name
and shape, the type of the node that holds the leaf decides.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

KERNEL, EMBEDDING, SCALE, OTHER = 'kernel', 'embedding', 'scale', 'other'

# Leaves that are added or rescale, of any rank: an attention bias has shape (heads, features).
ADDED_NAMES = re.compile(r'^(b\d*|beta|offset|shift|mean|var)$|bias|_scale$')
SCALE_NAMES = re.compile(r'^(scale|gamma)$|(^|_)norm\d*$')
# Names that `posterior` gives to the leaves of a posterior besides its means.
POSTERIOR_NAMES = re.compile(r'_(log_variance|mean)$')
# Tables whose rows are looked up, or added by position.
TABLE_NAMES = re.compile(
  r'embed|^pos(ition)?s?$|^pos_|_pos$|(^|_)positions?$|(^|_)tokens?$|(^|_)latents?$|(^|_)queries$'
  r'|^w[tp]e$|^probe$|^cls$'
)
KERNEL_NAMES = re.compile(r'kernel|weight|^w')
WEIGHT_KINDS = {'Embedding': EMBEDDING, 'LayerNorm': SCALE, 'RMSNorm': SCALE, 'GroupNorm': SCALE}
WEIGHT_KINDS |= {'BatchNorm': SCALE, 'SpectralNorm': OTHER, 'WeightNorm': OTHER, 'PReLU': OTHER}
EQUINOX = {(layer, 'weight'): kind for layer, kind in WEIGHT_KINDS.items()}
EQUINOX |= {('WeightNorm', 'g'): SCALE}  # one for each output, with as many axes as the weight

Nodes = dict[str, Any]


def kind(path: str, shape: tuple[int, ...], nodes: Nodes | None = None) -> str:
  """Returns the kind of a leaf: KERNEL, EMBEDDING, SCALE or OTHER.

  Args:
    path: the leaf's path, as `tree.paths` returns it.
    shape: the leaf's shape.
    nodes: the Equinox layers in the tree, as `equinox_nodes` returns them.

  Example:
    >>> kind('query/bias', (4, 8)), kind('Embed_0/embedding', (37, 16))
    ('other', 'embedding')
  """
  parent, _, name = path.rpartition('/')
  node = (nodes or {}).get(parent)
  if (found := EQUINOX.get((type(node).__name__, name))) is not None:
    return found
  if ADDED_NAMES.search(name) or POSTERIOR_NAMES.search(name):
    return OTHER
  if SCALE_NAMES.search(name):
    return SCALE
  long = sum(size != 1 for size in shape)
  is_row = len(shape) > 2 and long < 2  # such as a learned token
  if len(shape) < 2 or (is_row and not KERNEL_NAMES.search(name)):
    return OTHER
  return EMBEDDING if TABLE_NAMES.search(name) else KERNEL


def is_kernel(path: str, leaf: Any, nodes: Nodes | None = None) -> bool:
  """Returns whether a leaf holds connections (a matrix or a filter bank), which papers count.

  Example:
    >>> is_kernel('conv1/kernel', jnp.zeros((3, 3, 8, 16))), is_kernel('conv1/bias', jnp.zeros(16))
    (True, False)
  """
  return kind(path, jnp.shape(leaf), nodes) == KERNEL


def is_parameter(path: str, leaf: Any) -> bool:
  """Returns whether a leaf is trainable: whether it has a floating dtype.

  Raises:
    ValueError: if the leaf is a function, which Equinox models hold beside their arrays.
  """
  if callable(leaf):
    name = getattr(leaf, '__name__', type(leaf).__name__)
    raise ValueError(
      f"'{path}' is the function {name} and must be an array: pass only the arrays of a model, as "
      'from eqx.partition(model, eqx.is_array)'
    )
  return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def equinox_nodes(tree: Any) -> Nodes:
  """Returns {path: node} for the Equinox layers in a tree, without importing Equinox."""

  def is_layer(node):
    return type(node).__module__.startswith('equinox.nn')

  def below(node, path, found):
    leaf: Callable[[Any], bool] = lambda inner: inner is not node and is_layer(inner)  # noqa: E731
    for keys, inner in jax.tree_util.tree_flatten_with_path(node, leaf)[0]:
      if is_layer(inner):
        at = '/'.join(filter(None, (path, jax.tree_util.keystr(keys, simple=True, separator='/'))))
        found[at] = inner
        below(inner, at, found)
    return found

  return below(tree, '', {'': tree} if is_layer(tree) else {})
