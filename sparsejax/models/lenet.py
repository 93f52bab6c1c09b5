"""The two MNIST networks of the pruning literature (LeCun et al. 1998, in Caffe's form)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax.models.network import Network
from sparsejax.nn import Dropout, kernel_of, max_pool

VALID = ((0, 0), (0, 0))


class LeNet300(Network):
  """LeNet-300-100: inputs -> width -> width / 3 -> classes, ReLU between, on flattened images."""

  width: int = 300
  smallest_width = 2
  convolutional = False

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    dense = self.parts().dense  # makes nn.deterministic.Dense, or a layer with a posterior
    x = images.reshape(images.shape[0], -1)
    for name, features in (('fc1', self.width), ('fc2', round(self.width / 3))):
      layer = dense(features, name=name)
      x = nn.relu(layer(x, train=train))
      x = Dropout(self.dropout)(x, kernel_of(layer), train=train)
    return dense(self.num_classes, name='fc3')(x, train=train).astype(jnp.float32)


class LeNet5(Network):
  """LeNet-5-Caffe: two 5x5 convolutions, each max-pooled, and two dense layers.

  The sizes are 20 - 50 - 500 at the default width; dropout acts on the hidden dense layer.
  """

  width: int = 20
  smallest_image = 16

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    conv, dense, _ = self.parts()
    x = conv(self.width, (5, 5), padding=VALID, name='conv1')(images, train=train)
    x = max_pool(x)
    x = conv(round(2.5 * self.width), (5, 5), padding=VALID, name='conv2')(x, train=train)
    x = max_pool(x).reshape(images.shape[0], -1)
    fc1 = dense(25 * self.width, name='fc1')
    x = nn.relu(fc1(x, train=train))
    x = Dropout(self.dropout)(x, kernel_of(fc1), train=train)
    return dense(self.num_classes, name='fc2')(x, train=train).astype(jnp.float32)
