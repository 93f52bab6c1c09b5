"""Links that run inside another: each gets the extra arguments that it can take."""

import inspect

import optax


def running_inside(
  inner: optax.GradientTransformation | None,
) -> optax.GradientTransformationExtraArgs:
  """Returns a link as another calls it, with any extra arguments at all; None is no change.

  A link whose `update` names what it takes, as `optax.contrib.sam` names `grad_fn`, gets that
  alone: what a criterion outside needs besides is not its concern.

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
