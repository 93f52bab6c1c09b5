"""Layer-wise optimal brain surgeon on the device: each row is solved anew for what it keeps.

`sparsejax.lobs` has the same method in NumPy, with biases and in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.second_order import keeping
from sparsejax.second_order.moments import DAMPING, Moments, hessian
from sparsejax.sparsity.parts.selection import keep_largest

ROUNDS = 10
AT_ONCE = 8  # rows that are solved at a time, each with a matrix of (inputs, inputs) of its own


def lobs(
  kernel: jax.Array,
  moments: Moments,
  keep: keeping.Keep,
  *,
  damping: float = DAMPING,
  rounds: int = ROUNDS,
) -> tuple[jax.Array, jax.Array]:
  r"""Removes the weights that cost least, in rounds, and solves for those that stay in each row.

  .. math:: L_q = \frac{w_q^2}{2 [H_{KK}^{-1}]_{qq}}, \quad w_K = H_{KK}^{-1} (H w_0)_K

  with K the weights that a row keeps. Each round keeps the same share of the round before, and
  ranks all rows together. For n:m, each round removes one weight of each m inputs of an output.

  The solution is the best for its mask, which SparseGPT's is not, at the price of (inputs)^3
  multiplications for every row in every round.

  Args:
    kernel: (groups, outputs, inputs), w_0.
    moments: the second moments of the inputs, not only their diagonal.
    keep: the number of weights to keep, or (n, m) to keep n of each m consecutive inputs.
    damping: what is added to the diagonal of H, as a share of its mean.
    rounds: how often the costs are computed, 1 or more; not read for n:m.

  Returns:
    (new kernel, mask); the new kernel has the dtype of the old one, and zeros outside of the mask.

  Raises:
    ValueError: if an argument is out of range, or the moments do not fit the kernel.

  Example:
    >>> from sparsejax.second_order.moments import moments_of
    >>> rows = jnp.array([[[1.0, 0.0], [1.0, 2.0]]])  # the inputs (1, x) for x = 0 and 2
    >>> kernel, mask = lobs(jnp.array([[[1.0, 4.0]]]), moments_of(rows), 1, damping=0.0)
    >>> kernel.round(3).tolist(), mask.tolist()
    ([[[0.0, 4.5]]], [[[False, True]]])

  References:
    Dong et al. 2017, https://arxiv.org/abs/1705.07565
  """
  keeping.check(kernel, moments, keep)
  if not damping >= 0 or not rounds >= 1:
    raise ValueError(f'damping={damping} must be 0 or more, and rounds={rounds} must be 1 or more')
  if isinstance(keep, tuple):
    n, m = keep
    return _pruned(kernel, moments, jnp.arange(m - 1, n - 1, -1), damping, m=m)
  return _pruned(kernel, moments, jnp.asarray(_sizes(kernel.size, keep, rounds)), damping)


def _sizes(total: int, count: int, rounds: int) -> np.ndarray:
  """Returns the number of weights that each round keeps.

  Example:
    >>> _sizes(1000, 1, 3).tolist()
    [100, 10, 1]
  """
  share = max(count, 1) / max(total, 1)
  found = [round(total * share ** (i / rounds)) for i in range(1, rounds)]
  return np.array([*found, count], np.int32)


@functools.partial(jax.jit, static_argnames='m')
def _pruned(kernel, moments, sizes, damping, m=None):
  matrix, dead = hessian(moments, damping)
  first = jnp.where(dead[:, None], 0.0, kernel.astype(jnp.float32))
  goal = jnp.matmul(first, matrix, precision='highest')
  diagonal = jnp.diagonal(jnp.linalg.inv(matrix), axis1=1, axis2=2)

  def remove(size, state):
    mask, weights, inverse = state
    costs = jnp.where(mask, weights**2 / inverse, -1.0)
    mask &= keep_largest(costs, size) if m is None else keeping.best_of_each(costs, size, m)
    return mask, *_solved(matrix, goal, mask)

  start = jnp.ones(kernel.shape, bool), first, jnp.broadcast_to(diagonal[:, None], kernel.shape)
  (mask, weights, _), _ = jax.lax.scan(
    lambda state, size: (remove(size, state), None), start, sizes
  )
  return jnp.where(mask, weights, 0.0).astype(kernel.dtype), mask


def _solved(matrix, goal, mask) -> tuple[jax.Array, jax.Array]:
  """Returns the weights that solve each row for what its mask keeps, and diag(H_KK^-1).

  Where a weight is not kept, they are 0 and 1. All arguments but H are (groups, outputs, inputs).
  """
  outputs, inputs = mask.shape[1:]
  identity = jnp.eye(inputs, dtype=matrix.dtype)

  def row(given):
    group, wanted, keep = given
    own = jnp.where(keep[:, None] & keep[None], matrix[group], identity)
    inverse = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(own), identity, lower=True)
    half = jnp.matmul(inverse, jnp.where(keep, wanted, 0.0), precision='highest')
    return jnp.matmul(half, inverse, precision='highest'), jnp.sum(inverse**2, axis=0)

  groups = jnp.repeat(jnp.arange(mask.shape[0]), outputs)
  rows = groups, goal.reshape(-1, inputs), mask.reshape(-1, inputs)
  weights, diagonals = jax.lax.map(row, rows, batch_size=AT_ONCE)
  return weights.reshape(mask.shape), diagonals.reshape(mask.shape)
