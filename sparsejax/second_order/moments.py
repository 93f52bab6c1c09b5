"""The second moments of a layer's inputs: all that a rule needs to know of the data."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

DAMPING = 0.01  # of `hessian`, where a rule gets no other


class Moments(NamedTuple):
  """The sums of the products of a layer's inputs over rows, an example at one position each.

  Attributes:
    total: float32, (groups, inputs, inputs): the sum of x x^T; or (groups, inputs), its diagonal.
    rows: float32, shape (): the number of rows.
  """

  total: jax.Array
  rows: jax.Array

  @property
  def diagonal(self) -> jax.Array:
    """The sums of squares, (groups, inputs)."""
    return self.total if self.total.ndim == 2 else jnp.diagonal(self.total, axis1=1, axis2=2)


def moments_of(rows: jax.Array, *, diagonal: bool = False) -> Moments:
  """Returns the moments of some rows, computed in float32 whatever the rows' own dtype.

  Args:
    rows: (groups, rows, inputs).
    diagonal: whether only the diagonal is wanted, which takes (inputs) times less memory.

  Example:
    >>> moments_of(jnp.array([[[1.0, 1.0], [1.0, 2.0]]])).total.tolist()
    [[[2.0, 3.0], [3.0, 5.0]]]
    >>> moments_of(jnp.array([[[1.0, 1.0], [1.0, 2.0]]]), diagonal=True).total.tolist()
    [[2.0, 5.0]]
  """
  rows = rows.astype(jnp.float32)
  count = jnp.asarray(rows.shape[1], jnp.float32)
  if diagonal:
    return Moments(jnp.sum(rows**2, axis=1), count)
  return Moments(jnp.matmul(rows.mT, rows, precision='highest'), count)


def hessian(moments: Moments, damping: float) -> tuple[jax.Array, jax.Array]:
  r"""Returns the damped matrix of a layer's least squares, and which inputs are dead.

  .. math:: H = \frac{X^T X}{rows} + \lambda \operatorname{mean}(\operatorname{diag}
    \frac{X^T X}{rows}) I

  An input that is zero in every row is dead. Its row and column have 1 on the diagonal alone, so
  that H is positive definite without damping it further.

  Args:
    moments: the layer's moments, not only their diagonal.
    damping: lambda.

  Returns:
    (H, dead), of shapes (groups, inputs, inputs) and (groups, inputs).

  Raises:
    ValueError: if the moments are a diagonal.

  Example:
    >>> h, dead = hessian(moments_of(jnp.array([[[2.0, 0.0]]])), 0.5)
    >>> h.tolist(), dead.tolist()
    ([[[5.0, 0.0], [0.0, 1.0]]], [[False, True]])
  """
  if moments.total.ndim != 3:
    raise ValueError(
      f'moments of shape {moments.total.shape} must be (groups, inputs, inputs): the rule needs '
      'more than their diagonal'
    )
  matrix = moments.total / moments.rows
  diagonal = jnp.diagonal(matrix, axis1=1, axis2=2)
  dead = diagonal == 0
  damped = diagonal + damping * jnp.mean(diagonal, axis=1, keepdims=True)
  identity = jnp.eye(matrix.shape[-1], dtype=bool)
  return jnp.where(identity, jnp.where(dead, 1.0, damped)[:, None], matrix), dead
