"""The networks, by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.internal.lookup import lookup
from sparsejax.internal.needs import needed
from sparsejax.posterior.layers import DETERMINISTIC
from sparsejax.sparsity.counting.measure import layer_of
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program import counts

with needed('models'):
  from flax import linen as nn
  from flax.typing import Dtype

  from sparsejax import nn as sparse_layers
  from sparsejax.models.butterfly import ButterflyBlock, ButterflyResNet18, TreeBlock
  from sparsejax.models.dead_units import architecture, remove_dead
  from sparsejax.models.lenet import LeNet5, LeNet300
  from sparsejax.models.mobilenet import MobileNet
  from sparsejax.models.network import Network, require
  from sparsejax.models.plain import VGG16, AllConv
  from sparsejax.models.resnet import BOTTLENECK, ResNet
  from sparsejax.models.transformer import Transformer
  from sparsejax.models.widths import check_widths, plan, shrink
  from sparsejax.nn import Layers

__all__ = [
  'MODELS',
  'applied',
  'architecture',
  'create',
  'has_convolutions',
  'plan',
  'positions',
  'remove_dead',
  'shrink',
]

MODELS: dict[str, Callable[..., Network]] = {
  'allconv': AllConv,
  'butterfly_resnet18': partial(ButterflyResNet18, block=TreeBlock),
  'butterfly_resnet18_general': partial(ButterflyResNet18, block=ButterflyBlock),
  'lenet300': LeNet300,
  'lenet5': LeNet5,
  'mobilenet': MobileNet,
  'resnet18': partial(ResNet, depths=(2, 2, 2, 2)),
  'resnet20': partial(ResNet, width=16, depths=(3, 3, 3)),
  'resnet50': partial(ResNet, depths=(3, 4, 6, 3), branch=BOTTLENECK),
  'resnet56': partial(ResNet, width=16, depths=(9, 9, 9)),
  'transformer': Transformer,
  'vgg16': VGG16,
}
DTYPES = ('float32', 'bfloat16')
SIZES = ('width', 'depth', 'heads')  # the settings of `create` that None leaves to the network


def create(
  name: str,
  num_classes: int = 10,
  *,
  layers: str | Layers = DETERMINISTIC,
  width: int | None = None,
  depth: int | None = None,
  heads: int | None = None,
  dropout: float = 0.0,
  dtype: str | Dtype = 'float32',
  batch_norm_axis: str | None = None,
  widths: Mapping[str, int] | None = None,
) -> Network:
  """Returns the network of that name; call it as `network.apply(variables, images, train=train)`.

  Args:
    name: one of `MODELS`.
    num_classes: the number of logits.
    layers: 'deterministic', a name in `posterior.FAMILIES`, or `Layers`.
    width: the planes of the first layer, with which the others scale; None is the published width.
      In lenet300 it is the size of the first hidden layer, in lenet5 of the first convolution, in
      the transformer the number of features of its stream.
    depth: the number of blocks of a transformer; None is its default.
    heads: the number of heads of each attention of a transformer; None is its default.
    dropout: the share of units dropped in training while the network is dense.
    dtype: the dtype of the computation, float32 or bfloat16; parameters and logits stay float32.
    batch_norm_axis: the pmap axis over which BatchNorm averages its moments; None keeps them local.
    widths: {path of a layer: its number of features}, such as {'block1_1/conv1': 24}, for layers
      whose width does not follow from `width`. Layers added to one residual stream must have the
      same width; a depthwise convolution follows its input.

  Raises:
    ValueError: if a name is unknown, a value is out of range, or widths do not fit together.

  Example:
    >>> model = create('lenet300', widths={'fc1': 20, 'fc2': 7})
    >>> images = jnp.zeros((1, 28, 28, 1))
    >>> shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    >>> [layer['kernel'].shape for layer in shapes['params'].values()]
    [(784, 20), (20, 7), (7, 10)]
  """
  make = lookup('model', name, MODELS)
  require(
    _is_int(num_classes) and num_classes >= 1,
    'num_classes',
    num_classes,
    'an integer of at least 1',
  )
  is_share = isinstance(dropout, int | float) and 0 <= dropout < 1
  require(is_share, 'dropout', dropout, 'a share in [0, 1)')
  sizes = dict(zip(SIZES, (width, depth, heads), strict=True))
  for size, value in sizes.items():
    require(value is None or _is_int(value), size, value, 'an integer, or None')
    made = getattr(make, 'func', make)
    # What a function makes of a size is its own affair.
    known = value is None or not isinstance(made, type) or hasattr(made, size)
    require(known, size, value, f"None with '{name}', which has no such size")
  settings = {
    'num_classes': num_classes,
    'layers': sparse_layers.get(layers) if isinstance(layers, str) else layers,
    'dropout': dropout,
    'dtype': _dtype(dtype),
    'batch_norm_axis': batch_norm_axis,
    **{size: value for size, value in sizes.items() if value is not None},
  }
  if widths:
    settings['widths'] = check_widths(make(**settings, parent=None), widths)
  model = make(**settings)
  model.check_width()
  return model


def has_convolutions(model: str | Network) -> bool:
  """Returns whether a network, given by name or as a module, contains a convolution."""
  return (create(model) if isinstance(model, str) else model).convolutional


def positions(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, int]:
  """Returns how often each layer applies its kernel to an example, in the order of the layers.

  A layer needs positions * kernel.size multiplications per example; a sparse one can make do with
  positions * (non-zero entries).

  Args:
    model: any linen module called as `model(images, train=...)`; for other functions use
      `positions_of`.
    image_shape: (height, width, channels), or (bytes,) for a transformer.

  Returns:
    {path joined with '/': number of positions} for each layer whose kernel is multiplied with
    something: 1 for a dense layer, height * width of the output for a convolution, summed over the
    calls of a layer. If the kernels of a layer differ in this number, each has its own path.

  Raises:
    ValueError: a loop has a number of repetitions that the program does not fix.
  """
  return applied(model, image_shape).positions


class Applied(NamedTuple):
  """The multiply-accumulates of a network for one example, without its parameters' values.

  Attributes:
    positions: how often each layer applies its kernel, as `positions` returns it.
    products: the multiply-accumulates of products of two activations, as in attention.
  """

  positions: dict[str, int]
  products: int


def applied(model: nn.Module, image_shape: tuple[int, ...]) -> Applied:
  """Returns the positions of a network's layers, and its products of two activations.

  Args:
    model: as in `positions`.
    image_shape: as in `positions`.

  Raises:
    ValueError: as for `positions`.

  Example:
    >>> applied(create('transformer', width=8, depth=1, heads=2), (16,)).products  # 2 x 16 x 16 x 8
    4096
  """
  images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  init = partial(model.init, train=False)
  shapes = dict(jax.eval_shape(init, jax.random.key(0), images))
  params = shapes.pop('params', {})

  def apply(params, images, rest):
    return model.apply({'params': params, **rest}, images, train=False)

  found, products = counts(apply, params, images, shapes)
  own = tree.kernels(params)
  kernels = {path: n for path, n in found.items() if n and path in own}
  by_layer: dict[str, set[int]] = {}
  for path, n in kernels.items():
    by_layer.setdefault(layer_of(path), set()).add(n)
  by_path = {
    layer_of(path) if len(by_layer[layer_of(path)]) == 1 else path: n for path, n in kernels.items()
  }
  return Applied(by_path, products)


def _is_int(value: object) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _dtype(dtype: str | Dtype) -> Dtype:
  """Returns the dtype of that name, or raises a ValueError."""
  name = dtype if isinstance(dtype, str) else getattr(dtype, '__name__', str(dtype))
  require(name in DTYPES, 'dtype', name, ' or '.join(DTYPES))
  return jnp.dtype(name)
