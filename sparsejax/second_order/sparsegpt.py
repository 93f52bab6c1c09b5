"""SparseGPT: optimal brain surgery whose inverse is shared by all rows of a layer."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.second_order import keeping
from sparsejax.second_order.moments import DAMPING, Moments, hessian
from sparsejax.sparsity.parts.selection import keep_largest

BLOCK = 128


def sparsegpt(
  kernel: jax.Array,
  moments: Moments,
  keep: keeping.Keep,
  *,
  damping: float = DAMPING,
  block: int = BLOCK,
) -> tuple[jax.Array, jax.Array]:
  r"""Removes weights column by column; later columns make up for what earlier ones have lost.

  .. math:: H^{-1} = U^T U, \quad score_{ij} = w_{ij}^2 / U_{jj}^2

  with U upper triangular. Masks are chosen for a block of columns at a time, from the weights as
  they are on reaching it: the largest scores over all rows stay. Every block keeps the same share.
  For n:m, the n largest of m columns of each row stay, chosen on reaching the first of them.

  Args:
    kernel: (groups, outputs, inputs).
    moments: the second moments of the inputs, not only their diagonal.
    keep: the number of weights to keep, or (n, m) to keep n of each m consecutive inputs.
    damping: what is added to the diagonal of H, as a share of its mean.
    block: the number of columns in a block; for n:m, rounded down to a multiple of m.

  Returns:
    (new kernel, mask); the new kernel has the dtype of the old one, and zeros outside of the mask.

  Raises:
    ValueError: if an argument is out of range, or the moments do not fit the kernel.

  Example:
    >>> from sparsejax.second_order.moments import moments_of
    >>> rows = jnp.array([[[1.0, 0.0], [1.0, 2.0]]])  # the inputs (1, x) for x = 0 and 2
    >>> kernel, mask = sparsegpt(jnp.array([[[1.0, 4.0]]]), moments_of(rows), 1, damping=0.0)
    >>> kernel.round(3).tolist(), mask.tolist()
    ([[[0.0, 4.5]]], [[[False, True]]])

  References:
    Frantar and Alistarh 2023, https://arxiv.org/abs/2301.00774
  """
  keeping.check(kernel, moments, keep)
  if not damping >= 0 or not block >= 1:
    raise ValueError(f'damping={damping} must be 0 or more, and block={block} must be 1 or more')
  groups, outputs, inputs = kernel.shape
  n_m = keep if isinstance(keep, tuple) else None
  multiple = n_m[1] if n_m else 1
  block = max(min(block, inputs + -inputs % multiple) // multiple, 1) * multiple
  starts = np.arange(0, inputs, block)
  sizes = np.minimum(block, inputs - starts) * groups * outputs
  counts = np.zeros(len(starts), int) if isinstance(keep, tuple) else keeping.shares(keep, sizes)
  return _pruned(kernel, moments, jnp.asarray(counts, jnp.int32), damping, block=block, n_m=n_m)


@functools.partial(jax.jit, static_argnames=('block', 'n_m'))
def _pruned(kernel, moments, counts, damping, *, block, n_m):
  inputs = kernel.shape[-1]
  matrix, dead = hessian(moments, damping)
  alive = jnp.where(dead[:, None], 0.0, kernel.astype(jnp.float32))
  upper = inverse_factor(matrix)
  missing = -inputs % block
  padded = jnp.pad(alive, ((0, 0), (0, 0), (0, missing)))
  upper = jax.vmap(lambda u: jax.scipy.linalg.block_diag(u, jnp.eye(missing, dtype=u.dtype)))(upper)
  new, mask = _over_blocks(padded, upper, counts, inputs, block, n_m)
  new, mask = new[..., :inputs], mask[..., :inputs]
  return jnp.where(mask, new, 0.0).astype(kernel.dtype), mask


def inverse_factor(matrix: jax.Array) -> jax.Array:
  """Returns the upper triangular U with H^-1 = U^T U, without ever forming H^-1.

  H = R R^T with R upper triangular, which is the Cholesky factor of H with both axes reversed, and
  then U = R^-1.

  Args:
    matrix: (groups, inputs, inputs), positive definite.

  Example:
    >>> inverse_factor(jnp.array([[[4.0, 0.0], [0.0, 16.0]]])).tolist()
    [[[0.5, 0.0], [0.0, 0.25]]]
  """
  right = jnp.linalg.cholesky(matrix[:, ::-1, ::-1])[:, ::-1, ::-1]
  identity = jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
  return jnp.triu(jax.scipy.linalg.solve_triangular(right, identity, lower=False))


class _Block(NamedTuple):
  """A block of columns while it is pruned: weights, mask, and the errors of the columns done."""

  weights: jax.Array
  mask: jax.Array
  errors: jax.Array


def _over_blocks(kernel, upper, counts, inputs, block, n_m):
  """Prunes all blocks in turn; each one's errors go to the columns after it."""
  columns = jnp.arange(kernel.shape[-1])

  def prune_block(b, carry):
    weights, masks = carry
    start = b * block
    rows = jax.lax.dynamic_slice_in_dim(upper, start, block, axis=1)
    own = jax.lax.dynamic_slice_in_dim(rows, start, block, axis=2)
    within = jax.lax.dynamic_slice_in_dim(weights, start, block, axis=2)
    is_real = start + jnp.arange(block) < inputs
    done = _within_block(within, own, is_real, counts[b], n_m)
    after = jnp.where(columns >= start + block, rows, 0.0)
    weights = weights - jnp.matmul(done.errors, after, precision='highest')
    weights = jax.lax.dynamic_update_slice_in_dim(weights, done.weights, start, axis=2)
    masks = jax.lax.dynamic_update_slice_in_dim(masks, done.mask, start, axis=2)
    return weights, masks

  blocks = kernel.shape[-1] // block
  return jax.lax.fori_loop(0, blocks, prune_block, (kernel, jnp.zeros(kernel.shape, bool)))


def _within_block(weights, upper, is_real, count, n_m) -> _Block:
  """Prunes the columns of a block in turn.

  Args:
    weights: (groups, outputs, columns).
    upper: (groups, columns, columns), the block of U.
    is_real: (columns,), False for columns of padding.
    count: the number of weights to keep in the block, unless n_m is given.
    n_m: (n, m), or None.
  """
  diagonal = jnp.diagonal(upper, axis1=1, axis2=2)

  def scores(block_weights):
    found = block_weights**2 / diagonal[:, None] ** 2
    return jnp.where(is_real, found, -jnp.inf)

  def prune_column(q, state):
    weights, mask, errors = state
    if n_m is not None:
      mask = jax.lax.cond(q % n_m[1] == 0, lambda: chosen(q, weights, mask), lambda: mask)
    error = jnp.where(mask[..., q], 0.0, weights[..., q]) / diagonal[:, None, q]
    weights = weights - error[..., None] * upper[:, None, q]
    return _Block(weights, mask, errors.at[..., q].set(error))

  def chosen(q, weights, mask):
    n, m = n_m
    best = keeping.best_of_each(jax.lax.dynamic_slice_in_dim(scores(weights), q, m, axis=2), n, m)
    return jax.lax.dynamic_update_slice_in_dim(mask, best, q, axis=2)

  none = jnp.zeros(weights.shape, bool)
  mask = none if n_m is not None else keep_largest(scores(weights), count)
  state = _Block(weights, mask, jnp.zeros_like(weights))
  return jax.lax.fori_loop(0, weights.shape[-1], prune_column, state)
