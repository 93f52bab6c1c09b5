"""Granularity: what is kept or removed as one, a single weight or a group of them.

A granularity is a pair of functions of one leaf: `pool` makes one score for each group of the
weights' scores, `spread` makes the weights' mask of the groups' mask. Of a mask's ones and zeros,
`pool` must make more than 0 for a group that is still there. Targets and floors count groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Granularity(NamedTuple):
  """pool: weights' scores -> groups' scores; spread: (groups' mask, shape) -> weights' mask."""

  pool: Callable[[jax.Array], jax.Array]
  spread: Callable[[jax.Array, tuple[int, ...]], jax.Array]


def weight() -> Granularity:
  """Every weight for itself.

  Example:
    >>> import jax.numpy as jnp
    >>> weight().pool(jnp.array([3.0, 1.0])).tolist()
    [3.0, 1.0]
  """
  return Granularity(pool=lambda scores: scores, spread=lambda mask, shape: mask.reshape(shape))
