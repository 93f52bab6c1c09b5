"""One definition of every figure: active, weights, parameters, sparsity, compression, MACs.

Active means not exactly zero. Parameters are all trainable numbers of the deterministic network,
biases and BatchNorm's scale and shift included; weights are the kernels alone, as papers count.
Scales are those of normalisations: a channel without one is as good as gone.
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
from sparsejax.sparsity.leaves.kinds import NAMED_KERNEL, is_parameter
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.leaves.tree import named_leaves

# The fraction above this is what the research log of 2017 calls "sparsity" in all its figures.
NEARLY_ZERO = 1e-3


def count_above(params: Any, thresholds: tuple[float, ...]) -> jax.Array:
  """Returns how many parameters have |p| > t (or are NaN), for each t. Jittable, below 2^31.

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
  """Returns the number of values that are not exactly zero, by path. Jittable, int32."""
  slices = _count_in_slices(params, jnp.int32)
  return {path: jnp.sum(counts, dtype=jnp.int32) for path, counts in slices.items()}


def active_weights(params: Any) -> dict[str, jax.Array]:
  """Returns the number of weights of each layer that are not exactly zero. Jittable, int32.

  Example:
    >>> counts = active_weights({'fc': {'kernel': jnp.array([[1.0, 0.0]]), 'bias': jnp.ones(2)}})
    >>> {layer: int(count) for layer, count in counts.items()}
    {'fc': 1}
  """
  return _sums_by_layer(params, lambda leaf: jnp.sum(leaf != 0, dtype=jnp.int32))


def weights(params: Any) -> dict[str, int]:
  """Returns the number of weights of each layer; shapes are enough."""
  return _sums_by_layer(params, lambda leaf: int(leaf.size))


def _sums_by_layer(params: Any, count: Callable[[Any], Any]) -> dict[str, Any]:
  """The sums, over each layer's kernels, of what is counted of one."""
  found: dict[str, Any] = {}
  for path, leaf in tree.kernels(params).items():
    found[layer_of(path)] = found.get(layer_of(path), 0) + count(leaf)
  return found


def sizes(params: Any) -> dict[str, int]:
  """Returns the number of values of every trainable leaf, by path."""
  return {
    path: int(leaf.size) for path, leaf in named_leaves(params).items() if is_parameter(path, leaf)
  }


def layer_of(path: str) -> str:
  """Returns the layer that owns a parameter, or its own name where it has none.

  Example:
    >>> layer_of('block1/conv2/kernel'), layer_of('w')
    ('block1/conv2', 'w')
  """
  return tree.module_of(path) or path


def report(
  params: Any,
  positions: Mapping[str, int] | None = None,
  layouts: Mapping[str, str | Layout] | None = None,
) -> dict[str, Any]:
  """Returns every count of a network, in the keys of a run's summary.json.

  `weights` are the values of kernels alone, and `sparsity` and `compression` are of them;
  `parameters` has biases and scales too, and `active_fraction` is of these; `scales` are those of
  normalisations. `layers` has the counts of each, where `units` are filters or neurons. What a
  kernel's products cost (`active_macs`) is of its weights alone; those of attention without a
  kernel are in `count_macs(function, params, *examples)`.

  Args:
    params: a pytree of concrete arrays: parameters alone, without running averages.
    positions: for each layer, or each kernel by its path, the number of places where it is applied
      to one example (1 for a dense layer, height x width of the output for a convolution), as
      `positions_of` finds them; with it the report holds multiply-accumulates too: macs = sum of
      positions * weights over the layers.
    layouts: {regular expression over paths: which axes are what}, as of `prune`. Layers that one
      leaf stacks are `layers` by themselves: LAYER[0], LAYER[1] and so on.

  Raises:
    ValueError: a kernel whose axes could be one thing or another, or without its positions; traced
      arrays; a tree with `batch_stats` beside `params`.

  Example:
    >>> from sparsejax import sparsity_report as report
    >>> r = report({'fc': {'kernel': jnp.array([[1.0, 0.0]]), 'bias': jnp.ones(2)}}, {'fc': 1})
    >>> r['parameters'], r['active_parameters'], r['compression'], r['active_macs']
    (4, 3, 2.0, 1)
  """
  named = named_leaves(params)
  _check_alone(params, named)
  size = sizes(params)
  active = _active(params)
  kernels = list(axes.kernels(params, axes.given(layouts)))
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
    'layers': _by_layer(params, {path: named[path] for path in kernels}, axes.given(layouts)),
  }
  if positions is None:
    return figures
  _check_floating(params, positions)
  return figures | _macs(size, active, kernels, positions)


def _check_alone(params: Any, named: Mapping[str, Any]) -> None:
  """Refuses what is more than parameters, or traced."""
  if isinstance(params, Mapping) and {'params', 'batch_stats'} <= set(params):
    raise ValueError(
      "a report is of parameters alone, and the tree has 'batch_stats' beside 'params': give it "
      "variables['params']"
    )
  if traced := [path for path, leaf in named.items() if isinstance(leaf, Tracer)]:
    raise ValueError(
      f"a report needs concrete arrays, and '{traced[0]}' is traced: call it outside jit, vmap and "
      'grad; of members that vmap stacks, once for the tree of them all'
    )


