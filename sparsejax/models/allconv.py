"""A small network made only of convolutions (Springenberg et al. 2015), as in the research log."""

import jax
from flax import linen as nn

from sparsejax.models.network import ConvBlock, Network
from sparsejax.nn import kernel_of

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
