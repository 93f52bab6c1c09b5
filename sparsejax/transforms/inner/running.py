"""Links that run inside another: each gets the extra arguments that it can take."""

import inspect
from typing import Any

import optax

from sparsejax.transforms.inner.searching import check_no_search
from sparsejax.transforms.inner.slots import check_clearable


def running_inside(
  inner: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
  """Returns a link that takes any extra arguments, as another link gives them; None does nothing.

  A link whose `update` names what it takes, as `optax.contrib.sam` names `grad_fn`, gets that
  alone, without what only a criterion outside needs.

  Example:
    >>> update = running_inside(optax.scale(2.0)).update
    >>> update({'w': 1.0}, optax.EmptyState(), None, grad={'w': 3.0})[0]
    {'w': 2.0}
  """
  inner = optax.with_extra_args_support(optax.identity() if inner is None else inner)
  arguments = inspect.signature(inner.update).parameters.values()
  if any(argument.kind == argument.VAR_KEYWORD for argument in arguments):
    return inner
  names = {argument.name for argument in arguments}

  def update_fn(updates, state, params=None, **extra_args):
    taken = {name: value for name, value in extra_args.items() if name in names}
    return inner.update(updates, state, params, **taken)

  return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def begun_inside(
  inner: optax.GradientTransformation, params: Any, masks: Any = None
) -> optax.OptState:
  """Returns the state that an inner link begins with.

  Args:
    inner: the link.
    params: what it begins with.
    masks: a tree of bools like the parameters, if slots outside the masks are to be cleared later.

  Raises:
    ValueError: a link that searches along a line, or whose slots can't be cleared.
  """
  state = inner.init(params)
  check_no_search(state)
  if masks is not None:
    check_clearable(inner, state, masks)
  return state
