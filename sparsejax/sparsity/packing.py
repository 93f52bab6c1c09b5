"""Masks on disk: a bit for each weight, where memory takes a byte."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def pack_masks(tree: Any) -> Any:
  """Returns the tree with every array of bools as uint8, eight to a byte, flat; others as they are.

  Example:
    >>> pack_masks({'mask': jnp.array([[True, False], [True, True]]), 'w': jnp.ones(1)})
    {'mask': Array([176], dtype=uint8), 'w': Array([1.], dtype=float32)}
  """
  return jax.tree.map(lambda leaf: jnp.packbits(leaf) if _is_mask(leaf) else leaf, tree)


def unpack_masks(packed: Any, like: Any) -> Any:
  """Returns what `pack_masks` packed.

  Args:
    packed: the packed tree.
    like: a tree of the same structure whose bools have the shapes that were packed.

  Example:
    >>> masks = {'mask': jnp.array([[True, False], [True, True]])}
    >>> unpack_masks(pack_masks(masks), masks)['mask'].tolist()
    [[True, False], [True, True]]
  """

  def unpack(leaf, shaped):
    if not _is_mask(shaped):
      return leaf
    bits = jnp.unpackbits(leaf, count=math.prod(shaped.shape))
    return bits.reshape(shaped.shape).astype(bool)

  return jax.tree.map(unpack, packed, like)


def _is_mask(leaf: Any) -> bool:
  return getattr(leaf, 'dtype', None) == jnp.bool_
