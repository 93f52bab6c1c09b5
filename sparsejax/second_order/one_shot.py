"""Pruning a whole network in one shot, each layer on inputs from the pruned layers before it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.lookup import lookup
from sparsejax.second_order import keeping
from sparsejax.second_order.capture import Capture, Layer
from sparsejax.second_order.lobs import lobs
from sparsejax.second_order.moments import Moments
from sparsejax.second_order.sparsegpt import sparsegpt
from sparsejax.second_order.wanda import wanda
from sparsejax.sparsity.batch_norm import recalibrate_batch_norm
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.mask_update import Renewal
from sparsejax.sparsity.parts import allocation as allocations
from sparsejax.sparsity.parts import criteria, schedules
from sparsejax.sparsity.parts import granularity as granularities
from sparsejax.sparsity.program import layouts_of

Rule = Callable[[jax.Array, Moments, keeping.Keep], tuple[jax.Array, jax.Array]]
RULES: dict[str, Rule] = {'lobs': lobs, 'sparsegpt': sparsegpt, 'wanda': wanda}
OF_THE_DIAGONAL = (wanda,)


class Pruned(NamedTuple):
  """A network after one more of its layers was pruned.

  Attributes:
    params: the parameters so far.
    masks: the masks so far, True where nothing was pruned yet; of shape () for leaves that are not
      pruned at all.
    path: the path of the layer's kernel.
    number: how many layers are done, this one included.
    layers: how many there are.
    kept: how many weights of the layer stay.
    size: how many it had.
  """

  params: Any
  masks: Any
  path: str
  number: int
  layers: int
  kept: int
  size: int


def prune_with_data(
  function: Callable[[Any, Any], Any],
  params: Any,
  batches: Iterable[Any],
  *,
  density: float | Mapping[str, float] | None = None,
  rule: str | Rule = 'sparsegpt',
  granularity: granularities.Granularity | None = None,
  allocation: allocations.Allocation | None = None,
  exclude: str | Sequence[str] = (),
  layouts: Mapping[str, str | Layout] | None = None,
  floor: int = 1,
  update_averages: Callable[[Any, Any], Any] | None = None,
  progress: Callable[[Pruned], Any] | None = None,
) -> tuple[Any, Any]:
  """Prunes a trained network in one shot, so that each layer's outputs on some data change little.

  Layer after layer, the rule gets the second moments of the layer's inputs in the network as pruned
  so far. How many weights each layer keeps is decided before, by magnitudes, as `prune` would.

  The function is traced, and any kernel that multiplies activations in it is a layer, whatever
  library made it. All batches make one forward pass together, from layer to layer, and what the
  rest of the network needs of each is held meanwhile. The given parameters never change, and
  `progress` gets what is done after each layer, so that an interrupt need not lose it.

  Args:
    function: a function of (params, batch), deterministic, such as a network in evaluation mode.
    params: any pytree of arrays; leaves that are no kernels are unchanged.
    batches: pytrees of arrays: a few hundred examples, without augmentation.
    density: the share of the pruned kernels' weights to keep, or {pattern of a path: share}; by
      default the one that the granularity fixes.
    rule: 'sparsegpt', 'wanda' or 'lobs', or a function of (kernel, moments, keep) as these are,
      such as `functools.partial(sparsegpt, damping=0.1)`.
    granularity: single weights by default, or `granularity.n_m` or `n_of_m`.
    allocation: as in `prune`: `allocation.global_rank()` by default, for n:m `uniform()`.
    exclude: regular expressions (or one) over paths of kernels to leave whole.
    layouts: {regular expression over paths: layout}, as in `prune`, for kernels whose layout the
      function does not show.
    floor: the least number of weights that every layer keeps by the allocation.
    update_averages: a function of (params, batch) that returns params['batch_stats'] after a
      training pass; BatchNorm's averages are then estimated again, over the same batches.
    progress: called with a `Pruned` after each layer.

  Returns:
    (params, masks), where masks are bools of a kernel's shape, and of shape () for other leaves, as
    in the state of `prune`.

  Raises:
    ValueError: if an argument is out of range, or a kernel to prune is used other than in products
      with activations, as within a scan over layers.

  Example:
    >>> function = lambda p, x: jax.nn.relu(x @ p['a']['kernel']) @ p['b']['kernel']
    >>> params = {'a': {'kernel': jnp.array([[1.0, 0.5], [-1.0, 2.0]])}}
    >>> params['b'] = {'kernel': jnp.array([[2.0, 1.0], [0.5, 3.0]])}
    >>> batches = [jnp.array([[1.0, 0.0], [2.0, 1.0]])]
    >>> pruned, masks = prune_with_data(function, params, batches, density=0.5, rule='wanda')
    >>> pruned['a']['kernel'].tolist()
    [[1.0, 0.0], [0.0, 2.0]]

    A linen module with BatchNorm, whose variables are the parameters:

    >>> pruned, masks = prune_with_data(  # doctest: +SKIP
    ...   lambda v, x: model.apply(v, x, train=False), variables, batches, density=0.3,
    ...   update_averages=lambda v, x: model.apply(
    ...     v, x, train=True, mutable='batch_stats')[1]['batch_stats'])

    An NNX module:

    >>> graph, weights, rest = nnx.split(model, nnx.Param, ...)  # doctest: +SKIP
    >>> pruned, masks = prune_with_data(  # doctest: +SKIP
    ...   lambda p, x: nnx.merge(graph, p, rest)(x), weights, batches, density=0.3)
    >>> nnx.update(model, pruned)  # doctest: +SKIP

  References:
    Frantar and Alistarh 2023, https://arxiv.org/abs/2301.00774
    Sun et al. 2023, https://arxiv.org/abs/2306.11695
    Dong et al. 2017, https://arxiv.org/abs/1705.07565
  """
  rule = lookup('rule', rule, RULES) if isinstance(rule, str) else rule
  batches = list(batches)
  if not batches:
    raise ValueError('batches is empty; give one batch or more')
  has_averages = isinstance(params, Mapping) and 'batch_stats' in params
  if update_averages is not None and not has_averages:
    raise ValueError(
      "update_averages needs params with the averages under 'batch_stats', as linen's variables"
    )
  shown = layouts_of(function, params, batches[0])
  given = axes.given({**(layouts or {}), **shown, **(layouts or {})})  # the user's own come first
  planned = _planned(params, density, granularity, allocation, exclude, given, floor)
  n_m = _n_of_m(granularity, density)
  masks = jax.tree.map(jnp.ones_like, planned)
  for done in _layer_after_layer(function, params, batches, planned, rule, n_m):
    params, masks = done.params, done.masks
    if progress is not None:
      progress(done)
  if update_averages is not None:
    params = _with_averages(update_averages, params, batches)
  return params, masks


def _with_averages(update, variables, batches):
  def update_of(averages, batch):
    return update({**variables, 'batch_stats': averages}, batch)

  averages = recalibrate_batch_norm(jax.jit(update_of), variables['batch_stats'], batches)
  return {**variables, 'batch_stats': averages}


def _layer_after_layer(
  function: Callable[[Any, Any], Any],
  params: Any,
  batches: Sequence[Any],
  planned: Any,
  rule: Rule,
  n_m: tuple[int, int] | None,
) -> Iterator[Pruned]:
  """Yields the network after each layer that is pruned; `planned` tells how many weights stay."""
  counted = {path: mask for path, mask in tree.named_leaves(planned).items() if mask.ndim}
  capture = Capture(function, params, batches, list(counted))
  _check_whole(capture.layers, counted)
  masks = {path: jnp.ones_like(mask) for path, mask in tree.named_leaves(planned).items()}
  leaves = tree.named_leaves(params)
  leaves |= {path: jnp.asarray(leaves[path]) for path in counted}  # they may be NumPy's
  structure = jax.tree.structure(params)
  for number, layer in enumerate(capture.layers, 1):
    moments = capture.moments(
      layer, jax.tree.unflatten(structure, leaves.values()), diagonal=rule in OF_THE_DIAGONAL
    )
    _check_moments(layer, moments)
    keeps = [n_m or int(kept) for kept in _kept(counted[layer.path], layer)]
    new, mask = _prune_layer(rule, leaves[layer.path], layer, moments, keeps)
    if not bool(jnp.isfinite(new).all()):
      raise ValueError(
        f"'{layer.path}' would have weights that are not finite: its inputs do not determine them; "
        'give more examples, or a rule with more damping'
      )
    leaves[layer.path] = _put(leaves[layer.path], layer, new)
    masks[layer.path] = _put(masks[layer.path], layer, mask)
    yield Pruned(
      jax.tree.unflatten(structure, leaves.values()),
      jax.tree.unflatten(structure, masks.values()),
      layer.path,
      number,
      len(capture.layers),
      int(mask.sum()),
      mask.size,
    )


def _planned(params, density, granularity, allocation, exclude, layouts, floor) -> Any:
  """Returns the masks of magnitudes, whose numbers of weights each layer is to keep."""
  is_single = granularity is None or granularity is granularities.SINGLE
  if not is_single and not getattr(granularity, 'evenly', False):
    raise ValueError(
      'granularity must be one of single weights, n_m or n_of_m: rules choose no other groups'
    )
  if density is None:
    density = None if granularity is None else granularity.density
  if density is None:
    raise ValueError('density is missing: give the share of the weights to keep')
  parts = Renewal.of(
    schedules.PruningSchedule((0,), (schedules.density_of(density),)),
    criterion=criteria.magnitude,
    granularity=granularity,
    allocation=allocation,
    exclude=exclude,
    layouts=layouts,
    floor=floor,
    seed=0,
  )
  return parts.renewed_if(True, parts.begin(params, 0), params, {})


def _n_of_m(granularity, density) -> tuple[int, int] | None:
  """Returns (n, m) of a granularity n:m, or None for single weights."""
  if granularity is None or granularity.length is None:
    return None
  m = granularity.length
  share = granularity.density if density is None else density
  n = round(share * m) if schedules.is_number(share) else 0
  if not 1 <= n <= m or abs(n - share * m) > 1e-6:
    raise ValueError(
      f'density={share} must be n / {m} with a whole number n from 1 to {m}, for the granularity '
      f'n_of_m({m})'
    )
  return n, m


def _check_whole(layers: Sequence[Layer], counted: Mapping[str, Any]) -> None:
  """Raises a ValueError if some weights of a kernel are in no layer."""
  for path, mask in counted.items():
    used = sum(layer.places.size for layer in layers if layer.path == path)
    if used != mask.size:
      raise ValueError(
        f"'{path}': {mask.size - used} of its {mask.size} weights multiply no activation: exclude "
        'it'
      )


def _check_moments(layer: Layer, moments: Moments) -> None:
  """Raises a ValueError unless a layer's moments say something of its inputs."""
  if not moments.rows > 0:
    raise ValueError(f"batches have no example, so that '{layer.path}' has no inputs; give some")
  if not bool(jnp.isfinite(moments.total).all()):
    raise ValueError(
      f"the inputs of '{layer.path}' must be finite, and so must be their squares: look for nan or "
      'huge values in batches and params'
    )


def _kept(mask: jax.Array, layer: Layer) -> np.ndarray:
  """Returns the number of weights that each of a layer's stacked matrices keeps in a mask."""
  return np.asarray(mask).ravel()[layer.places].sum((1, 2, 3))


def _prune_layer(rule, leaf, layer, moments, keeps) -> tuple[jax.Array, jax.Array]:
  """Returns the new weights and the mask of a layer, both (stack, groups, outputs, inputs)."""
  stack, groups = layer.places.shape[:2]
  kernels = leaf.ravel()[layer.places]
  totals = moments.total.reshape(stack, groups, *moments.total.shape[1:])
  found = [
    rule(kernel, Moments(total, moments.rows), keep)
    for kernel, total, keep in zip(kernels, totals, keeps, strict=True)
  ]
  new, masks = zip(*found, strict=True)
  return jnp.stack(new), jnp.stack(masks)


def _put(leaf: jax.Array, layer: Layer, values: jax.Array) -> jax.Array:
  return leaf.ravel().at[layer.places].set(values.astype(leaf.dtype)).reshape(leaf.shape)
