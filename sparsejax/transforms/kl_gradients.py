"""The gradient of the KL divergence, as a transformation in place of weight decay."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax import posterior
from sparsejax.internal.private import NO_PARAMS_MSG


class KLState(NamedTuple):
  """State of `add_kl_gradients`."""

  count: jax.typing.ArrayLike  # shape=(), dtype=int32: the number of updates so far


def add_kl_gradients(
  examples: int,
  weight: optax.ScalarOrSchedule = 1.0,
  *,
  kl: Callable[[Any], jax.Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Adds the gradient of the KL divergence between posterior and prior, in closed form.

  .. math:: u' = u + \frac{weight_t}{N} \nabla KL(p)

  If the incoming updates are gradients of the mean cross-entropy, the sum is the gradient of the
  negative evidence lower bound per example, which variational dropout and Bayesian compression
  minimise. Place it **before clipping and Adam's scaling**, which would change the gradient's size.

  Args:
    examples: N, the number of training examples: not of batches, and not multiplied by
      augmentation. Where an example has several labels, as a text has one for each byte, and the
      incoming gradients are of the mean over all of them, the number of labels.
    weight: a number, or a schedule (count -> number) whose first count is 0. A warm-up from 0 lets
      the network learn before the KL rewards noise.
    kl: a function parameters -> nats; by default `posterior.kl_divergence`, the sum over all layers
      whose parameters are named as a variational layer's.

  Returns:
    A transformation that keeps the dtypes of the updates.

  Raises:
    ValueError: when called, if `examples` is below 1 or `weight` negative; at `init`, if no layer
      is variational; at `update`, if `params` are missing.

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
  divergence = posterior.kl_divergence if kl is None else kl

  def init_fn(params):
    if kl is None and not posterior.variational_layers(params):
      raise ValueError(
        'add_kl_gradients: the parameters must have a variational layer; give such parameters, or '
        'a divergence of your own as kl='
      )
    return KLState(jnp.zeros([], jnp.int32))

  def update_fn(updates, state, params=None, **extra_args):
    del extra_args
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    current_weight: Any = weight(state.count) if callable(weight) else weight
    scale = current_weight / examples
    gradient = jax.grad(divergence)(params)
    # A schedule returns float32, which strict promotion would not multiply with bfloat16.
    with jax.numpy_dtype_promotion('standard'):
      updates = jax.tree.map(lambda u, g: (u + scale * g).astype(u.dtype), updates, gradient)
    return updates, KLState(optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
