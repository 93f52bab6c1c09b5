"""Criteria: scores of how much each parameter is worth; the weights with the largest are kept.

A criterion is a function `criterion(param, ...) -> score` of one leaf; the score is float32, of the
leaf's shape. Other arguments that it needs are keywords without a default: `key`, a random key;
`grad`, the raw gradient (averaged over the batch, of the data term only, dense), never the update
that an optimizer made of it; `mean_squared_grad`, the mean over the examples of their own squared
gradients. The latter two are extra arguments of a transformation's `update`, trees in the structure
of the parameters. A criterion with a `path` gets the leaf's path, such as 'conv1/kernel'.

One of your own is given as `prune(criterion=function)`; a config names it after
`sparsejax.register('criterion', NAME, function)`.
"""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp

Criterion = Callable[..., jax.Array]
GIVEN = ('key', 'path')  # the arguments that any criterion may take


def takes(criterion: Criterion) -> tuple[str, ...]:
  """Returns the keywords that a criterion is passed: those it requires, and 'key' and 'path'.

  Example:
    >>> takes(magnitude), takes(saliency), takes(jnp.abs)
    (('key',), ('grad', 'key'), ())
  """
  found = []
  for i, keyword in enumerate(inspect.signature(criterion).parameters.values()):
    is_needed = keyword.kind == keyword.KEYWORD_ONLY and keyword.default is keyword.empty
    if is_needed or keyword.name == 'key' or (keyword.name == 'path' and i > 0):
      found.append(keyword.name)
  return tuple(found)


def needs(criterion: Criterion) -> tuple[str, ...]:
  """Returns the extra arguments that a criterion requires.

  Example:
    >>> needs(magnitude), needs(saliency), needs(fisher)
    ((), ('grad',), ('mean_squared_grad',))
  """
  return tuple(name for name in takes(criterion) if name not in GIVEN)


def magnitude(param: jax.Array, *, key=None) -> jax.Array:
  """Scores by |p| (Han et al. 2015, arXiv 1506.02626).

  Example:
    >>> magnitude(jnp.array([-2.0, 0.5])).tolist()
    [2.0, 0.5]
  """
  del key
  return jnp.abs(param).astype(jnp.float32)


def saliency(param: jax.Array, *, grad: jax.Array, key=None) -> jax.Array:
  """Scores by |p g|, the first-order change of the loss (SNIP, Lee et al. 2019, 1810.02340).

  Example:
    >>> saliency(jnp.array([-2.0, 0.5]), grad=jnp.array([0.1, 4.0])).tolist()
    [0.2..., 2.0]
  """
  del key
  return jnp.abs(param.astype(jnp.float32) * grad.astype(jnp.float32))


def fisher(param: jax.Array, *, mean_squared_grad: jax.Array, key=None) -> jax.Array:
  r"""Scores by the second-order change of the loss, with the diagonal of the Fisher information.

  .. math:: p^2 \frac{1}{2N} \sum_n g_n^2

  where g_n is the gradient of one example: the squared gradient of a batch would rank like |p g|.

  Example:
    >>> fisher(jnp.array([-2.0, 1.0]), mean_squared_grad=jnp.array([0.5, 4.0])).tolist()
    [1.0, 2.0]

  References:
    Theis et al. 2018, https://arxiv.org/abs/1801.05787
  """
  del key
  return jnp.square(param.astype(jnp.float32)) * mean_squared_grad.astype(jnp.float32) / 2


def lamp(param: jax.Array, *, key=None) -> jax.Array:
  r"""Scores by layer-adaptive magnitude, for one ranking over all layers.

  .. math:: p_{(i)}^2 / \sum_{j \ge i} p_{(j)}^2

  with the layer's weights in ascending order. The largest scores 1, so no layer is emptied.

  Example:
    >>> lamp(jnp.array([2.0, -1.0, 1.0])).tolist()
    [1.0, 0.16..., 0.2...]

  References:
    Lee et al. 2021, https://arxiv.org/abs/2010.07611
  """
  del key
  weights = param.astype(jnp.float32).reshape(-1)
  largest = jnp.max(jnp.abs(weights), initial=0.0)
  # Dividing by the largest leaves the ratios the same, and squares of 1e-25 do not underflow.
  is_scale = (largest > 0) & jnp.isfinite(largest)
  squares = jnp.square(weights / jnp.where(is_scale, largest, 1.0))
  order = jnp.argsort(squares)
  at_or_after = jnp.cumsum(squares[order][::-1])[::-1]
  ratios = squares[order] / jnp.maximum(at_or_after, jnp.finfo(jnp.float32).tiny)
  return jnp.zeros_like(squares).at[order].set(ratios).reshape(param.shape)


def random(param: jax.Array, *, key: jax.Array) -> jax.Array:
  """Scores at random, from U(0, 1): the baseline that every criterion must beat.

  Args:
    param: any array; only its shape is read.
    key: a random key, different for each leaf and each renewal.

  Example:
    >>> random(jnp.zeros((2, 3)), key=jax.random.key(0)).shape
    (2, 3)
  """
  return jax.random.uniform(key, param.shape)


def gradient_magnitude(param: jax.Array, *, grad: jax.Array, key=None) -> jax.Array:
  """Scores by |g|: how fast a removed weight would move (RigL, Evci et al. 2020, 1911.11134).

  Example:
    >>> gradient_magnitude(jnp.zeros(2), grad=jnp.array([-3.0, 1.0])).tolist()
    [3.0, 1.0]
  """
  del param, key
  return jnp.abs(grad).astype(jnp.float32)
