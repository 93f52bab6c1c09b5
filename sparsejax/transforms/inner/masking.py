"""What masks make of updates, of parameters, and of the gradients that come beside them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.mask_update import Renewal, compiled
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


def held_at_zero(updates: Any, params: Any, masks: Any) -> Any:
  """Returns the updates, and outside of the masks those that bring the parameters to exactly zero.

  They are of the wider dtype of the two: -p rounded to narrower updates would not bring p to zero.

  Example:
    >>> w, masks = {'w': jnp.array([5.0, 5.0])}, {'w': jnp.array([True, False])}
    >>> held_at_zero({'w': jnp.ones(2)}, w, masks)['w'].tolist()
    [1.0, -5.0]
  """
  with jax.numpy_dtype_promotion('standard'):
    return jax.tree.map(lambda u, p, m: jnp.where(m, u, -p), updates, params, masks)


Wanted = tuple[dict[str, Any], tuple[tuple[str, Callable[[], Any]], ...]]


def what_is_needed(
  needs: Mapping[str, Callable], updates: Any, extra_args: Mapping[str, Any]
) -> Wanted:
  """Returns the extra arguments that criteria need: trees, and functions that make them when due.

  Args:
    needs: {argument: the criterion that asks for it}.
    updates: where `optax.masked` left holes in these, the trees get them too.
    extra_args: those given to the transformation's update.

  Raises:
    ValueError: an argument that was not given.
  """
  for name, criterion in needs.items():
    if extra_args.get(name) is None:
      raise ValueError(
        f'the criterion {getattr(criterion, "__name__", criterion)} needs the extra argument '
        f'{name}=: call update(updates, state, params, {name}=...); grad is the raw gradient'
      )
  given = {name: with_holes_of(updates, extra_args[name]) for name in needs}
  lazy = tuple((name, value) for name, value in given.items() if tree.is_function(value))
  return {name: value for name, value in given.items() if not tree.is_function(value)}, lazy


def renewed_if(
  due: jax.Array, parts: Renewal, state: Any, params: Any, wanted: Wanted, *, anew: bool = False
) -> Any:
  """Returns the state's masks, or where they are due those that the parameters make.

  A loop of one pass at most, and not a branch: under vmap a branch becomes a select, and masks
  would be ranked anew at every step.

  Args:
    due: shape (), whether masks are to be renewed.
    parts: what makes the masks.
    state: a NamedTuple with `masks`, `count`, `seed` and `table`.
    params: the parameters that masks are made for.
    wanted: as `what_is_needed` returns it.
    anew: whether all that was removed is ranked again, as if nothing had been.
  """
  if not isinstance(due, jax.core.Tracer):
    return _renewed(parts, state, params, wanted, anew) if due else state.masks

  def renew(carried):
    _, masks = carried
    now = state._replace(masks=masks)
    return jnp.zeros_like(due), _renewed(parts, now, params, wanted, anew)

  _, masks = jax.lax.while_loop(lambda carried: carried[0], renew, (due, state.masks))
  return masks


def _renewed(parts, state, params, wanted, anew):
  trees, lazy = wanted
  extra = trees | {name: value() for name, value in lazy}
  params, extra = jax.lax.stop_gradient((params, extra))  # masks have no derivative
  masks = jax.tree.map(jnp.ones_like, state.masks) if anew else state.masks
  return compiled(parts)(masks, params, extra, step=state.count, seed=state.seed, table=state.table)


def with_masked_grads(extra_args: Mapping[str, Any], updates: Any, masks: Any) -> dict[str, Any]:
  """Returns the extra arguments for inner links: of any gradient they see what the masks leave."""
  found = dict(extra_args)
  if extra_args.get('grad') is not None:
    grad = with_holes_of(updates, extra_args['grad'])
    found['grad'] = lazily(lambda grad: apply_masks(grad, masks), grad)
  if (grad_fn := extra_args.get('grad_fn')) is not None:  # of SAM, at the points that it ascends to
    found['grad_fn'] = lambda *at: apply_masks(with_holes_of(updates, grad_fn(*at)), masks)
  return found


def with_holes_of(updates: Any, grad: Any) -> Any:
  """Returns a gradient without the leaves that `optax.masked` took from the updates alone."""

  def with_holes(grad):
    return jax.tree.map(lambda u, g: u if is_hole(u) else g, updates, grad, is_leaf=is_hole)

  return lazily(with_holes, grad)


def lazily(change: Callable[[Any], Any], value: Any) -> Any:
  """Returns what a change makes of a tree; of a function that makes one, such a function again."""
  return (lambda: change(value())) if tree.is_function(value) else change(value)
