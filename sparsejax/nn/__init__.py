"""The layers that networks are built from: one interface, and a family for each kind of weight."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sparsejax.internal.lookup import lookup
from sparsejax.internal.needs import needed
from sparsejax.posterior import FAMILIES, Family
from sparsejax.posterior.layers import DETERMINISTIC as NAME_OF_DETERMINISTIC

with needed('models'):
  from flax import linen as nn

  from sparsejax.nn import deterministic, variational
  from sparsejax.nn.attention import CausalAttention
  from sparsejax.nn.dropout import Dropout, kernel_of
  from sparsejax.nn.normalisation import BatchNorm
  from sparsejax.nn.pooling import max_pool

__all__ = [
  'DETERMINISTIC',
  'BatchNorm',
  'CausalAttention',
  'Dropout',
  'Layers',
  'get',
  'kernel_of',
  'max_pool',
  'of',
]


class Layers(NamedTuple):
  """The two functions that make a network's layers, as linen modules.

  dense(features, use_bias=True, dtype=..., kernel_init=..., name=...)
  conv(features, kernel_size, strides=(1, 1), padding=((1, 1), (1, 1)), feature_group_count=1,
    use_bias=True, dtype=..., kernel_init=..., name=...)

  Both also take `widths`, {path of a layer: its number of features}, if the network has some.

  A module is called as `layer(x, train=train)`; a variational one samples in training.
  """

  dense: Callable[..., nn.Module]
  conv: Callable[..., nn.Module]


DETERMINISTIC = Layers(dense=deterministic.Dense, conv=deterministic.Conv)


def of(family: Family, **settings: Any) -> Layers:
  """Returns the layers of a family of posteriors; `variational.makers` explains the settings."""
  return Layers(*variational.makers(family, **settings))


def get(name: str) -> Layers:
  """Returns the layers of that name: 'deterministic', or the name of a family of posteriors."""
  found = lookup('layers', name, {NAME_OF_DETERMINISTIC: DETERMINISTIC, **FAMILIES})
  return of(found) if isinstance(found, Family) else found
