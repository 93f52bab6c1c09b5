"""Networks of convolutions in a row: VGG-16 with BatchNorm, and one of nothing but convolutions."""

import jax
from flax import linen as nn

from sparsejax.models.network import ConvBlock, Network
from sparsejax.nn import kernel_of, max_pool

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # (multiple of the width, convolutions)
# (multiple of the width, kernel, stride)
CONVOLUTIONS = (
  (1, 3, 1),
  (1, 3, 1),
  (1, 3, 2),
  (2, 3, 1),
  (2, 3, 1),
  (2, 3, 2),
  (2, 3, 1),
  (2, 1, 1),
  (2, 1, 1),
)


class VGG16(Network):
  """Thirteen 3x3 convolutions with biases; `block3_2` is the paper's conv3_2.

  A 2x2 max-pool closes each of the five stages.
  """

  smallest_image = 32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    x = images
    parts = self.parts()
    for stage, (multiple, convolutions) in enumerate(STAGES, start=1):
      for index in range(1, convolutions + 1):
        name = f'block{stage}_{index}'
        block = ConvBlock(parts, multiple * self.width, use_bias=True, name=name)
        x = block(x, train=train)
      x = max_pool(x)
    return self.classify(x, kernel_of(block, 'conv'), train=train)


class AllConv(Network):
  """Nine convolutions with biases, strides instead of pooling, and no BatchNorm on the last."""

  width: int = 24

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    x = images
    parts = self.parts()
    for index, (multiple, size, stride) in enumerate(CONVOLUTIONS, start=1):
      block = ConvBlock(
        parts,
        multiple * self.width,
        size,
        stride,
        use_bias=True,
        bn='bn' if index < len(CONVOLUTIONS) else None,
        name=f'block{index}',
      )
      x = block(x, train=train)
    return self.classify(x, kernel_of(block, 'conv'), train=train)
