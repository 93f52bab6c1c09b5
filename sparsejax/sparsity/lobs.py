"""Layer-wise optimal brain surgeon: remove the weights that the rest can best stand in for.

Each layer is a least-squares problem of its own: with the inputs y (a row for each position of each
example, a 1 appended for the bias), changing a unit's weights by dw changes its pre-activations by
dw^T H dw in the mean square, H = mean of y y^T. Removing weight q alone, and moving the others as
well as can be, costs L_q = w_q^2 / (2 [H^-1]_qq). After a step's removals the kept weights are
solved for anew, and with them the costs: kept at their first values they know nothing of how two
weights stand in for one another.

All of it is NumPy in float64, on the host, once in a run: H has eigenvalues of exactly zero (pixels
that are always black), which float32 sums would scatter over both signs of the damping.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

DAMPING = 1e-6  # of the paper: H^-1 starts from 1e6 I
ROUNDS = 10
FIRST = 0.4  # kept by the first round, or each unit's first inverse would cost all inputs cubed


class Moments(NamedTuple):
  """Second moments of a layer's inputs; `groups` is 1 but for grouped convolutions."""

  inputs: np.ndarray  # (groups, inputs, inputs): H, mean of y y^T
  goal: np.ndarray  # (groups, inputs, inputs): mean of y g^T, g what the weights were made for


def second_moments(pairs: Iterable[Sequence[np.ndarray]]) -> Moments:
  """Returns the moments of a stream of (inputs now, inputs that the weights were made for).

  Args:
    pairs: two arrays (groups, rows, inputs) each, of the same rows; the same array twice where the
      layers before are as they were.

  Example:
    >>> y = np.array([[[1.0, 0.0], [1.0, 2.0]]])
    >>> second_moments([(y, y)]).inputs.tolist()
    [[[1.0, 1.0], [1.0, 2.0]]]
  """
  inputs = goal = np.zeros(())
  rows = 0
  for now, before in pairs:
    now, before = np.asarray(now, np.float64), np.asarray(before, np.float64)
    inputs = inputs + now.mT @ now
    goal = goal + now.mT @ before
    rows += now.shape[1]
  if not rows:
    raise ValueError('second moments of no rows: give batches of 1 or more')
  return Moments(inputs / rows, goal / rows)


def removal_costs(weights: np.ndarray, inverse_diagonal: np.ndarray) -> np.ndarray:
  r"""Returns what removing each weight alone adds to half the mean squared pre-activation error.

  .. math:: L_q = \frac{w_q^2}{2 [H^{-1}]_{qq}}

  Args:
    weights: any shape.
    inverse_diagonal: [H^-1]_qq for each, of the same shape or broadcast to it.

  Example:
    >>> removal_costs(np.array([2.0, 2.0]), np.array([1.0, 4.0])).tolist()
    [2.0, 0.5]
  """
  return weights**2 / (2 * inverse_diagonal)


def solve_kept(hessian: np.ndarray, goal: np.ndarray, keep: np.ndarray):
  r"""Returns one unit's best weights with the others at zero, and the diagonal of their inverse.

  .. math:: w_K = H_{KK}^{-1} b_K

  which is where the joint step -H^-1[:,Q] (H^-1[Q,Q])^-1 w_Q leads, at the cost of the weights that
  stay instead of those that go.

  Args:
    hessian: (inputs, inputs), positive definite, float64.
    goal: (inputs,), b: what H w is for the weights to be approximated.
    keep: (inputs,), bool.

  Returns:
    (weights, zero where not kept; the diagonal of H_KK^-1, 1 where not kept), both (inputs,).

  Raises:
    ValueError: H is not positive definite.

  Example:
    >>> h = np.array([[4.0, 2.0], [2.0, 4.0]])
    >>> weights, diagonal = solve_kept(h, h @ np.array([1.0, 4.0]), np.array([False, True]))
    >>> weights.tolist(), diagonal.tolist()
    ([0.0, 4.5], [1.0, 0.25])
  """
  from scipy.linalg import lapack  # a sixth of what importing the package would take

  routines: Any = lapack  # which has them from Fortran, as no type checker knows
  kept = np.flatnonzero(keep)
  weights, diagonal = np.zeros(len(goal)), np.ones(len(goal))
  if kept.size:
    factor, failed = routines.dpotrf(hessian[np.ix_(kept, kept)], lower=1)
    if failed:
      raise ValueError('the second moments are not positive definite; give more damping')
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
  r"""Keeps `count` weights of a layer and gives them and the biases the values that serve best.

  .. math:: \min_w \tfrac12 \operatorname{mean} (w^T y - w_0^T g)^2 + \tfrac\lambda2 |w - w_0|^2

  The rounds remove by least cost, over all units together: the first down to 0.4 of the weights,
  the others by equal factors (all of them, where more than 0.4 stay). One unit costs kept^3
  multiplications a round. The 3x3 layers with 512 channels of resnet50 take 0.7 GB for their
  moments, and the first round some 3e12 multiplications.

  Args:
    weights: (groups, inputs, units), w_0; with a bias, its row is the last of the inputs.
    moments: the second moments of the inputs, the 1 for the bias included.
    count: how many weights stay in the whole layer, biases not counted.
    bias: whether the last row is the biases: moved with the rest and never removed.
    damping: lambda, added to the diagonal of H.
    rounds: how often costs are computed; 1 ranks once, by the costs in the dense layer.

  Returns:
    New weights, float64, exactly `count` of them kept and the others exactly zero.

  Example:
    >>> y = np.array([[[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]])  # an input that never changes, and one
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
  new = inverse @ goal
  diagonal = np.diagonal(inverse, axis1=1, axis2=2)[..., None]
  del inverse
  removable = np.ones(weights.shape, bool)
  if bias:
    removable[:, -1] = False
  keep = np.ones(weights.shape, bool)
  for size in _sizes(int(removable.sum()), count, rounds):
    costs = np.where(keep, removal_costs(new, diagonal), -1.0)
    keep = ~removable | _largest(np.where(removable, costs, -2.0), size)
    new, diagonal = _solve_units(hessian, goal, keep)
  return new


def _sizes(total: int, count: int, rounds: int) -> list[int]:
  """How many weights each round keeps, falling; none where nothing is removed."""
  if not 0 <= count <= total:
    raise ValueError(f'{count} weights to keep of {total}: the number must be from 0 to {total}')
  if rounds < 1:
    raise ValueError(f'rounds={rounds} must be 1 or more')
  if count == total:
    return []
  share = count / total
  first = FIRST if share < FIRST else share ** (1 / rounds)
  steps = max(rounds - 1, 1)
  between = [round(total * first * (share / first) ** (i / steps)) for i in range(rounds - 1)]
  return [*between, count]


def _largest(scores: np.ndarray, count: int) -> np.ndarray:
  """The mask of the `count` largest; of equals the first."""
  mask = np.zeros(scores.size, bool)
  mask[np.argsort(-scores.ravel(), kind='stable')[:count]] = True
  return mask.reshape(scores.shape)


def _solve_units(hessian, goal, keep):
  new, diagonal = np.empty(goal.shape), np.empty(goal.shape)
  for group, unit in np.ndindex(goal.shape[0], goal.shape[2]):
    at = group, slice(None), unit
    new[at], diagonal[at] = solve_kept(hessian[group], goal[at], keep[at])
  return new, diagonal
