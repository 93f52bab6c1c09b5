"""What weights cost: the currency of targets for a whole network, its compression or its MACs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.sparsity.measure import layer_of
from sparsejax.sparsity.tree import is_kernel, named_leaves


class Layer(NamedTuple):
  """A leaf that is pruned: its path, its shape, and how many groups it is pruned by."""

  path: str
  shape: tuple[int, ...]
  groups: int


class Costs(NamedTuple):
  """What one weight of each kernel of a network costs, by path, and the whole network."""

  of_weight: Mapping[str, int]
  total: int

  def of_group(self, layer: Layer) -> float:
    """Returns what one group of a layer costs, on average where they differ in size."""
    if layer.path not in self.of_weight:
      raise ValueError(
        f"costs: nothing is known of '{layer.path}'; known are {', '.join(self.of_weight)}"
      )
    return self.of_weight[layer.path] * math.prod(layer.shape) / layer.groups

  def budget(self, layers: Sequence[Layer], target: float) -> float:
    """Returns what the layers may cost together for the network to cost the target's share."""
    own = sum(self.of_weight[layer.path] * math.prod(layer.shape) for layer in layers)
    rest = self.total - own
    if rest > 0 and target * self.total <= rest:
      raise ValueError(
        f'target={target:.4g}: the layers that are not pruned cost {rest / self.total:.4g} of the '
        'network by themselves; allowed is more'
      )
    return target * self.total - rest


def weight_costs(params: Any) -> Costs:
  """Every weight of a kernel costs 1, biases and BatchNorm nothing: targets are 1 / compression.

  Example:
    >>> import jax.numpy as jnp
    >>> weight_costs({'fc': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}})
    Costs(of_weight={'fc/bias': 0, 'fc/kernel': 1}, total=6)
  """
  return _costs(params, lambda path: 1)


def mac_costs(params: Any, positions: Mapping[str, int]) -> Costs:
  """A weight costs one multiply-accumulate at each position where its layer applies it.

  Args:
    params: a pytree of arrays, or of their shapes.
    positions: by layer, as `models.positions` finds them: 1 for a dense layer, height x width of
      the output for a convolution.

  Raises:
    ValueError: a kernel whose layer has no entry.

  Example:
    >>> import jax.numpy as jnp
    >>> mac_costs({'conv': {'kernel': jnp.ones((3, 3, 1, 2))}}, {'conv': 64})
    Costs(of_weight={'conv/kernel': 64}, total=1152)
  """

  def price(path):
    if layer_of(path) not in positions:
      raise ValueError(f"positions: nothing is known of the layer '{layer_of(path)}'")
    return positions[layer_of(path)]

  return _costs(params, price)


def _costs(params, of_kernel):
  named = named_leaves(params)
  of_weight = {
    path: of_kernel(path) if is_kernel(path, leaf) else 0 for path, leaf in named.items()
  }
  total = sum(of_weight[path] * math.prod(leaf.shape) for path, leaf in named.items())
  return Costs(of_weight, total)
