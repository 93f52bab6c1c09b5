"""Attention in which no position sees a later one."""

import jax
from flax import linen as nn


def causal_attention(query: jax.Array, key: jax.Array, value: jax.Array, heads: int) -> jax.Array:
  """Returns softmax(q k^T / sqrt(size)) v in each head, over a position and those before it.

  Args:
    query: of shape (examples, positions, features); each head has features / heads of them.
    key: likewise.
    value: likewise.
    heads: the number of heads.

  Example:
    >>> import jax.numpy as jnp
    >>> zero, value = jnp.zeros((1, 2, 1)), jnp.array([[[1.0], [3.0]]])
    >>> causal_attention(zero, zero, value, 1).ravel().tolist()  # the first position sees itself
    [1.0, 2.0]

  Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
  """
  split = (*query.shape[:-1], heads, -1)
  q, k, v = (x.reshape(split) for x in (query, key, value))
  return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(value.shape)


class CausalAttention(nn.Module):
  """`causal_attention` as a module without parameters, which `dead_units` knows to subtract."""

  heads: int

  def __call__(self, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return causal_attention(query, key, value, self.heads)
