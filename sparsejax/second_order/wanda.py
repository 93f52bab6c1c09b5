"""Wanda: the diagonal of SparseGPT, without an update of the weights that stay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.second_order import keeping
from sparsejax.second_order.moments import Moments
from sparsejax.sparsity.parts.selection import keep_largest


def wanda(kernel: jax.Array, moments: Moments, keep: keeping.Keep) -> tuple[jax.Array, jax.Array]:
  r"""Keeps the weights of each row with the largest products of their size and their input's norm.

  .. math:: score_{ij} = |w_{ij}| \, \|x_j\|_2

  All rows keep the same number, but that the first rows keep one more where the number of weights
  is no multiple of the number of rows. A factor on a row does not change its mask.

  Args:
    kernel: (groups, outputs, inputs); a row is an output, or a filter.
    moments: the second moments of the inputs, or their diagonal.
    keep: the number of weights to keep, or (n, m) to keep n of each m consecutive inputs.

  Returns:
    (new kernel, mask); the weights that stay are unchanged.

  Raises:
    ValueError: if `keep` is out of range, or the moments do not fit the kernel.

  Example:
    >>> from sparsejax.second_order.moments import moments_of
    >>> moments = moments_of(jnp.array([[[1.0, 3.0], [1.0, 0.0]]]))
    >>> wanda(jnp.array([[[2.0, 1.0], [30.0, 1.0]]]), moments, 2)[0].tolist()
    [[[0.0, 1.0], [30.0, 0.0]]]

  References:
    Sun et al. 2023, https://arxiv.org/abs/2306.11695
  """
  keeping.check(kernel, moments, keep)
  if isinstance(keep, tuple):
    return _pruned(kernel, moments.diagonal, None, n_m=keep)
  groups, outputs, _ = kernel.shape
  each, more = divmod(keep, max(groups * outputs, 1))
  counts = each + (np.arange(groups * outputs) < more)
  return _pruned(kernel, moments.diagonal, jnp.asarray(counts, jnp.int32))


@functools.partial(jax.jit, static_argnames='n_m')
def _pruned(kernel, squares, counts, n_m=None):
  # The squares have the order of the scores, and are exact for integers.
  scores = kernel.astype(jnp.float32) ** 2 * squares[:, None]
  if n_m is not None:
    mask = keeping.best_of_each(scores, *n_m)
  else:
    rows = scores.reshape(-1, kernel.shape[-1])
    mask = jax.vmap(keep_largest)(rows, counts).reshape(kernel.shape)
  return jnp.where(mask, kernel, 0), mask