def count_macs(of: Any, *rest: Any) -> dict[str, Any]:
  """Returns `macs`, `active_macs` and their ratio `theoretical_speedup`.

  Called `count_macs(function, params, *examples)`, it reads off the program of function(params,
  *examples), for the examples together, how often each weight is applied, whatever layers there
  are; products without a parameter, as attention makes them, are `products` and join both sums.
  Called `count_macs(params, positions)`, it is told, and counts for one example.

  Args:
    of: the function, or a pytree of concrete arrays.
    *rest: params and examples; or positions, as in `report`.

  Raises:
    ValueError: a kernel that nothing is known of or that is not of a floating dtype, or repetitions
      that the program does not fix.

  Example:
    >>> count_macs({'conv': {'kernel': jnp.array([[[[1.0, 0.0]]]])}}, {'conv': 64})
    {'macs': 128, 'active_macs': 64, 'theoretical_speedup': 2.0}
    >>> count_macs(lambda p, x: x @ p['w'], {'w': jnp.array([[1.0, 0.0]])}, jnp.ones((3, 1)))
    {'macs': 6, 'active_macs': 3, 'theoretical_speedup': 2.0, 'products': 0}
  """
  if not tree.is_function(of):
    if len(rest) != 1 or not isinstance(rest[0], Mapping):
      raise ValueError(_not_counted(of))
    figures = report(of, *rest)
    return {name: figures[name] for name in MACS}
  from sparsejax.sparsity import program

  if not rest:
    raise ValueError('count_macs(function) must be given the params of the function after it')
  params, *examples = rest
  positions, products = program.counts(of, params, *examples)
  _check_floating(params, positions)
  macs, left = (
    sum(positions[path] * n for path, n in of_paths.items()) + products
    for of_paths in (sizes(params), _active(params))
  )
  return _figures(macs, left) | {'products': products}


def _check_floating(params: Any, positions: Mapping[str, int]) -> None:
  for path, leaf in named_leaves(params).items():
    is_named = NAMED_KERNEL.search(path.rpartition('/')[2])
    applied = positions.get(path, positions.get(layer_of(path)) if is_named else 0)
    if applied and not is_parameter(path, leaf):
      raise ValueError(
        f"multiply-accumulates: '{path}' is of dtype {jnp.result_type(leaf)} and must be of a "
        'floating one for its products to be counted'
      )


def _not_counted(of) -> str:
  if callable(of):
    return (
      f'count_macs: of={type(of).__name__}(...), a model that holds its parameters, must be a '
      'function of (params, *examples), followed by these: take it apart, as eqx.partition and '
      'nnx.split do, and put it together in the function'
    )
  return (
    'count_macs(params, positions): positions must be a dict of how often each layer applies its '
    'kernel, as positions_of finds them; or begin with a function of (params, *examples)'
  )


MACS = ('macs', 'active_macs', 'theoretical_speedup')
# Units are the outputs of the kernels: filters, neurons.
OF_LAYER = ('weights', 'active_weights', 'units', 'active_units')


def _active(params: Any, dtype=jnp.int32) -> dict[str, int]:
  """The number of values that are not zero, by path, whatever it is.

  Args:
    params: a pytree of concrete arrays.
    dtype: what slices are counted in on the device, which has no 64 bits.
  """
  counts = jax.device_get(_count_in_slices(params, dtype))
  return {path: sum(np.ravel(slices).tolist()) for path, slices in counts.items()}


@functools.partial(jax.jit, static_argnames='dtype')
def _count_in_slices(params, dtype):
  return {
    path: jnp.sum(leaf != 0, tuple(range(1, leaf.ndim)), dtype=dtype)
    for path, leaf in named_leaves(params).items()
    if is_parameter(path, leaf)
  }


@functools.partial(jax.jit, static_argnums=1)
def _count_layers(kernels, layouts):
  """How many weights and units of each layer that a kernel stacks are not zero."""
  found = {}
  for path, layout in layouts:
    there = layout.view(kernels[path] != 0, 'matrix')
    inputs = tuple(range(1, there.ndim - 1))
    weights = jnp.sum(there, (*inputs, there.ndim - 1), dtype=jnp.int32)
    found[path] = weights, jnp.sum(jnp.any(there, inputs), -1, dtype=jnp.int32)
  return found


def _by_layer(params, kernels, told) -> dict[str, dict[str, int]]:
  """The counts of each layer: a recurrent or a separable one owns several kernels."""
  found = axes.layouts(params, list(kernels), told)
  active = jax.device_get(_count_layers(kernels, tuple(found.items())))
  layers: dict[str, dict[str, int]] = {}
  for path, layout in found.items():
    stacked, *shape = layout.matrix_shape(kernels[path].shape)
    for i in range(stacked):
      name = f'{layer_of(path)}[{i}]' if stacked > 1 else layer_of(path)
      layer = layers.setdefault(name, dict.fromkeys(OF_LAYER, 0))
      counts = math.prod(shape), active[path][0][i], shape[-1], active[path][1][i]
      for key, count in zip(OF_LAYER, counts, strict=True):
        layer[key] += int(count)
  return layers


def _macs(size, active, kernels, positions: Mapping[str, int]) -> dict[str, Any]:
  """What the kernels cost, with positions by their paths or by their layers'."""
  of_paths = {path: positions_at(path, positions) for path in kernels}
  return _figures(*(sum(of_paths[p] * n[p] for p in kernels) for n in (size, active)))


def positions_at(path: str, positions: Mapping[str, int]) -> int:
  """Returns how often a kernel is applied, from positions by paths or by layers.

  Raises:
    ValueError: neither is there.
  """
  found = positions.get(path, positions.get(layer_of(path)))
  if found is None:
    raise ValueError(f"positions: nothing is known of the layer '{layer_of(path)}'")
  return found


def _figures(macs: int, active: int) -> dict[str, Any]:
  return dict(zip(MACS, (macs, active, macs / active if active else float('inf')), strict=True))
