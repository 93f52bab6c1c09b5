"""What weights cost: the currency of densities for a whole network, its compression or its MACs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.sparsity.counting.measure import positions_at
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout


class Layer(NamedTuple):
  """What is pruned by itself: a leaf, one of the layers that it stacks, or an attention's heads.

  Attributes:
    path: the leaf's path.
    shape: as a matrix, (*positions, inputs, outputs).
    groups: how many groups it is pruned by.
    sizes: {weights in a group: how many such groups} as pairs, the largest first; () where a group
      is a single weight.
    leaves: (path, weights) of each leaf that it is made of; () where it is the leaf at `path`.
  """

  path: str
  shape: tuple[int, ...]
  groups: int
  sizes: tuple[tuple[int, int], ...] = ()
  leaves: tuple[tuple[str, int], ...] = ()

  @property
  def weights(self) -> int:
    return sum(n for _, n in self.leaves) if self.leaves else math.prod(self.shape)

  def largest(self, count: int) -> int:
    """Returns how many weights are in so many of the largest groups."""
    total = 0
    for size, number in self.sizes or ((self.weights // max(self.groups, 1), self.groups),):
      taken = min(number, count)
      total, count = total + size * taken, count - taken
    return total


class Costs(NamedTuple):
  """What one weight of each kernel of a network costs, by path, and the whole network."""

  of_weight: Mapping[str, int]
  total: int

  def price(self, layer: Layer) -> float:
    """Returns what one weight of a layer costs, on average over the leaves it is made of."""
    leaves = layer.leaves or ((layer.path, layer.weights),)
    if missing := [path for path, _ in leaves if path not in self.of_weight]:
      raise ValueError(
        f"costs: nothing is known of '{missing[0]}'; known are {', '.join(self.of_weight)}"
      )
    weights = layer.weights
    return sum(self.of_weight[path] * n for path, n in leaves) / weights if weights else 0.0

  def budget(self, layers: Sequence[Layer], density: float) -> float:
    """Returns what the layers may cost together for the network to cost the density's share."""
    own = sum(self.price(layer) * layer.weights for layer in layers)
    rest = self.total - own
    if rest > 0 and density * self.total <= rest:
      pruned = {path for layer in layers for path, _ in layer.leaves or ((layer.path, 0),)}
      others = [path for path, cost in self.of_weight.items() if cost and path not in pruned]
      raise ValueError(
        f'density={density:.4g}: the layers that are not pruned ({", ".join(others)}) cost '
        f'{rest / self.total:.4g} of the network by themselves, and the density must be more'
      )
    return density * self.total - rest


Told = Mapping[str, str | Layout] | axes.Given | None


def weight_costs(params: Any, layouts: Told = None) -> Costs:
  """Every weight of a kernel costs 1, biases and BatchNorm nothing: densities are 1 / compression.

  Example:
    >>> import jax.numpy as jnp
    >>> weight_costs({'fc': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}})
    Costs(of_weight={'fc/bias': 0, 'fc/kernel': 1}, total=6)
  """
  return _costs(params, lambda path: 1, layouts)


def mac_costs(params: Any, positions: Mapping[str, int], layouts: Told = None) -> Costs:
  """A weight costs one multiply-accumulate at each position where its layer applies it.

  Args:
    params: a pytree of arrays, or of their shapes.
    positions: by layer or by path, as `models.positions` and `positions_of` find them: 1 for a
      dense layer, height x width of the output for a convolution.
    layouts: as of `prune`; one without inputs says that a leaf is no kernel.

  Raises:
    ValueError: a kernel whose layer has no entry.

  Example:
    >>> import jax.numpy as jnp
    >>> mac_costs({'conv': {'kernel': jnp.ones((3, 3, 1, 2))}}, {'conv': 64})
    Costs(of_weight={'conv/kernel': 64}, total=1152)
  """
  return _costs(params, lambda path: positions_at(path, positions), layouts)


def _costs(params, of_kernel, layouts):
  kernels = axes.kernels(params, axes.given(layouts))
  of_weight = {path: of_kernel(path) if path in kernels else 0 for path in tree.paths(params)}
  total = sum(of_weight[path] * math.prod(leaf.shape) for path, leaf in kernels.items())
  return Costs(of_weight, total)
