"""Dense and convolutional layers with a weight for a weight."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

from sparsejax.layers.convolution import Padding, convolve


def uniform_fan_in(key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> jax.Array:
  """Draws a kernel from U(-b, b) with b = 1 / sqrt(fan_in), as PyTorch does by default."""
  bound = 1 / math.sqrt(math.prod(shape[:-1]))
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def bias_init(kernel_shape: Sequence[int]) -> Initializer:
  """A bias starts in the same U(-b, b) as the kernel of its layer."""
  bound = 1 / math.sqrt(math.prod(kernel_shape[:-1]))
  return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


class Dense(nn.Module):
  """y = x @ kernel + bias, with kernel (inputs, features)."""

  features: int
  use_bias: bool = True
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = uniform_fan_in

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    del train
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_bias:
      y += self.param('bias', bias_init(shape), (self.features,)).astype(self.dtype)
    return y


class Conv(nn.Module):
  """y = x * kernel + bias: x is NHWC, kernel (height, width, inputs / groups, features)."""

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: Padding = ((1, 1), (1, 1))
  feature_group_count: int = 1
  use_bias: bool = True
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = uniform_fan_in

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    del train
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    y = convolve(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      self.strides,
      self.padding,
      self.feature_group_count,
    )
    if self.use_bias:
      y += self.param('bias', bias_init(shape), (self.features,)).astype(self.dtype)
    return y
