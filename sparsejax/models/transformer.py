"""A small decoder of bytes, with normalisation before each branch (Radford et al. 2019).

It comes in linen, like the other networks, and in NNX, with equal parameters under equal paths.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from sparsejax.models.network import Network, Parts, require
from sparsejax.nn import CausalAttention, Dropout, kernel_of
from sparsejax.nn.attention import causal_attention
from sparsejax.nn.deterministic import uniform_fan_in

BYTES = 256
MULTIPLE = 4  # hidden units of a perceptron for each feature of the stream
EPSILON = 1e-6  # of LayerNorm
table_init = nn.initializers.normal(0.02)


def look_up(table: jax.Array, positions: jax.Array, x: jax.Array) -> jax.Array:
  """Returns the rows of a table for bytes, each plus the row of its position.

  Bytes may be floats, as the inputs of all networks are; others are rounded to the nearest byte.

  Example:
    >>> look_up(jnp.arange(256.0)[:, None], jnp.zeros((2, 1)), jnp.array([[7.2, 300.0]])).tolist()
    [[[7.0], [255.0]]]
  """
  index = jnp.clip(jnp.rint(x), 0, BYTES - 1).astype(jnp.int32)
  return table[index] + positions[None]


class Embedding(nn.Module):
  """`look_up` in learned tables, `embedding` and `positions`."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    table = self.param('embedding', table_init, (BYTES, self.features))
    positions = self.param('positions', table_init, (x.shape[1], self.features))
    return look_up(table, positions, x)


class Attention(nn.Module):
  """Causal attention of a stream with itself, with four projections of the stream's width."""

  parts: Parts
  heads: int

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    features = x.shape[-1]
    names = ('query', 'key', 'value')
    projected = [self.parts.dense(features, name=name)(x, train=train) for name in names]
    y = CausalAttention(self.heads)(*projected)
    return self.parts.dense(features, name='out')(y, train=train)


class Block(nn.Module):
  """x + attention(norm(x)), then x + perceptron(norm(x)), whose hidden units dropout acts on."""

  parts: Parts
  heads: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    features = x.shape[-1]
    y = nn.LayerNorm(EPSILON, self.dtype, name='norm1')(x)
    x = x + Attention(self.parts, self.heads, name='attention')(y, train=train)
    y = nn.LayerNorm(EPSILON, self.dtype, name='norm2')(x)
    up = self.parts.dense(MULTIPLE * features, name='up')
    y = Dropout(self.dropout)(nn.gelu(up(y, train=train)), kernel_of(up), train=train)
    return x + self.parts.dense(features, name='down')(y, train=train)


class Transformer(Network):
  """`network(bytes_NxT, train=train)` returns float32 logits of the byte after each one.

  Attributes:
    width: the features of the stream.
    depth: the number of blocks.
    heads: the number of heads of each attention.
  """

  num_classes: int = BYTES
  width: int = 192
  depth: int = 4
  heads: int = 6
  convolutional = False
  traced_shape = (128,)

  def check_width(self) -> None:
    super().check_width()
    for size in ('depth', 'heads'):
      value = getattr(self, size)
      require(value >= 1, size, value, 'an integer of at least 1')
    allowed = f'a multiple of the number of heads ({self.heads})'
    require(self.width % self.heads == 0, 'width', self.width, allowed)
    for path in self.widths:
      require(path.endswith('/up'), 'widths', path, "a layer 'up': all others follow the width")

  def check(self, images: jax.Array) -> None:
    shape = tuple(images.shape)
    require(images.ndim == 2, 'Transformer: inputs.shape', shape, '(examples, bytes), of a text')

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
    self.check(images)
    parts = self.parts()
    x = Embedding(self.width, name='embedding')(images).astype(self.dtype)
    for index in range(1, self.depth + 1):
      block = Block(parts, self.heads, self.dropout, self.dtype, name=f'block{index}')
      x = block(x, train=train)
    x = nn.LayerNorm(EPSILON, self.dtype, name='norm')(x)
    return parts.dense(self.num_classes, name='classifier')(x, train=train).astype(jnp.float32)


# The same in NNX


class NnxEmbedding(nnx.Module):
  """`Embedding` in NNX."""

  def __init__(self, features: int, context: int, rngs: nnx.Rngs):
    self.embedding = nnx.Param(table_init(rngs.params(), (BYTES, features)))
    self.positions = nnx.Param(table_init(rngs.params(), (context, features)))

  def __call__(self, x: jax.Array) -> jax.Array:
    return look_up(self.embedding[...], self.positions[: x.shape[1]], x)


class NnxAttention(nnx.Module):
  """`Attention` in NNX."""

  def __init__(self, features: int, heads: int, rngs: nnx.Rngs):
    self.heads = heads
    self.query, self.key, self.value, self.out = (
      _linear(features, features, rngs) for _ in range(4)
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    y = causal_attention(self.query(x), self.key(x), self.value(x), self.heads)
    return self.out(y)


class NnxBlock(nnx.Module):
  """`Block` in NNX, without dropout."""

  def __init__(self, features: int, heads: int, rngs: nnx.Rngs):
    self.norm1 = nnx.LayerNorm(features, epsilon=EPSILON, rngs=rngs)
    self.attention = NnxAttention(features, heads, rngs)
    self.norm2 = nnx.LayerNorm(features, epsilon=EPSILON, rngs=rngs)
    self.up = _linear(features, MULTIPLE * features, rngs)
    self.down = _linear(MULTIPLE * features, features, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    x = x + self.attention(self.norm1(x))
    return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class NnxTransformer(nnx.Module):
  """`Transformer` in NNX, in float32 and without dropout.

  `nnx.state(model, nnx.Param)` has the paths of the linen network's parameters, so that
  `nnx.update(model, params)` takes those.

  Args:
    num_classes: the number of logits.
    width: the features of the stream.
    depth: the number of blocks.
    heads: the number of heads of each attention.
    context: the largest number of bytes.
    rngs: `params` for the initial values.

  Example:
    >>> model = NnxTransformer(width=8, depth=1, heads=2, context=4, rngs=nnx.Rngs(0))
    >>> model(jnp.zeros((1, 4))).shape
    (1, 4, 256)
  """

  def __init__(
    self,
    num_classes: int = BYTES,
    *,
    width: int = 192,
    depth: int = 4,
    heads: int = 6,
    context: int = 128,
    rngs: nnx.Rngs,
  ):
    self.depth = depth
    self.embedding = NnxEmbedding(width, context, rngs)
    for index in range(1, depth + 1):
      setattr(self, f'block{index}', NnxBlock(width, heads, rngs))
    self.norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
    self.classifier = _linear(width, num_classes, rngs)

  def __call__(self, x: jax.Array) -> jax.Array:
    positions = self.embedding.positions.shape[0]
    allowed = f'at most the context ({positions})'
    require(x.shape[1] <= positions, 'NnxTransformer: bytes', x.shape[1], allowed)
    x = self.embedding(x)
    for index in range(1, self.depth + 1):
      x = getattr(self, f'block{index}')(x)
    return self.classifier(self.norm(x))


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
  return nnx.Linear(inputs, outputs, kernel_init=uniform_fan_in, rngs=rngs)
