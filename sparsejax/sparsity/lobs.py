"""Layer-wise optimal brain surgeon: removing weights, and updating the others to make up for them.

Each layer is a least-squares problem of its own. Its inputs y have a row for each position of each
example, with a 1 appended for the bias. Changing a unit's weights by dw changes its pre-activations
by dw^T H dw in the mean square, with H = mean of y y^T. Removing weight q, and updating the others
optimally, costs L_q = w_q^2 / (2 [H^-1]_qq).

Weights are removed in several rounds. After each, the kept weights and the costs are computed
again: two weights that can replace each other are both cheap until one of them is removed.

All of it is NumPy in float64 on the host. H has eigenvalues of exactly zero (pixels that are always
black), and rounding in float32 would turn them into values of either sign, larger than the damping.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

DAMPING = 1e-6  # as in the paper, whose recursion for H^-1 starts from 1e6 I
ROUNDS = 10
# The fraction that the first of several rounds keeps, unless more are kept in the end. A unit costs
# the cube of the number of its kept weights, so that a smaller first step would cost far more.
FIRST_DENSITY = 0.4


class Moments(NamedTuple):
  """The second moments of a layer's inputs.

  `groups` is 1 except for grouped convolutions. y are the layer's inputs in the pruned network, and
  g those in the network that its weights were trained in.
  """

  inputs: np.ndarray  # shape=(groups, inputs, inputs): H, the mean of y y^T
  goal: np.ndarray  # shape=(groups, inputs, inputs): the mean of y g^T


def second_moments(pairs: Iterable[Sequence[np.ndarray]]) -> Moments:
  """Returns the moments of batches of (inputs in the pruned network, inputs in the trained one).

  Args:
    pairs: pairs of arrays (groups, rows, inputs) with the same rows; the same array twice if the
      layers before this one are unchanged.

  Raises:
    ValueError: there are no rows.

  Example:
    >>> y = np.array([[[1.0, 0.0], [1.0, 2.0]]])
    >>> second_moments([(y, y)]).inputs.tolist()
    [[[1.0, 1.0], [1.0, 2.0]]]
  """
  inputs = goal = np.zeros(())
  rows = 0
  for pruned, trained in pairs:
    pruned, trained = np.asarray(pruned, np.float64), np.asarray(trained, np.float64)
    inputs = inputs + pruned.mT @ pruned
    goal = goal + pruned.mT @ trained
    rows += pruned.shape[1]
  if not rows:
    raise ValueError('second_moments: pairs has no rows; give batches of one example or more')
  return Moments(inputs / rows, goal / rows)


def removal_costs(weights: np.ndarray, inverse_diagonal: np.ndarray) -> np.ndarray:
  r"""Returns the increase of half the mean squared error from removing each weight alone.

  .. math:: L_q = \frac{w_q^2}{2 [H^{-1}]_{qq}}

  Args:
    weights: any shape.
    inverse_diagonal: [H^-1]_qq for each weight, of a shape that broadcasts to that of the weights.

  Example:
    >>> removal_costs(np.array([2.0, 2.0]), np.array([1.0, 4.0])).tolist()
    [2.0, 0.5]
  """
  return weights**2 / (2 * inverse_diagonal)


def solve_kept(hessian: np.ndarray, goal: np.ndarray, keep: np.ndarray):
  r"""Returns the least-squares solution for the kept weights of a unit, and diag(H_KK^-1).

  .. math:: w_K = H_{KK}^{-1} b_K

  with K the kept weights. This equals the joint update w - H^-1[:,Q] (H^-1[Q,Q])^-1 w_Q that
  removes all others, Q, but inverts a matrix of size |K| instead of one of size |Q|.

  Args:
    hessian: (inputs, inputs), positive definite, float64.
    goal: (inputs,), b: H w for the weights w that are approximated.
    keep: (inputs,), bool, K.

  Returns:
    (weights, diagonal of H_KK^-1), both of shape (inputs,). Where a weight is not kept, they are 0
    and 1.

  Raises:
    ValueError: H is not positive definite.

  Example:
    >>> h = np.array([[4.0, 2.0], [2.0, 4.0]])
    >>> weights, diagonal = solve_kept(h, h @ np.array([1.0, 4.0]), np.array([False, True]))
    >>> weights.tolist(), diagonal.tolist()
    ([0.0, 4.5], [1.0, 0.25])
  """
  from scipy.linalg import lapack  # imported late, to keep importing this module fast

  routines: Any = lapack  # its functions come from Fortran, unknown to type checkers
  kept = np.flatnonzero(keep)
  weights, diagonal = np.zeros(len(goal)), np.ones(len(goal))
  if kept.size:
    factor, failed = routines.dpotrf(hessian[np.ix_(kept, kept)], lower=1)
    if failed:
      raise ValueError('the second moments must be positive definite; give a larger damping')
    weights[kept] = routines.dpotrs(factor, goal[kept], lower=1)[0]
    diagonal[kept] = np.diag(routines.dpotri(factor, lower=1)[0])
  return weights, diagonal


def remove(
  weights: np.ndarray,
  moments: Moments,
  count: int,
  *,
  bias: bool = True,
  damping: float = DAMPING,
  rounds: int = ROUNDS,
) -> np.ndarray:
  r"""Removes all but `count` weights of a layer, and updates those and the biases to compensate.

  .. math:: \min_w \tfrac12 \operatorname{mean} (w^T y - w_0^T g)^2 + \tfrac\lambda2 |w - w_0|^2

  Each round removes the weights of least cost over all units. The first one keeps a fraction of
  0.4, and the later ones shrink what is left by equal factors; if more than 0.4 is kept in the end,
  all rounds shrink it by equal factors.

  One unit costs (its kept weights)^3 multiplications in a round. A 3x3 layer of ResNet-50 with 512
  channels needs 0.7 GB for its moments, and some 3e12 multiplications for the first round.

  Args:
    weights: (groups, inputs, units), w_0; the biases, if any, are the last row of the inputs.
    moments: the second moments of the inputs, including the 1 for the bias.
    count: the number of weights to keep in the layer, without biases.
    bias: whether the last row holds biases, which are updated but never removed.
    damping: lambda, which is added to the diagonal of H.
    rounds: how often the costs are computed; with 1, only in the dense layer.

  Returns:
    New weights in float64; all but `count` of them (and the biases) are exactly zero.

  Raises:
    ValueError: `count` or `rounds` is out of range, or H is not positive definite.

  Example:
    >>> y = np.array([[[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]])  # the inputs (1, x) for x = 1, 2, 3
    >>> w = np.array([[[4.0], [1.0]]])
    >>> remove(w, second_moments([(y, y)]), 1, bias=False).round(3).tolist()
    [[[6.0], [0.0]]]

  References:
    Dong et al. 2017, https://arxiv.org/abs/1705.07565
  """
  weights = np.asarray(weights, np.float64)
  hessian = moments.inputs + damping * np.eye(weights.shape[1])
  goal = moments.goal @ weights + damping * weights
  inverse = np.linalg.inv(hessian)
  new = inverse @ goal  # the best dense weights: w_0, unless the layers before were pruned
  diagonal = np.diagonal(inverse, axis1=1, axis2=2)[..., None]
  del inverse  # it is as large as the moments
  removable = np.ones(weights.shape, bool)
  if bias:
    removable[:, -1] = False
  keep = np.ones(weights.shape, bool)
  for size in _sizes(int(removable.sum()), count, rounds):
    # Below all costs: -1 for weights that are removed, and -2 for biases, which are not ranked.
    costs = np.where(keep, removal_costs(new, diagonal), -1.0)
    keep = ~removable | _largest(np.where(removable, costs, -2.0), size)
    new, diagonal = _solve_units(hessian, goal, keep)
  return new


def _sizes(total: int, count: int, rounds: int) -> list[int]:
  """Returns the number of weights that each round keeps; [] if nothing is removed.

  Example:
    >>> _sizes(1000, 100, 3)
    [400, 200, 100]
  """
  if not 0 <= count <= total:
    raise ValueError(f'count={count} must be from 0 to {total}, the number of weights')
  if rounds < 1:
    raise ValueError(f'rounds={rounds} must be 1 or more')
  if count == total:
    return []
  density = count / total
  first = FIRST_DENSITY if density < FIRST_DENSITY else density ** (1 / rounds)
  steps = max(rounds - 1, 1)
  earlier = [round(total * first * (density / first) ** (i / steps)) for i in range(rounds - 1)]
  return [*earlier, count]


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
  """Returns the mask of the `count` largest scores; among equal ones, the first are taken."""
  mask = np.zeros(scores.size, bool)
  mask[np.argsort(-scores.ravel(), kind='stable')[:count]] = True
  return mask.reshape(scores.shape)


def _solve_units(hessian, goal, keep):
  """Returns `solve_kept` for each unit: weights and diagonals, both (groups, inputs, units)."""
  new, diagonal = np.empty(goal.shape), np.empty(goal.shape)
  for group, unit in np.ndindex(goal.shape[0], goal.shape[2]):
    at = group, slice(None), unit
    new[at], diagonal[at] = solve_kept(hessian[group], goal[at], keep[at])
  return new, diagonal
