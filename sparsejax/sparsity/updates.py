"""Update rules: from the mask that was, the scores and the counts to the mask that will be.

An update rule is a function `rule(mask, scores, count) -> mask` of one layer.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sparsejax.sparsity.allocation import keep_largest

UpdateRule = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def nested(mask: jax.Array, scores: jax.Array, count: jax.Array) -> jax.Array:
  """Masks only shrink: the largest scores stay among those that were still there.

  Example:
    >>> nested(jnp.array([True, False, True]), jnp.array([1.0, 9.0, 2.0]), 1).tolist()
    [False, False, True]
  """
  return mask & keep_largest(jnp.where(mask, scores, -jnp.inf), count)
