"""The layers that networks are built of: one interface, and a family for each kind of weight."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn

from sparsejax.layers import deterministic, variational
from sparsejax.layers.dropout import Dropout, kernel_of
from sparsejax.layers.normalisation import BatchNorm
from sparsejax.layers.pooling import max_pool
from sparsejax.lookup import lookup

__all__ = ['FAMILIES', 'BatchNorm', 'Dropout', 'Layers', 'get', 'kernel_of', 'max_pool']


class Layers(NamedTuple):
  """What a network is built of: two functions that make linen modules.

  dense(features, use_bias=True, dtype=..., kernel_init=..., name=...)
  conv(features, kernel_size, strides=(1, 1), padding=((1, 1), (1, 1)), feature_group_count=1,
    use_bias=True, dtype=..., kernel_init=..., name=...)

  A module is called `layer(x, train=train)`: a variational one samples in training.
  """

  dense: Callable[..., nn.Module]
  conv: Callable[..., nn.Module]


FAMILIES = {
  'deterministic': Layers(dense=deterministic.Dense, conv=deterministic.Conv),
  'sparse_vd': Layers(*variational.sparse_vd()),
  'group_normal_jeffreys': Layers(*variational.grouped('group_normal_jeffreys')),
  'group_horseshoe': Layers(*variational.grouped('group_horseshoe')),
}


def get(name: str) -> Layers:
  """Returns the family of layers of that name."""
  return lookup('layers', name, FAMILIES)
