"""The random streams of one seed: each use has its own root key, so that no two share bits.

`fold_in(key, i)` equals `split(key)[i]`, so a key that is folded in one place and split in another
gives both the same bits. The seed's own key is therefore used only through this module.
"""

import jax

INIT, ORDER, EXAMPLES, DROPOUT, PRUNING, NOISE = range(6)


def stream(key: jax.Array, which: int) -> jax.Array:
  """Returns the root key of one use of the seed's key.

  Example:
    >>> roots = [stream(jax.random.key(0), which) for which in (INIT, ORDER)]
    >>> bool(roots[0] == roots[1])
    False
  """
  return jax.random.fold_in(key, which)
