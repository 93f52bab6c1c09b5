"""Pruning once, for people who only want that: no schedule, no optimizer."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from sparsejax.sparsity import refusals
from sparsejax.sparsity.counting.costs import Costs, Layer, mac_costs, weight_costs
from sparsejax.sparsity.counting.measure import sizes
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.mask_update import Renewal
from sparsejax.sparsity.parts import allocation as allocations
from sparsejax.sparsity.parts import criteria, schedules
from sparsejax.sparsity.parts import granularity as granularities


def prune_to(
  params: Any,
  *,
  sparsity: float | Mapping[str, float] | None = None,
  compression: float | Mapping[str, float] | None = None,
  macs: float | None = None,
  parameters: int | None = None,
  positions: Mapping[str, int] | None = None,
  criterion: criteria.Criterion = criteria.magnitude,
  granularity: granularities.Granularity | None = None,
  allocation: Callable[[Costs | None], allocations.Allocation] | None = None,
  exclude: str | Sequence[str] = (),
  layouts: Mapping[str, str | Layout] | None = None,
  floor: int = 1,
  seed: jax.typing.ArrayLike = 0,
  return_masks: bool = False,
  **extra: Any,
) -> Any:
  r"""Sets the lowest-scoring weights of kernels to exactly zero, down to a density of the network.

  Excluded kernels count towards the density. Single weights meet it exactly; groups, and densities
  in MACs, come as close as possible from below.

  Args:
    params: any pytree; leaves that are not kernels are unchanged.
    sparsity: the share of the kernels' weights to set to zero, in [0, 1); or {pattern of a path:
      share} by layer, where layers without a match stay whole.
    compression: instead, weights / active weights, 1 or more; or such a mapping.
    macs: instead, the share of the kernels' multiply-accumulates to keep, in (0, 1]; products
      without a kernel, as in attention, do not count.
    parameters: instead, the number of parameters to keep, including those outside kernels (biases,
      scales, embeddings), which are all kept.
    positions: for `macs`, how often each layer applies its kernel (`models.positions`).
    criterion: scores the weights; those with the largest scores are kept.
    granularity: the groups that are removed together; single weights by default.
    allocation: `allocation.global_rank` (the default, except for N:M, where it is `uniform`),
      `uniform` or `erk`: the function itself, which is called here with the costs of the network.
    exclude: regular expressions (or one) over paths of kernels to leave whole.
    layouts: {regular expression over paths: layout}, as in `prune`.
    floor: the least number of weights (or groups) that every layer keeps.
    seed: the seed of the random criterion; also an array of one integer, as within `jax.jit`.
    return_masks: whether to return the masks too.
    **extra: the arguments that the criterion needs, such as `grad`.

  Returns:
    The pruned parameters; with `return_masks`, (params, masks), where masks are bools of a kernel's
    shape, and of shape () for other leaves, as in the state of `prune`.

  Raises:
    ValueError: unless exactly one density is given, within its range and within reach.

  Example:
    >>> params = {'fc': {'kernel': jnp.array([[3.0, -1.0], [0.5, 2.0]]), 'bias': jnp.ones(2)}}
    >>> prune_to(params, sparsity=0.5)['fc']['kernel'].tolist()
    [[3.0, 0.0], [0.0, 2.0]]
    >>> pruned, masks = prune_to(params, parameters=3, return_masks=True)  # the biases and one
    >>> masks['fc']['kernel'].tolist()
    [[True, False], [False, False]]
  """
  if granularity is not None and not isinstance(granularity, granularities.Granularity):
    raise ValueError(refusals.part('granularity', granularity))
  given_layouts = axes.given(layouts)
  given = {'sparsity': sparsity, 'compression': compression, 'macs': macs, 'parameters': parameters}
  density = _density(given, params, given_layouts)
  if isinstance(density, tuple):
    if allocation is not None:
      raise ValueError('densities by layer leave nothing to allocate: give no allocation=')
    share = density
    rule = allocations.by_layer()
  else:
    share, rule = _allocate(
      params,
      density,
      _function(allocation, granularity),
      granularity,
      macs,
      positions,
      exclude,
      given_layouts,
    )
  parts = Renewal.of(
    schedules.PruningSchedule((0,), (share,)),
    criterion=criterion,
    granularity=granularity,
    allocation=rule,
    exclude=exclude,
    layouts=given_layouts,
    floor=floor,
    seed=seed,
  )
  _check_extra(parts, extra)
  masks = parts.renewed_if(True, parts.begin(params, seed), params, extra)
  if isinstance(share, float):
    _warn_of_thin_layers(masks, share)
  pruned = jax.tree.map(lambda m, p: jnp.where(m, p, 0).astype(p.dtype), masks, params)
  return (pruned, masks) if return_masks else pruned


def _allocate(
  params, density, make, granularity, macs, positions, exclude, layouts
) -> tuple[float, allocations.Allocation]:
  """Returns the density of the pruned kernels and the allocation that give the network its density.

  Args:
    density: the density of the network.
    make: the function that makes the allocation, from the costs of groups if these matter.
    params, granularity, macs, positions, exclude: as in `prune_to`.
    layouts: the layouts that the user gave.
  """
  if granularity is not None and granularity.density is not None:
    if macs is not None:
      raise ValueError('granularity n_m fixes the density: give sparsity instead of macs')
    granularity.check_density(density)
    return granularity.density, make()
  if macs is not None:
    if positions is None:
      raise ValueError('macs needs positions=: how often each layer applies its kernel')
    return density, make(mac_costs(params, positions, layouts))
  if granularity is not None:
    return density, make(weight_costs(params, layouts))
  # The count of single weights is an exact integer, which a budget in float32 is not.
  return _chosen_density(params, exclude, density, layouts), make()


def _warn_of_thin_layers(masks: Any, share: float) -> None:
  """Warns of each layer that keeps a single weight or none where an even share would be more."""
  for path, mask in tree.named_leaves(masks).items():
    if isinstance(mask, jax.core.Tracer) or share * mask.size < 2:
      continue
    left = int(mask.sum())
    if left <= 1:
      warnings.warn(
        f'prune_to leaves {left} of the {mask.size:,} weights of {path}; a floor, or '
        'allocation=erk or uniform, keeps more of a small layer',
        stacklevel=3,
      )


def _function(allocation, granularity) -> Callable[..., allocations.Allocation]:
  """Returns the function that makes an allocation from the network's costs."""
  if allocation is None:
    evenly = granularity is not None and granularity.evenly
    return allocations.uniform if evenly else allocations.global_rank
  if allocation not in (allocations.global_rank, allocations.uniform, allocations.erk):
    raise ValueError(
      f'allocation={allocation} must be the function global_rank, uniform or erk, not called'
    )
  return allocation


