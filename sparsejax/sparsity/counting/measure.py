"""The definition of every figure in a report: weights, sparsity, compression, MACs and others.

active       not exactly zero
parameters   all trainable numbers, including biases and the scale and shift of a BatchNorm
weights      the entries of kernels alone, as papers count them
scales       the scales of normalisations; a channel whose scale is zero is constant
sparsity     1 - active weights / weights
compression  weights / active weights; null in a summary if none is active
macs         the sum of positions * weights over the kernels; a kernel's positions are how often it
             is applied to one example. A run's figures also have the products of two activations,
             as in attention, which stay whatever is pruned
active_macs  the same with active weights
theoretical_speedup  macs / active_macs: a count, not a time; null in a summary if none is active
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.kinds import KERNEL_NAMES, is_parameter
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.leaves.tree import named_leaves

# The research log of 2017 calls the fraction of parameters above this "sparsity".
NEARLY_ZERO = 1e-3


def count_above(params: Any, thresholds: tuple[float, ...]) -> jax.Array:
  """Returns the number of trainable parameters with |p| > t, for each threshold t; jittable.

  NaN counts as larger than any threshold. The counts are int32.

  Example:
    >>> count_above({'w': jnp.array([0.0, -0.5, 2.0])}, (0.0, 1.0)).tolist()
    [2, 1]
  """
  leaves = [leaf for path, leaf in named_leaves(params).items() if is_parameter(path, leaf)]
  counts = [
    sum(jnp.sum(~(jnp.abs(leaf) <= threshold), dtype=jnp.int32) for leaf in leaves)
    for threshold in thresholds
  ]
  return jnp.stack([jnp.asarray(count, jnp.int32) for count in counts])


def count_active(params: Any) -> dict[str, jax.Array]:
  """Returns the number of values that are not exactly zero, by path, as int32; jittable."""
  slices = _count_by_slice(params, jnp.int32)
  return {path: jnp.sum(counts, dtype=jnp.int32) for path, counts in slices.items()}


def active_weights(params: Any) -> dict[str, jax.Array]:
  """Returns the number of weights that are not exactly zero, by layer, as int32; jittable.

  Example:
    >>> counts = active_weights({'fc': {'kernel': jnp.array([[1.0, 0.0]]), 'bias': jnp.ones(2)}})
    >>> {layer: int(count) for layer, count in counts.items()}
    {'fc': 1}
  """
  return _sums_by_layer(params, lambda leaf: jnp.sum(leaf != 0, dtype=jnp.int32))


def weights(params: Any) -> dict[str, int]:
  """Returns the number of weights, by layer, of a tree of arrays or of their shapes."""
  return _sums_by_layer(params, lambda leaf: int(leaf.size))


def _sums_by_layer(params: Any, count: Callable[[Any], Any]) -> dict[str, Any]:
  """Returns the sum of count(kernel) over the kernels of each layer."""
  sums: dict[str, Any] = {}
  for path, leaf in tree.kernels(params).items():
    layer = layer_of(path)
    sums[layer] = sums.get(layer, 0) + count(leaf)
  return sums


def sizes(params: Any) -> dict[str, int]:
  """Returns the number of entries of each trainable leaf, by path."""
  return {
    path: int(leaf.size) for path, leaf in named_leaves(params).items() if is_parameter(path, leaf)
  }


def layer_of(path: str) -> str:
  """Returns the path of the layer that owns a parameter; the parameter's own if none does.

  Example:
    >>> layer_of('block1/conv2/kernel'), layer_of('w')
    ('block1/conv2', 'w')
  """
  return tree.module_of(path) or path


def report(
  params: Any,
  positions: Mapping[str, int] | None = None,
  layouts: Mapping[str, str | Layout] | None = None,
  *,
  products: int = 0,
) -> dict[str, Any]:
  """Returns every figure of a network, under the keys of a run's summary.json.

  - `weights`: the entries of kernels; `sparsity = 1 - active_weights / weights` and `compression =
    weights / active_weights`.
  - `parameters`: the entries of kernels, biases and scales; `active_fraction = active_parameters /
    parameters`.
  - `scales`: the scales of normalisations.
  - `layers`: the weights and units (filters or neurons) of each layer.
  - `macs`, with positions: the products with kernels, and `products`, those of two activations, as
    in attention, which `count_macs(function, params, *examples)` counts.

  Args:
    params: a pytree of concrete arrays: parameters alone, without running averages.
    positions: {layer, or path of a kernel: how often it is applied to one example}, as
      `positions_of` returns it: 1 for a dense layer, height x width of the output for a
      convolution. If given, the report has `macs`, the sum of positions * weights.
    layouts: {regular expression over paths: layout}, as in `prune`. Layers that one leaf stacks are
      reported one by one: LAYER[0], LAYER[1] and so on.
    products: the multiply-accumulates of products of two activations for one example; with
      positions they are part of `macs` and `active_macs`.

  Raises:
    ValueError: a kernel whose layout is ambiguous or that has no positions; traced arrays; a tree
      with `batch_stats` beside `params`.

  Example:
    >>> from sparsejax import sparsity_report as report
    >>> r = report({'fc': {'kernel': jnp.array([[1.0, 0.0]]), 'bias': jnp.ones(2)}}, {'fc': 1})
    >>> r['parameters'], r['active_parameters'], r['compression'], r['active_macs']
    (4, 3, 2.0, 1)
  """
  named = named_leaves(params)
  _check_is_concrete_params(params, named)
  size, active = sizes(params), _active_sizes(params)
  given_layouts = axes.given(layouts)
  kernels = list(axes.kernels(params, given_layouts))
  scales = [path for path in tree.scales(params) if path in size]
  weights, active_weights = (sum(n[path] for path in kernels) for n in (size, active))
  parameters, active_parameters = sum(size.values()), sum(active.values())
  figures = {
    'parameters': parameters,
    'active_parameters': active_parameters,
    'weights': weights,
    'active_weights': active_weights,
    'active_fraction': active_parameters / parameters if parameters else 0.0,
    'scales': sum(size[path] for path in scales),
    'active_scales': sum(active[path] for path in scales),
    'sparsity': 1 - active_weights / weights if weights else 0.0,
    'compression': weights / active_weights if active_weights else float('inf'),
    'layers': _counts_by_layer(params, {path: named[path] for path in kernels}, given_layouts),
  }
  if positions is None:
    return figures
  _check_floating(params, positions)
  return figures | _kernel_macs(size, active, kernels, positions, products)


def _check_is_concrete_params(params: Any, named: Mapping[str, Any]) -> None:
  """Raises a ValueError for a tree of variables instead of parameters, and for traced arrays."""
  if isinstance(params, Mapping) and {'params', 'batch_stats'} <= set(params):
    raise ValueError(
      "a report takes parameters alone, but the tree has 'batch_stats' beside 'params': give it "
      "variables['params']"
    )
  if traced := [path for path, leaf in named.items() if isinstance(leaf, Tracer)]:
    raise ValueError(
      f"a report needs concrete arrays, but '{traced[0]}' is traced: call it outside jit, vmap and "
      'grad; for an ensemble under vmap, call it once on the stacked parameters'
    )


def count_macs(of: Any, *rest: Any) -> dict[str, Any]:
  """Returns `macs`, `active_macs` and their ratio `theoretical_speedup`.

  `count_macs(function, params, *examples)` traces function(params, *examples) and counts for all
  examples together. Products of two activations, as in attention, are `products`, and are part of
  `macs` and `active_macs`.

  `count_macs(params, positions)` counts for one example, macs = sum of positions * weights.

  Args:
    of: the function, or a pytree of concrete arrays.
    *rest: params and examples; or positions, as in `report`.

  Raises:
    ValueError: a kernel without positions or not of a floating dtype, or a program whose
      multiply-accumulates can't be counted exactly.

  Example:
    >>> count_macs({'conv': {'kernel': jnp.array([[[[1.0, 0.0]]]])}}, {'conv': 64})
    {'macs': 128, 'active_macs': 64, 'theoretical_speedup': 2.0}
    >>> count_macs(lambda p, x: x @ p['w'], {'w': jnp.array([[1.0, 0.0]])}, jnp.ones((3, 1)))
    {'macs': 6, 'active_macs': 3, 'theoretical_speedup': 2.0, 'products': 0}
  """
  if not tree.is_function(of):
    if len(rest) != 1 or not isinstance(rest[0], Mapping):
      raise ValueError(_wrong_arguments_message(of))
    figures = report(of, *rest)
    return {name: figures[name] for name in MACS}
  from sparsejax.sparsity import program

  if not rest:
    raise ValueError('count_macs(function) must be given the params of the function after it')
  params, *examples = rest
  positions, products = program.counts(of, params, *examples)
  _check_floating(params, positions)
  macs = sum(positions[path] * n for path, n in sizes(params).items())
  active = sum(positions[path] * n for path, n in _active_sizes(params).items())
  return _mac_figures(macs + products, active + products) | {'products': products}


def _check_floating(params: Any, positions: Mapping[str, int]) -> None:
  """Raises a ValueError for a kernel that is applied but not of a floating dtype."""
  for path, leaf in named_leaves(params).items():
    has_kernel_name = KERNEL_NAMES.search(path.rpartition('/')[2])
    # A layer's positions are those of its kernels alone, not of an integer leaf beside them.
    applied = positions.get(path, positions.get(layer_of(path)) if has_kernel_name else 0)
    if applied and not is_parameter(path, leaf):
      raise ValueError(
        f"multiply-accumulates: '{path}' has dtype {jnp.result_type(leaf)} and must have a "
        'floating one for its products to be counted'
      )


def _wrong_arguments_message(of) -> str:
  if callable(of):
    return (
      f'count_macs: of={type(of).__name__}(...), a model that holds its parameters, must be a '
      'function of (params, *examples), followed by these: split the model, with eqx.partition or '
      'nnx.split, and merge it again in the function'
    )
  return (
    'count_macs(params, positions): positions must be a dict of how often each layer applies its '
    'kernel, as positions_of returns it; or call count_macs(function, params, *examples)'
  )


MACS = ('macs', 'active_macs', 'theoretical_speedup')
# A unit is an output of a kernel: a filter or a neuron.
LAYER_COUNTS = ('weights', 'active_weights', 'units', 'active_units')


def _active_sizes(params: Any, dtype=jnp.int32) -> dict[str, int]:
  """Returns the number of entries that are not zero, by path, as Python integers of any size.

  Args:
    params: a pytree of concrete arrays.
    dtype: the dtype of the counts on the device. Without 64-bit integers there, a count over all of
      a large leaf could overflow; a count over one slice of its first axis does not.
  """
  counts = jax.device_get(_count_by_slice(params, dtype))
  return {path: sum(np.ravel(slices).tolist()) for path, slices in counts.items()}


@functools.partial(jax.jit, static_argnames='dtype')
def _count_by_slice(params, dtype):
  """Returns {path: the number of nonzero entries in each slice of the first axis}."""
  return {
    path: jnp.sum(leaf != 0, tuple(range(1, leaf.ndim)), dtype=dtype)
    for path, leaf in named_leaves(params).items()
    if is_parameter(path, leaf)
  }


@functools.partial(jax.jit, static_argnums=1)
def _count_active_by_layer(kernels, layouts):
  """Returns {path: (active weights, active units)}, each with an entry for each stacked layer."""
  counts = {}
  for path, layout in layouts:
    nonzero = layout.view(kernels[path] != 0, 'matrix')  # (layers, *positions, inputs, outputs)
    inputs, outputs = tuple(range(1, nonzero.ndim - 1)), nonzero.ndim - 1
    weights = jnp.sum(nonzero, (*inputs, outputs), dtype=jnp.int32)
    counts[path] = weights, jnp.sum(jnp.any(nonzero, inputs), -1, dtype=jnp.int32)
  return counts


def _counts_by_layer(params, kernels, given_layouts) -> dict[str, dict[str, int]]:
  """Returns the counts of each layer, summed over its kernels: a recurrent layer has several."""
  layouts = axes.layouts(params, list(kernels), given_layouts)
  active = jax.device_get(_count_active_by_layer(kernels, tuple(layouts.items())))
  layers: dict[str, dict[str, int]] = {}
  for path, layout in layouts.items():
    stacked, *shape = layout.matrix_shape(kernels[path].shape)
    active_weights, active_units = active[path]
    for i in range(stacked):
      name = f'{layer_of(path)}[{i}]' if stacked > 1 else layer_of(path)
      layer = layers.setdefault(name, dict.fromkeys(LAYER_COUNTS, 0))
      counts = math.prod(shape), active_weights[i], shape[-1], active_units[i]
      for key, count in zip(LAYER_COUNTS, counts, strict=True):
        layer[key] += int(count)
  return layers


def _kernel_macs(size, active, kernels, positions: Mapping[str, int], products: int):
  """Returns the figures of the multiply-accumulates of kernels and of products of activations."""
  positions_of = {path: kernel_positions(path, positions) for path in kernels}
  macs, active_macs = (sum(positions_of[p] * n[p] for p in kernels) for n in (size, active))
  return _mac_figures(macs + products, active_macs + products)


def kernel_positions(path: str, positions: Mapping[str, int]) -> int:
  """Returns the positions of a kernel, given by its path or else by its layer's.

  Raises:
    ValueError: positions have neither.
  """
  positions_of_kernel = positions.get(path, positions.get(layer_of(path)))
  if positions_of_kernel is None:
    raise ValueError(f"positions must have an entry for the layer '{layer_of(path)}'")
  return positions_of_kernel


def _mac_figures(macs: int, active: int) -> dict[str, Any]:
  return dict(zip(MACS, (macs, active, macs / active if active else float('inf')), strict=True))
