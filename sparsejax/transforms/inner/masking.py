"""Masks applied to updates, to parameters, and to the gradients among the extra arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sparsejax.sparsity.leaves import tree
from sparsejax.transforms.inner.slots import is_hole


def apply_masks(params: Any, masks: Any) -> Any:
  """Returns the parameters with everything outside the masks at zero: the cut network itself.

  Parameters that `optax.masked` kept from the masks stay as they are.

  Example:
    >>> apply_masks({'w': jnp.array([1.0, 2.0])}, {'w': jnp.array([True, False])})['w'].tolist()
    [1.0, 0.0]
  """

  def cut(mask, param):
    return param if is_hole(mask) else jnp.where(mask, param, 0).astype(param.dtype)

  return jax.tree.map(cut, masks, params, is_leaf=is_hole)


def collect_extra_args(
  needs: Sequence[tuple[str, Callable]], updates: Any, extra_args: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the extra arguments that criteria need: trees, or functions that make them when due.

  Args:
    needs: pairs of an argument and the criterion that needs it.
    updates: where `optax.masked` left holes in these, the trees get them too.
    extra_args: those given to the transformation's update.

  Raises:
    ValueError: an argument that was not given.
  """
  for name, criterion in dict(needs).items():
    if extra_args.get(name) is None:
      raise ValueError(
        f'the criterion {getattr(criterion, "__name__", criterion)} needs the extra argument '
        f'{name}=: call update(updates, state, params, {name}=...); grad is the raw gradient'
      )
  return {name: copy_holes(updates, extra_args[name]) for name, _ in needs}


def update_masked(
  inner: optax.GradientTransformationExtraArgs,
  masks: Any,
  updates: Any,
  inner_state: optax.OptState,
  params: Any,
  extra_args: Mapping[str, Any],
) -> tuple[Any, optax.OptState]:
  """Returns `inner.update` of the masked updates, parameters and gradients."""
  extra_args = mask_gradients(extra_args, updates, masks)
  return inner.update(
    apply_masks(updates, masks), inner_state, apply_masks(params, masks), **extra_args
  )


def mask_gradients(extra_args: Mapping[str, Any], updates: Any, masks: Any) -> dict[str, Any]:
  """Returns the extra arguments for inner links, with every gradient among them masked."""
  found = dict(extra_args)
  if extra_args.get('grad') is not None:
    grad = copy_holes(updates, extra_args['grad'])
    found['grad'] = lazily(lambda grad: apply_masks(grad, masks), grad)
  if (grad_fn := extra_args.get('grad_fn')) is not None:  # SAM's, at the points that it ascends to
    found['grad_fn'] = lambda *point: apply_masks(copy_holes(updates, grad_fn(*point)), masks)
  return found


def copy_holes(updates: Any, grad: Any) -> Any:
  """Returns a gradient with the holes that `optax.masked` left only in the updates."""

  def make_holes(grad):
    return jax.tree.map(lambda u, g: u if is_hole(u) else g, updates, grad, is_leaf=is_hole)

  return lazily(make_holes, grad)


def lazily(change: Callable[[Any], Any], value: Any) -> Any:
  """Returns change(value), or a function that returns change(value()) if value is a function."""
  return (lambda: change(value())) if tree.is_function(value) else change(value)
