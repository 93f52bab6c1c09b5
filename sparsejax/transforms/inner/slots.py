"""The slots that inner links keep for each parameter, whatever the links are."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import optax


def clear_slots(inner: optax.GradientTransformation, inner_state: Any, kept: Any) -> Any:
  """Returns the inner state with its slots at zero where nothing is kept.

  The momentum gathered there belongs to no weight any more. A slot whose shape is not that of its
  parameter (Adafactor's row and column sums) stays as it is, and so does every count.

  Args:
    inner: the links that made the state.
    inner_state: their state, of any structure.
    kept: a tree of the parameters' structure; bools of a parameter's shape, or of shape ().
  """

  def cleared(slot, keep):
    if is_hole(slot) or is_hole(keep) or jnp.shape(keep) not in ((), jnp.shape(slot)):
      return slot
    return jnp.where(keep, slot, 0).astype(slot.dtype)

  return optax.tree.map_params(inner, cleared, inner_state, kept, is_leaf=is_hole)


def cleared_if(
  due: jax.Array, inner: optax.GradientTransformation, inner_state: Any, kept: Any
) -> Any:
  """Returns the inner state; if masks are new, its slots are zero where nothing is kept."""
  if not jax.tree.leaves(inner_state):
    return inner_state
  clear = functools.partial(clear_slots, inner)
  if not isinstance(due, jax.core.Tracer):
    return clear(inner_state, kept) if due else inner_state
  return jax.lax.cond(due, clear, lambda state, kept: state, inner_state, kept)


def check_clearable(inner: optax.GradientTransformation, inner_state: Any, kept: Any) -> None:
  """Raises a ValueError for links whose slots cannot be recognised by their structure."""
  try:
    jax.eval_shape(functools.partial(clear_slots, inner), inner_state, kept)
  except (TypeError, ValueError, IndexError, ZeroDivisionError):
    raise ValueError(
      'inner has links, such as optax.flatten or sm3, whose state is not arranged as the '
      'parameters are, so that what they gathered for removed weights could not be cleared: they '
      'must stand ahead of prune in the chain'
    ) from None


def is_hole(leaf: Any) -> bool:
  """Returns whether `optax.masked` kept a leaf from the links inside it."""
  return isinstance(leaf, optax.MaskedNode)
