"""The fields that all networks have, and the blocks that most of them are built from."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from sparsejax.nn import DETERMINISTIC, BatchNorm, Dropout, Layers
from sparsejax.nn.deterministic import NO_WIDTHS


def require(condition: bool, argument: str, value: object, allowed: str) -> None:
  """Raises a ValueError of one line unless the condition holds."""
  if not condition:
    raise ValueError(f'{argument}={value!r} must be {allowed}')


class Parts(NamedTuple):
  """The makers of layers, with the network's own settings already filled in."""

  conv: Callable[..., nn.Module]
  dense: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]


class Network(nn.Module):
  """The fields of every network; `network(images_NxHxWxC, train=train)` returns float32 logits.

  Attributes:
    num_classes: the number of logits.
    layers: the makers of the network's layers.
    width: the planes of the first layer; the others scale with it.
    dropout: the share of units dropped while the network is dense.
    dtype: the dtype of the computation; parameters, BatchNorm's moments and logits are float32.
    batch_norm_axis: the pmap axis over which BatchNorm averages its moments; None keeps them local.
    widths: {path of a layer: its number of features}, for layers that do not follow `width`.
  """

  num_classes: int = 10
  layers: Layers = DETERMINISTIC
  width: int = 64
  dropout: float = 0.0
  dtype: Dtype = jnp.float32
  batch_norm_axis: str | None = None
  widths: Mapping[str, int] = NO_WIDTHS

  convolutional: ClassVar[bool] = True
  smallest_width: ClassVar[int] = 1
  smallest_image: ClassVar[int] = 1
  traced_shape: ClassVar[tuple[int, ...]] = (32, 32, 3)  # of an example that it takes

  def parts(self) -> Parts:
    """Returns the makers of this network's layers."""
    own: dict[str, Any] = {'dtype': self.dtype}
    if self.widths:  # paths start at this network, which may be part of another module
      own['widths'] = {'/'.join((*self.path, path)): n for path, n in self.widths.items()}
    return Parts(
      conv=partial(self.layers.conv, **own),
      dense=partial(self.layers.dense, **own),
      norm=partial(BatchNorm, dtype=self.dtype, axis_name=self.batch_norm_axis),
    )

  def classify(self, x: jax.Array, kernel: jax.Array | None, *, train: bool) -> jax.Array:
    """Returns float32 logits by a mean over positions, dropout and a dense layer.

    `kernel` is the kernel of the layer before, from which dropout takes its rate.
    """
    x = Dropout(self.dropout)(jnp.mean(x, (1, 2)), kernel, train=train)
    classifier = self.parts().dense(self.num_classes, name='classifier')
    return classifier(x, train=train).astype(jnp.float32)

  def check_width(self) -> None:
    """Raises a ValueError if the network cannot have this width."""
    least = self.smallest_width
    require(self.width >= least, 'width', self.width, f'an integer of at least {least}')

  def check(self, images: jax.Array) -> None:
    """Raises a ValueError if the network cannot take these images."""
    least = self.smallest_image
    require(
      images.ndim == 4 and min(images.shape[1:3]) >= least,
      f'{type(self).__name__}: images.shape',
      tuple(images.shape),
      f'(examples, height, width, channels) of at least {least}x{least} pixels',
    )


def conv_bn(
  parts: Parts,
  x: jax.Array,
  features: int,
  size: int = 3,
  stride: int = 1,
  *,
  groups: int = 1,
  use_bias: bool = False,
  conv: str = 'conv',
  bn: str | None = 'bn',
  relu: bool = False,
  train: bool,
) -> jax.Array:
  """Applies a padded size x size convolution and its BatchNorm, as named submodules of the caller.

  With `relu` a ReLU follows. The padding is explicit, size // 2 on every side: at stride 2 'SAME'
  would pad (0, 1).
  """
  layer = parts.conv(
    features,
    (size, size),
    (stride, stride),
    padding=((size // 2, size // 2),) * 2,
    feature_group_count=groups,
    use_bias=use_bias,
    name=conv,
  )
  x = layer(x, train=train)
  if bn:
    return parts.norm(relu=relu, name=bn)(x, use_running_average=not train)
  return nn.relu(x) if relu else x


class ConvBlock(nn.Module):
  """relu(batch_norm(conv(x))), with the parameters under `conv` and `bn`."""

  parts: Parts
  features: int
  size: int = 3
  stride: int = 1
  use_bias: bool = False
  bn: str | None = 'bn'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    return conv_bn(
      self.parts,
      x,
      self.features,
      self.size,
      self.stride,
      use_bias=self.use_bias,
      bn=self.bn,
      relu=True,
      train=train,
    )
