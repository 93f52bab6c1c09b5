"""Inner links that evaluate the loss at steps of their own, which no mask reaches."""

from typing import Any

import jax
import optax

SEARCHES = (
  optax.ScaleByLBFGSState,
  optax.ScaleByBacktrackingLinesearchState,
  optax.ScaleByZoomLinesearchState,
)


def check_no_search(inner_state: optax.OptState) -> None:
  """Raises a ValueError where an inner link searches along a line or keeps a history of steps.

  A line search calls `value_fn` with steps that are not masked yet, and the history that L-BFGS
  keeps still has steps of weights that were removed since.

  Example:
    >>> check_no_search(optax.adam(0.1).init({'w': jax.numpy.ones(2)}))
  """

  def is_search(state: Any) -> bool:
    return isinstance(state, SEARCHES)

  for state in jax.tree.leaves(inner_state, is_leaf=is_search):
    if is_search(state):
      name = type(state).__name__.removeprefix('ScaleBy').removesuffix('State')
      raise ValueError(
        f'inner has {name}, which evaluates or remembers steps that the masks do not reach: give '
        'an optimizer that takes one gradient a step, such as optax.adam'
      )
