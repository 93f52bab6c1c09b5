"""The cost of one weight of each kernel, by which the density of a whole network is measured.

If every weight costs 1, the density is that of the weights. If a weight costs its
multiply-accumulates, the density is that of the MACs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.sparsity.counting.measure import kernel_positions
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout


class Layer(NamedTuple):
  """A unit of pruning: a leaf, one of the layers that a leaf stacks, or an attention's heads.

  Attributes:
    path: the path of its (first) leaf.
    shape: its shape as a matrix, (*positions, inputs, outputs).
    groups: the number of groups of weights that are kept or removed together.
    sizes: (weights in a group, number of such groups) pairs, the largest groups first; () if all
      groups are of one size.
    leaves: (path, number of weights) of each leaf that it is made of; () if that is `path` alone.
  """

  path: str
  shape: tuple[int, ...]
  groups: int
  sizes: tuple[tuple[int, int], ...] = ()
  leaves: tuple[tuple[str, int], ...] = ()

  @property
  def weights(self) -> int:
    """The number of weights."""
    return sum(n for _, n in self.leaves) if self.leaves else math.prod(self.shape)

  def largest(self, count: int) -> int:
    """Returns the number of weights in the `count` largest groups.

    Example:
      >>> Layer('fc', (3, 4), 4, sizes=((5, 1), (2, 3))).largest(2)
      7
    """
    groups_by_size = self.sizes or ((self.weights // max(self.groups, 1), self.groups),)
    weights = 0
    for size, number in groups_by_size:
      taken = min(number, count)
      weights += size * taken
      count -= taken
    return weights


class Costs(NamedTuple):
  """The costs of a network.

  Attributes:
    of_weight: the cost of one weight of each leaf, by path; 0 for a leaf that is not a kernel.
    total: the cost of all weights together.
  """

  of_weight: Mapping[str, int]
  total: int

  def price(self, layer: Layer) -> float:
    """Returns the cost of one weight of a layer, averaged over the leaves that it is made of.

    Raises:
      ValueError: a leaf has no cost.
    """
    leaves = layer.leaves or ((layer.path, layer.weights),)
    for path, _ in leaves:
      if path not in self.of_weight:
        raise ValueError(
          f"costs must have an entry for '{path}'; the entries are {', '.join(self.of_weight)}"
        )
    weights = layer.weights
    return sum(self.of_weight[path] * n for path, n in leaves) / weights if weights else 0.0

  def budget(self, layers: Sequence[Layer], density: float) -> float:
    """Returns the cost that is left for the pruned layers: density * total - cost of the others.

    Args:
      layers: the layers that are pruned.
      density: the part of the network's total cost that may remain.

    Raises:
      ValueError: the layers that are not pruned cost that much by themselves.
    """
    cost_of_pruned = sum(self.price(layer) * layer.weights for layer in layers)
    cost_of_others = self.total - cost_of_pruned
    if cost_of_others > 0 and density * self.total <= cost_of_others:
      pruned = {path for layer in layers for path, _ in layer.leaves or ((layer.path, 0),)}
      others = [path for path, cost in self.of_weight.items() if cost and path not in pruned]
      raise ValueError(
        f'density={density:.4g} must be more than {cost_of_others / self.total:.4g}, the part of '
        f"the network's cost that is in layers that are not pruned ({', '.join(others)})"
      )
    return density * self.total - cost_of_others


Layouts = Mapping[str, str | Layout] | axes.Given | None


def weight_costs(params: Any, layouts: Layouts = None) -> Costs:
  """Returns costs of 1 for each weight of a kernel, and 0 for biases and normalisations.

  A density by these costs is 1 / compression.

  Example:
    >>> import jax.numpy as jnp
    >>> weight_costs({'fc': {'kernel': jnp.ones((3, 2)), 'bias': jnp.ones(2)}})
    Costs(of_weight={'fc/bias': 0, 'fc/kernel': 1}, total=6)
  """
  return _costs(params, lambda path: 1, layouts)


def mac_costs(params: Any, positions: Mapping[str, int], layouts: Layouts = None) -> Costs:
  """Returns the multiply-accumulates of each weight: the number of positions that apply it.

  Args:
    params: a pytree of arrays, or of their shapes.
    positions: {layer or path: number of positions}, as `models.positions` and `positions_of` return
      it: 1 for a dense layer, height x width of the output for a convolution.
    layouts: {regular expression over paths: layout}, as in `prune`. A leaf whose layout has no
      inputs is not a kernel.

  Raises:
    ValueError: a kernel without positions.

  Example:
    >>> import jax.numpy as jnp
    >>> mac_costs({'conv': {'kernel': jnp.ones((3, 3, 1, 2))}}, {'conv': 64})
    Costs(of_weight={'conv/kernel': 64}, total=1152)
  """
  return _costs(params, lambda path: kernel_positions(path, positions), layouts)


def _costs(params, cost_of_kernel_weight, layouts):
  kernels = axes.kernels(params, axes.given(layouts))
  of_weight = {
    path: cost_of_kernel_weight(path) if path in kernels else 0 for path in tree.paths(params)
  }
  total = sum(of_weight[path] * math.prod(leaf.shape) for path, leaf in kernels.items())
  return Costs(of_weight, total)
