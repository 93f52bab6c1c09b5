"""What a leaf is: a kernel, a table of embeddings, a scale, or what is added.

Names decide, those that Flax, Haiku, Equinox and PyTorch give; where Equinox' layers look alike by
name and shape, the type of the node that holds the leaf does.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

KERNEL, EMBEDDING, SCALE, OTHER = 'kernel', 'embedding', 'scale', 'other'

# What is added or rescales, whatever its rank: a bias of attention has shape (heads, features).
ADDED = re.compile(r'^(b\d*|beta|offset|shift|mean|var)$|bias|_scale$')
SCALES = re.compile(r'^(scale|gamma)$|(^|_)norm\d*$')
# What `posterior` gives to what a posterior has beside its means.
OF_A_POSTERIOR = re.compile(r'_(log_variance|mean)$')
# Tables whose rows are looked up or added by position.
TABLES = re.compile(
  r'embed|^pos(ition)?s?$|^pos_|_pos$|(^|_)positions?$|(^|_)tokens?$|(^|_)latents?$|(^|_)queries$'
  r'|^w[tp]e$|^probe$|^cls$'
)
NAMED_KERNEL = re.compile(r'kernel|weight|^w')
OF_WEIGHTS = {'Embedding': EMBEDDING, 'LayerNorm': SCALE, 'RMSNorm': SCALE, 'GroupNorm': SCALE}
OF_WEIGHTS |= {'BatchNorm': SCALE, 'SpectralNorm': OTHER, 'WeightNorm': OTHER, 'PReLU': OTHER}
EQUINOX = {(layer, 'weight'): kind for layer, kind in OF_WEIGHTS.items()}
EQUINOX |= {('WeightNorm', 'g'): SCALE}  # of each output, with as many axes as the weight

Nodes = dict[str, Any]


def kind(path: str, shape: tuple[int, ...], nodes: Nodes | None = None) -> str:
  """Returns what a leaf is.

  Args:
    path: joined by '/', without the `value` of NNX' variables and of boxes, as `tree.paths` has it.
    shape: the leaf's shape.
    nodes: Equinox' layers in the tree, as `equinox_nodes` finds them.

  Example:
    >>> kind('query/bias', (4, 8)), kind('Embed_0/embedding', (37, 16))
    ('other', 'embedding')
  """
  parent, _, name = path.rpartition('/')
  node = (nodes or {}).get(parent)
  if (found := EQUINOX.get((type(node).__name__, name))) is not None:
    return found
  if ADDED.search(name) or OF_A_POSTERIOR.search(name):
    return OTHER
  if SCALES.search(name):
    return SCALE
  long = sum(size != 1 for size in shape)
  is_row = len(shape) > 2 and long < 2  # as a learned token is
  if len(shape) < 2 or (is_row and not NAMED_KERNEL.search(name)):
    return OTHER
  return EMBEDDING if TABLES.search(name) else KERNEL


def is_kernel(path: str, leaf: Any, nodes: Nodes | None = None) -> bool:
  """Whether a leaf holds connections (a matrix or a filter bank), as the papers count weights.

  Example:
    >>> is_kernel('conv1/kernel', jnp.zeros((3, 3, 8, 16))), is_kernel('conv1/bias', jnp.zeros(16))
    (True, False)
  """
  return kind(path, jnp.shape(leaf), nodes) == KERNEL


def is_parameter(path: str, leaf: Any) -> bool:
  """Whether a leaf is trainable at all: anything of a floating type.

  Raises:
    ValueError: a function, as Equinox' models hold them beside their arrays.
  """
  if callable(leaf):
    name = getattr(leaf, '__name__', type(leaf).__name__)
    raise ValueError(
      f"'{path}' is the function {name} and must be an array: give the arrays of a model alone, as "
      'of eqx.partition(model, eqx.is_array)'
    )
  return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def equinox_nodes(tree: Any) -> Nodes:
  """Returns {path: node} of Equinox' layers in a tree, without importing Equinox."""

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
