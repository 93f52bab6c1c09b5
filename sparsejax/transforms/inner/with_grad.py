"""A wrapper that passes the incoming updates to its inner links as the gradient."""

import optax

from sparsejax.transforms.inner.running import running_inside


def with_grad(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
  r"""Runs the inner links with the incoming updates as their extra argument `grad`.

  .. math:: u' = \text{inner}(u, \text{grad} = u)

  For those who call `update` without extra arguments, as Flax's `TrainState.apply_gradients` does,
  and for those who make one gradient of several first: `optax.MultiSteps(with_grad(chain), 4)`
  passes on the mean of four gradients. It replaces a `grad` that is given from outside, which under
  MultiSteps is that of the last small step alone.

  Place it around the whole chain: a link ahead of it, such as clipping, would change what counts as
  the gradient. The state is that of the inner links.

  Args:
    inner: the links, in which a criterion or an update rule needs the gradient.

  Returns:
    A transformation. Other extra arguments pass through it.

  Example:
    >>> import jax.numpy as jnp
    >>> from sparsejax import criteria, one_shot, prune
    >>> pruned = prune(one_shot(step=0, density=0.5), criterion=criteria.saliency)
    >>> tx = with_grad(optax.chain(optax.sgd(0.0), pruned))
    >>> params = {'kernel': jnp.array([[1.0, 3.0]])}
    >>> updates, _ = tx.update({'kernel': jnp.array([[9.0, 1.0]])}, tx.init(params), params)
    >>> optax.apply_updates(params, updates)['kernel'].tolist()
    [[1.0, 0.0]]
  """
  inner = running_inside(inner)

  def update_fn(updates, state, params=None, **extra_args):
    return inner.update(updates, state, params, **(extra_args | {'grad': updates}))

  return optax.GradientTransformationExtraArgs(inner.init, update_fn)
