"""Criteria: how much each parameter is worth keeping, as scores of which the largest stay.

A criterion is a function `criterion(param, *, grad, key) -> score` of one leaf, of the leaf's
shape and float32. `grad` is the raw gradient (averaged over the batch, data term only), never the
update that an optimizer made of it; a criterion that gives `grad` no default can't do without it.
"""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp

Criterion = Callable[..., jax.Array]


def needs_grad(criterion: Criterion) -> bool:
  """Whether a criterion has to be given the gradient: its `grad` has no default.

  Example:
    >>> needs_grad(saliency), needs_grad(magnitude)
    (True, False)
  """
  grad = inspect.signature(criterion).parameters.get('grad')
  return grad is not None and grad.default is inspect.Parameter.empty


def magnitude(param: jax.Array, *, grad=None, key=None) -> jax.Array:
  """Scores by |p| (Han et al. 2015, arXiv 1506.02626).

  Example:
    >>> magnitude(jnp.array([-2.0, 0.5])).tolist()
    [2.0, 0.5]
  """
  del grad, key
  return jnp.abs(param).astype(jnp.float32)


def saliency(param: jax.Array, *, grad: jax.Array, key=None) -> jax.Array:
  """Scores by |p g|, the first-order change of the loss (SNIP, Lee et al. 2019, 1810.02340).

  Example:
    >>> saliency(jnp.array([-2.0, 0.5]), grad=jnp.array([0.1, 4.0])).tolist()
    [0.2..., 2.0]
  """
  del key
  return jnp.abs(param.astype(jnp.float32) * grad.astype(jnp.float32))


def random(param: jax.Array, *, grad=None, key: jax.Array) -> jax.Array:
  """Scores drawn from U(0, 1): the baseline that every criterion has to beat."""
  del grad
  return jax.random.uniform(key, param.shape)
