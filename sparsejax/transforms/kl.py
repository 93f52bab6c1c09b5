"""The KL divergence of posteriors as a link of the chain, where weight decay would sit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax import posterior
from sparsejax.internal.private import NO_PARAMS_MSG


class KLState(NamedTuple):
  """State of `add_kl_gradients`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: updates made


def add_kl_gradients(
  examples: int,
  weight: optax.ScalarOrSchedule = 1.0,
  *,
  kl: Callable[[Any], jax.Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Adds the gradient of the KL divergence between posterior and prior, in closed form.

  .. math:: u' = u + \frac{weight_t}{N} \nabla KL(p)

  which makes of the mean cross-entropy the variational bound that both Bayesian methods minimise.
  Place it **ahead of clipping and of Adam's scaling**, where the gradient still has its size.

  Args:
    examples: N, the training examples that there really are: not the batches, by which the KL
      would weigh a batch's size too much, and not multiplied by augmentation.
    weight: a number, or a schedule (count -> number): a warm-up from 0 lets the network learn
      before noise is free. The first update uses count 0.
    kl: parameters -> nats; `posterior.kl_divergence`, the sum over the variational layers that it
      finds by their names, by default.

  Returns:
    A transformation whose updates are of the dtype of the updates.

  Raises:
    ValueError: at once, fewer examples than 1 or a negative weight; at `init`, parameters without a
      variational layer; at `update`, without `params`.

  Example:
    >>> layer = {'kernel': jnp.ones((1, 1)), 'kernel_log_variance': jnp.full((1, 1), -2.0)}
    >>> tx = add_kl_gradients(examples=10)
    >>> zeros = jax.tree.map(jnp.zeros_like, {'fc': layer})
    >>> updates, _ = tx.update(zeros, tx.init({'fc': layer}), {'fc': layer})
    >>> round(float(updates['fc']['kernel_log_variance'][0, 0]), 4)
    -0.0617

  References:
    Sonderby et al. 2016 (the warm-up), https://arxiv.org/abs/1602.02282
    Molchanov, Ashukha and Vetrov 2017, https://arxiv.org/abs/1701.05369
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665
  """
  if examples < 1:
    raise ValueError(f'examples={examples} must be the number of training examples, 1 or more')
  if not callable(weight) and weight < 0:
    raise ValueError(f'weight={weight} must be a number of 0 or more, or a schedule')
  default = kl is None
  divergence = posterior.kl_divergence if kl is None else kl

  def init_fn(params):
    if default and not posterior.variational_layers(params):
      raise ValueError(
        'add_kl_gradients: no layer has a posterior; give the parameters of variational layers, '
        'or kl='
      )
    return KLState(jnp.zeros([], jnp.int32))

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    now: Any = weight(state.count) if callable(weight) else weight
    share = now / examples
    gradient = jax.grad(divergence)(params)
    with jax.numpy_dtype_promotion('standard'):  # a schedule's share is of float32
      updates = jax.tree.map(lambda u, g: (u + share * g).astype(u.dtype), updates, gradient)
    return updates, KLState(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
