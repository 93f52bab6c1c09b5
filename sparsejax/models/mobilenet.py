"""MobileNet v1 for 32x32 images (Howard et al. 2017): depthwise and pointwise convolutions."""

from functools import partial

import jax
from flax import linen as nn

from sparsejax.models.network import ConvBlock, Network, Parts, conv_bn
from sparsejax.nn import kernel_of

# (multiple of the width, stride of the depthwise convolution)
BLOCKS = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *5 * ((16, 1),), (32, 2), (32, 1))


class Separable(nn.Module):
  """A depthwise 3x3 and a pointwise 1x1 convolution, each followed by BatchNorm and ReLU."""

  parts: Parts
  features: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    planes = x.shape[-1]
    add = partial(conv_bn, self.parts, relu=True, train=train)
    x = add(x, planes, 3, self.stride, groups=planes, conv='depthwise', bn='depthwise_bn')
    return add(x, self.features, 1, conv='pointwise', bn='pointwise_bn')


class MobileNet(Network):
  """A 3x3 stem `block00` at stride 1, then thirteen separable blocks."""

  width: int = 32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    parts = self.parts()
    x = ConvBlock(parts, self.width, name='block00')(images, train=train)
    for index, (multiple, stride) in enumerate(BLOCKS, start=1):
      block = Separable(parts, multiple * self.width, stride, name=f'block{index:02}')
      x = block(x, train=train)
    return self.classify(x, kernel_of(block, 'pointwise'), train=train)
