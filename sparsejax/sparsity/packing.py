"""Packing masks into one bit for each weight, for checkpoints."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def pack_masks(tree: Any) -> Any:
  """Returns the tree with each array of bools packed into a flat array of uint8, 8 bools to a byte.

  Other leaves are kept.

  Example:
    >>> pack_masks({'mask': jnp.array([[True, False], [True, True]]), 'w': jnp.ones(1)})
    {'mask': Array([176], dtype=uint8), 'w': Array([1.], dtype=float32)}
  """
  return jax.tree.map(lambda leaf: jnp.packbits(leaf) if _is_mask(leaf) else leaf, tree)


def unpack_masks(packed: Any, like: Any) -> Any:
  """Returns the tree that `pack_masks` packed.

  Args:
    packed: the packed tree.
    like: a tree of the same structure whose arrays of bools have the shapes to restore.

  Example:
    >>> masks = {'mask': jnp.array([[True, False], [True, True]])}
    >>> unpack_masks(pack_masks(masks), masks)['mask'].tolist()
    [[True, False], [True, True]]
  """

  def unpack(leaf, mask_like):
    if not _is_mask(mask_like):
      return leaf
    # The count leaves out the bits that pad the last byte.
    bits = jnp.unpackbits(leaf, count=math.prod(mask_like.shape))
    return bits.reshape(mask_like.shape).astype(bool)

  return jax.tree.map(unpack, packed, like)


def _is_mask(leaf: Any) -> bool:
  return getattr(leaf, 'dtype', None) == jnp.bool_
