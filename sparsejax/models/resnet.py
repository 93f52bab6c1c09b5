"""Residual networks for 32x32 images (He et al. 2016), with basic blocks or bottlenecks."""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from sparsejax.models.network import ConvBlock, Network, Parts, conv_bn
from sparsejax.nn import kernel_of

# A block's convolutions: (multiple of its planes, kernel, whether it takes the block's stride).
BASIC = ((1, 3, True), (1, 3, False))
BOTTLENECK = ((1, 1, False), (1, 3, True), (4, 1, False))


class Residual(nn.Module):
  """relu(branch(x) + shortcut(x)).

  Attributes:
    shortcut: whether the shortcut is a 1x1 convolution, needed where the shape changes.
  """

  parts: Parts
  planes: int
  stride: int
  branch: tuple[tuple[int, int, bool], ...]
  shortcut: bool

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    add = partial(conv_bn, self.parts, train=train)
    y = x
    for index, (multiple, size, strided) in enumerate(self.branch, start=1):
      stride = self.stride if strided else 1
      inner = index < len(self.branch)
      names: dict[str, Any] = {'conv': f'conv{index}', 'bn': f'bn{index}'}
      y = add(y, multiple * self.planes, size, stride, relu=inner, **names)
    if self.shortcut:
      x = add(x, y.shape[-1], 1, self.stride, conv='shortcut', bn='shortcut_bn')
    return nn.relu(x + y)


class ResNet(Network):
  """A 3x3 stem `block0` without pooling, then stages that double the planes and halve the image.

  Attributes:
    depths: the number of blocks in each stage; block2_1 is the first block of the second stage.
    branch: the convolutions of a block.
  """

  depths: tuple[int, ...] = (2, 2, 2, 2)
  branch: tuple[tuple[int, int, bool], ...] = BASIC

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    parts = self.parts()
    x = ConvBlock(parts, self.width, name='block0')(images, train=train)
    for stage, depth in enumerate(self.depths):
      for index in range(depth):
        stride = 2 if stage > 0 and index == 0 else 1
        changes = stride > 1 or (index == 0 and self.branch[-1][0] > 1)
        name = f'block{stage + 1}_{index + 1}'
        planes = self.width * 2**stage
        block = Residual(parts, planes, stride, self.branch, changes, name=name)
        x = block(x, train=train)
    return self.classify(x, kernel_of(block, f'conv{len(self.branch)}'), train=train)
