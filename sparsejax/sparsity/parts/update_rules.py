"""Update rules (nested, SET, RigL, GraNet): how the old mask, scores and counts make the new mask.

A rule is data: whether and how removed weights regrow. `exchange` drops and regrows the weights of
one layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.parts import criteria
from sparsejax.sparsity.parts.selection import keep_largest

Select = Callable[[jax.Array, jax.Array | int], jax.Array]  # (scores, count) -> mask
STARTS = ('random', 'criterion')


class UpdateRule(NamedTuple):
  """How masks are renewed.

  grow: the criterion by which removed groups regrow, or None for masks that only shrink.
  drop_fraction: step -> the share of a layer's active groups that is dropped so that others grow.
  start: how a whole layer is thinned first, by the 'criterion' or at 'random'.
  """

  grow: criteria.Criterion | None = None
  drop_fraction: Callable[[jax.Array | int], jax.Array] | None = None
  start: str = 'criterion'


def nested() -> UpdateRule:
  """Masks only shrink: a removed weight stays removed.

  Example:
    >>> nested().grow is None
    True
  """
  return UpdateRule()


def set_(drop_fraction: float = 0.3, *, start: str = 'random') -> UpdateRule:
  """Sparse evolutionary training: drops the lowest-scoring share and regrows as many at random.

  The paper starts from a random mask, the default of `start`. With 'criterion', the dense network
  is pruned by the criterion instead, which suits a schedule of decreasing densities.

  Args:
    drop_fraction: the share of a layer's active weights exchanged each time, in [0, 1].
    start: 'random' or 'criterion'.

  Raises:
    ValueError: if drop_fraction is outside its range, or start is unknown.

  Example:
    >>> float(set_(0.25).drop_fraction(step=100))
    0.25

  References:
    Mocanu et al. 2018, https://arxiv.org/abs/1707.04780
  """
  _check(drop_fraction, start)
  return UpdateRule(criteria.random, lambda step: jnp.float32(drop_fraction), start)


def rigl(end: int, drop_fraction: float = 0.3, *, start: str = 'random') -> UpdateRule:
  r"""The rigged lottery: drops the lowest-scoring share, regrows where the gradient is largest.

  .. math:: drop\_fraction_t = \frac{drop\_fraction}{2} (1 + \cos(\pi t / end))

  The gradient is the raw, dense one: the extra argument `grad`.

  Args:
    end: the step from which nothing is exchanged, about 75 % of training.
    drop_fraction: the share of a layer's active weights exchanged at step 0, in [0, 1].
    start: 'random', as in the paper, or 'criterion'.

  Raises:
    ValueError: if end is below 1, drop_fraction is outside its range, or start is unknown.

  Example:
    >>> rule = rigl(end=100)
    >>> [round(float(rule.drop_fraction(step)), 3) for step in (0, 50, 100)]
    [0.3, 0.15, 0.0]

  References:
    Evci et al. 2020, https://arxiv.org/abs/1911.11134
  """
  _check(drop_fraction, start)
  return UpdateRule(criteria.gradient_magnitude, _cosine('rigl', end, drop_fraction), start)


def granet(end: int, drop_fraction: float = 0.5) -> UpdateRule:
  r"""Gradual pruning with regrowth: prunes to the density, then exchanges a share of the weights.

  .. math:: drop\_fraction_t = \frac{drop\_fraction}{2} (1 + \cos(\pi t / end))

  The dense network is thinned by a schedule of decreasing densities, such as `cubic`. At each step
  of it, the lowest-scoring weights are removed until the density is met. Then the lowest-scoring
  share of the others is exchanged for as many weights where the gradient, the extra argument
  `grad`, is largest. This is `rigl` with `start='criterion'`.

  Args:
    end: the step from which nothing is exchanged.
    drop_fraction: the share of a layer's active weights exchanged at step 0, in [0, 1].

  Raises:
    ValueError: if end is below 1, or drop_fraction is outside its range.

  Example:
    >>> mask, scores = jnp.ones(4, bool), jnp.array([4.0, 3.0, 2.0, 1.0])
    >>> gradient = jnp.array([0.0, 0.0, 0.0, 9.0])
    >>> exchange(granet(end=100), mask, scores, 2, grow_scores=gradient).tolist()
    [True, False, False, True]

  References:
    Liu et al. 2021, https://arxiv.org/abs/2106.10404
  """
  _check(drop_fraction, 'criterion')
  return UpdateRule(criteria.gradient_magnitude, _cosine('granet', end, drop_fraction), 'criterion')


def _cosine(name: str, end: int, drop_fraction: float) -> Callable[[jax.Array | int], jax.Array]:
  if end < 1:
    raise ValueError(f'{name}: end={end} must be a step after the first')

  def cosine(step):
    done = jnp.asarray(jnp.minimum(step, end), jnp.float32)
    return drop_fraction / 2 * (1 + jnp.cos(jnp.pi * done / end))

  return cosine


def exchange(
  rule: UpdateRule,
  mask: jax.Array,
  scores: jax.Array,
  count: jax.Array | int,
  *,
  select: Select = keep_largest,
  grow_scores: jax.Array,
  start_scores: jax.Array | None = None,
  step: jax.Array | int = 0,
) -> jax.Array:
  """Returns the new mask of one layer: the lowest-scoring groups are dropped, others regrow.

  Args:
    rule: an update rule that regrows weights.
    mask: the old mask, one bool for each group.
    scores: the score of each group, float32, of the mask's shape.
    count: the number of groups to keep, an integer.
    select: selects the largest scores within the granularity's pattern.
    grow_scores: the finite scores by which removed groups regrow.
    start_scores: scores in a random order; for rules that start at random.
    step: the training step, which determines the share that is exchanged.
  """
  scores = jnp.where(mask, scores, -jnp.inf)
  assert rule.drop_fraction is not None
  exchanged = jnp.round(rule.drop_fraction(step) * jnp.asarray(count, jnp.float32)).astype(
    jnp.int32
  )
  kept = mask & select(scores, count - exchanged)
  # A group that was just dropped may regrow at once, and is then unchanged.
  grown = select(jnp.where(kept, jnp.inf, grow_scores), count)
  if rule.start == 'random':
    assert start_scores is not None
    return jnp.where(jnp.all(mask), select(start_scores, count), grown)
  return grown


def _check(drop_fraction: float, start: str) -> None:
  if not 0 <= drop_fraction <= 1:
    raise ValueError(f'drop_fraction={drop_fraction} must be a share from 0 to 1')
  lookup('start', start, dict.fromkeys(STARTS))
