"""Dense and convolutional layers with ordinary weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from flax.typing import Dtype, Initializer

from sparsejax.cpu_conv.convolution import Padding, convolve


def uniform_fan_in(key: jax.Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> jax.Array:
  """Draws a kernel from U(-b, b) with b = 1 / sqrt(fan_in), as PyTorch does by default."""
  bound = 1 / math.sqrt(math.prod(shape[:-1]))
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def add_bias(layer: nn.Module, y: jax.Array, kernel_shape: Sequence[int]) -> jax.Array:
  """Adds the layer's parameter `bias`, which starts in the same U(-b, b) as its kernel."""
  bound = 1 / math.sqrt(math.prod(kernel_shape[:-1]))

  def init(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

  bias = layer.param('bias', init, (y.shape[-1],)).astype(y.dtype)
  return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def width_of(layer: Any) -> int:
  """Returns the number of features of a layer: that in `widths` for its path, or `features`."""
  return layer.widths.get('/'.join(layer.path), layer.features)


NO_WIDTHS: Mapping[str, int] = FrozenDict()


class Dense(nn.Module):
  """y = x @ kernel + bias, with kernel (inputs, features).

  Attributes:
    widths: {path of a layer: its number of features}, which overrides `features`.
  """

  features: int
  use_bias: bool = True
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = uniform_fan_in
  widths: Mapping[str, int] = NO_WIDTHS

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    del train
    shape = (x.shape[-1], width_of(self))
    kernel = self.param('kernel', self.kernel_init, shape)
    y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
    return add_bias(self, y, shape) if self.use_bias else y


class Conv(nn.Module):
  """y = x * kernel + bias: x is NHWC, kernel (height, width, inputs / groups, features).

  Attributes:
    widths: {path of a layer: its number of features}, which overrides `features`.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: Padding = ((1, 1), (1, 1))
  feature_group_count: int = 1
  use_bias: bool = True
  dtype: Dtype = jnp.float32
  kernel_init: Initializer = uniform_fan_in
  widths: Mapping[str, int] = NO_WIDTHS

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    del train
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, width_of(self))
    kernel = self.param('kernel', self.kernel_init, shape)
    y = convolve(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      self.strides,
      self.padding,
      self.feature_group_count,
    )
    return add_bias(self, y, shape) if self.use_bias else y