def _density(given: Mapping[str, Any], params: Any, layouts: axes.Given) -> schedules.Density:
  """Returns the density of the network, in weights or MACs, or the densities of its layers."""
  given = {name: value for name, value in given.items() if value is not None}
  if len(given) != 1:
    raise ValueError(f'prune_to with {given}: give one of sparsity, compression, macs, parameters')
  [(name, value)] = given.items()
  if isinstance(value, Mapping) and name in ('sparsity', 'compression'):
    left = {pattern: _kept_share(f'{name} of {pattern!r}', name, v) for pattern, v in value.items()}
    return schedules.density_of(left, name)
  if name == 'parameters' and schedules.is_number(value):
    return _density_for_parameters(value, params, layouts)
  return _kept_share(name, name, value)


def _kept_share(called: str, name: str, value: Any) -> float:
  """Returns the density that a value of sparsity, compression or macs stands for."""
  if not schedules.is_number(value):
    raise ValueError(f'{called}={value!r} must be a number')
  allowed, left = {
    'sparsity': ('a share in [0, 1)', lambda: 1 - value),
    'compression': ('a number, 1 or more', lambda: 1 / value if value > 0 else 2),
    'macs': ('a share in (0, 1]', lambda: value),
  }[name]
  if not 0 < left() <= 1:
    raise ValueError(f'{called}={value} must be {allowed}')
  return float(left())


def _density_for_parameters(parameters: Any, params: Any, layouts: axes.Given) -> float:
  """Returns the density of the weights at which the network has this number of parameters."""
  weights = weight_costs(params, layouts).total
  total = sum(sizes(params).values())
  others = total - weights
  if not float(parameters).is_integer() or not others < parameters <= total:
    raise ValueError(
      f'parameters={parameters} must be a whole number, more than {others}, the number '
      f'outside kernels, and at most {total}'
    )
  return (int(parameters) - others) / weights


def _chosen_density(params, exclude, density, layouts) -> float:
  """Returns the density of the chosen kernels at which the whole network has `density`."""
  chosen = tree.named_leaves(tree.pick(params, axes.choose(params, 'kernels', exclude, layouts)))
  layers = [Layer(path, leaf.shape, leaf.size) for path, leaf in chosen.items()]
  budget = weight_costs(params, layouts).budget(layers, density)
  groups = sum(layer.groups for layer in layers)
  return budget / groups if groups else density


def _check_extra(parts: Renewal, extra: Mapping[str, Any]) -> None:
  """Raises a ValueError unless the extra arguments are exactly those that the criterion needs."""
  needs = {name for name, _ in parts.needs}
  if needs != set(extra):
    raise ValueError(
      f'the criterion needs {sorted(needs) or "nothing"} and got {sorted(extra) or "nothing"}: '
      'give exactly what it needs, as trees like the parameters'
    )
