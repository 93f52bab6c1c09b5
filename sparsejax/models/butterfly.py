"""Networks whose pointwise convolutions are butterflies: log2(c) sparse steps instead of c^2.

Both forms replace the pointwise half of eight separable blocks in the outline of ResNet-18. In the
research log's form the filters of a step are shared along the sequence of channels, which takes
4 (c - 1) weights in all, and the network learns little. In the general form (Dao et al. 2019,
"Learning Fast Algorithms for Linear Transforms Using Butterfly Factorizations") every pair of
channels has its own 2x2 weights, 2 c log2(c) in all.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax.models.network import ConvBlock, Network, Parts, conv_bn, require
from sparsejax.nn import kernel_of

BLOCKS = ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1))  # (multiple, stride)
NO_PADDING = ((0, 0), (0, 0))


class TreeBlock(nn.Module):
  """The log's block: depthwise 3x3 + BatchNorm + ReLU, tiling of the channels, tree, ReLU."""

  parts: Parts
  features: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.relu(_depthwise(self.parts, x, self.stride, train=train))
    return nn.relu(sequence_tree(self.parts, _tile(x, self.features), train=train))


class ButterflyBlock(nn.Module):
  """relu(batch_norm(butterfly(relu(batch_norm(depthwise(x))))) + shortcut(x)).

  Where the shape changes, the shortcut takes every second pixel (option A of He et al. 2016),
  tiles the channels as the branch does, and applies BatchNorm. Without this BatchNorm nothing
  bounds the sum over eight blocks: at learning rate 0.1, width 16, on synthetic images, the loss
  rose to 26 within 30 steps; with it the loss had fallen to 0.8 after 40.
  """

  parts: Parts
  features: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    norm = partial(self.parts.norm, use_running_average=not train)
    y = nn.relu(_depthwise(self.parts, x, self.stride, train=train))
    y = butterfly_product(self.parts, _tile(y, self.features), train=train)
    y = norm(name='mix_bn')(y)
    if x.shape != y.shape:
      x = _tile(x[:, :: self.stride, :: self.stride], self.features)
      x = norm(name='shortcut_bn')(x)
    return nn.relu(x + y)


class ButterflyResNet18(Network):
  """A 3x3 stem `block0`, eight blocks, mean and dense; the width must be a power of two.

  Attributes:
    block: TreeBlock, or ButterflyBlock for the general form.
  """

  block: type[nn.Module] = ButterflyBlock

  def check_width(self) -> None:
    power_of_two = self.width >= 2 and self.width & (self.width - 1) == 0
    require(power_of_two, 'width', self.width, 'a power of two, at least 2')

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    parts = self.parts()
    x = ConvBlock(parts, self.width, name='block0')(images, train=train)
    for index, (multiple, stride) in enumerate(BLOCKS, start=1):
      block = self.block(parts, multiple * self.width, stride, name=f'block{index}')
      x = block(x, train=train)
    return self.classify(x, kernel_of(block, _conv(_steps(x) - 1)), train=train)


def _depthwise(parts: Parts, x: jax.Array, stride: int, *, train: bool) -> jax.Array:
  """Applies a depthwise 3x3 convolution and its BatchNorm, as submodules of the caller."""
  add = partial(conv_bn, groups=x.shape[-1], conv='depthwise', bn='depthwise_bn', train=train)
  return add(parts, x, x.shape[-1], 3, stride)


def sequence_tree(parts: Parts, x: jax.Array, *, train: bool) -> jax.Array:
  """Applies the log's tree: one sequence of c channels becomes c maps of length 1.

  Step s convolves along the sequence with kernel 2 and stride 2, in 2^s groups, and turns each map
  into two; a BatchNorm follows every step:
  (examples * height * width, 1, c / 2^s, 2^s) -> (..., c / 2^(s + 1), 2^(s + 1)).
  """
  y = x.reshape(-1, 1, x.shape[-1], 1)
  for step in range(_steps(x)):
    maps = 2**step
    conv = parts.conv(
      2 * maps,
      (1, 2),
      (1, 2),
      padding=NO_PADDING,
      feature_group_count=maps,
      use_bias=False,
      name=_conv(step),
    )
    y = conv(y, train=train)
    y = parts.norm(name=f'mix{step:02}_bn')(y, use_running_average=not train)
  return y.reshape(x.shape)


def butterfly_product(parts: Parts, x: jax.Array, *, train: bool) -> jax.Array:
  """Applies the general form: log2(c) factors, after which every output depends on every input.

  A factor is a 1x1 convolution of neighbours, in c / 2 groups; the perfect shuffle after it (the
  constant geometry of Pease's FFT) makes neighbours of channels that have not met.
  """
  channels = x.shape[-1]
  for step in range(_steps(x)):
    factor = parts.conv(
      channels,
      (1, 1),
      padding=NO_PADDING,
      feature_group_count=channels // 2,
      use_bias=False,
      kernel_init=random_rotations,
      name=_conv(step),
    )
    pairs = factor(x, train=train).reshape(*x.shape[:-1], channels // 2, 2)
    x = jnp.swapaxes(pairs, -1, -2).reshape(x.shape)
  return x


def random_rotations(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws a kernel (1, 1, 2, c) of c / 2 rotations, so that the butterfly starts orthogonal.

  The product of nine factors of independent uniform weights would be close to singular.
  """
  angle = jax.random.uniform(key, (shape[-1] // 2,), maxval=2 * math.pi)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  rotations = jnp.array([[cos, -sin], [sin, cos]])  # (input, output, pair)
  return jnp.swapaxes(rotations, 1, 2).reshape(shape)


def _tile(x: jax.Array, features: int) -> jax.Array:
  """Repeats the whole list of channels until there are `features` of them."""
  return jnp.tile(x, (1, 1, 1, features // x.shape[-1]))


def _steps(x: jax.Array) -> int:
  """log2 of the number of channels, a power of two."""
  return x.shape[-1].bit_length() - 1


def _conv(step: int) -> str:
  return f'mix{step:02}_conv'
