"""One definition of every figure: active, weights, parameters, sparsity, compression, MACs.

Active means not exactly zero. Parameters are all trainable numbers of the deterministic network,
biases and BatchNorm's scale and shift included; weights are the kernels alone, as papers count.
Scales are those of normalisations: a channel without one is as good as gone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.sparsity import tree
from sparsejax.sparsity.kinds import is_parameter, is_scale
from sparsejax.sparsity.tree import named_leaves

# The fraction above this is what the research log of 2017 calls "sparsity" in all its figures.
NEARLY_ZERO = 1e-3


def count_above(params: Any, thresholds: tuple[float, ...]) -> jax.Array:
  """Returns how many trainable parameters have |p| > t, for each t. Jittable, int32.

  Example:
    >>> count_above({'w': jnp.array([0.0, -0.5, 2.0])}, (0.0, 1.0)).tolist()
    [2, 1]
  """
  leaves = [leaf for path, leaf in named_leaves(params).items() if is_parameter(path, leaf)]
  counts = [
    sum(jnp.sum(jnp.abs(leaf) > threshold, dtype=jnp.int32) for leaf in leaves)
    for threshold in thresholds
  ]
  return jnp.stack([jnp.asarray(count, jnp.int32) for count in counts])


def count_active(params: Any) -> dict[str, jax.Array]:
  """Returns the number of values that are not exactly zero, by path. Jittable, int32."""
  return {
    path: jnp.sum(leaf != 0, dtype=jnp.int32)
    for path, leaf in named_leaves(params).items()
    if is_parameter(path, leaf)
  }


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
  return path.rpartition('/')[0] or path


def report(params: Any, positions: Mapping[str, int] | None = None) -> dict[str, Any]:
  """Returns every count of a network, in the keys and with the meanings of summary.json.

  Args:
    params: a pytree of concrete arrays.
    positions: for each layer the number of places where its kernel is applied to one example (1
      for a dense layer, height x width of the output for a convolution); with it the report
      holds multiply-accumulates too: macs = sum of positions * weights over the layers.

  Example:
    >>> r = report({'fc': {'kernel': jnp.array([[1.0, 0.0]]), 'bias': jnp.ones(2)}}, {'fc': 1})
    >>> r['parameters'], r['active_parameters'], r['compression'], r['active_macs']
    (4, 3, 2.0, 1)
  """
  named = named_leaves(params)
  size = sizes(params)
  active = {path: int(n) for path, n in jax.device_get(_count_active(params)).items()}
  kernels = list(tree.kernels(params))
  scales = [path for path in size if is_scale(path)]
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
    'layers': _by_layer({path: named[path] for path in kernels}, active),
  }
  return figures if positions is None else figures | _macs(figures['layers'], positions)


def count_macs(params: Any, positions: Mapping[str, int]) -> dict[str, Any]:
  """Returns `macs`, `active_macs` and their ratio `theoretical_speedup`, for one example.

  Args:
    params: a pytree of concrete arrays.
    positions: as in `report`; of a Flax linen model `models.positions(model, image_shape)`.

  Example:
    >>> count_macs({'conv': {'kernel': jnp.array([[[[1.0, 0.0]]]])}}, {'conv': 64})
    {'macs': 128, 'active_macs': 64, 'theoretical_speedup': 2.0}
  """
  figures = report(params, positions)
  return {name: figures[name] for name in MACS}


MACS = ('macs', 'active_macs', 'theoretical_speedup')
# Units are the outputs of the kernels, which lie along the last axis: filters, neurons.
OF_LAYER = ('weights', 'active_weights', 'units', 'active_units')
_count_active = jax.jit(count_active)


@jax.jit
def _count_units(kernels):
  """How many units of each kernel have a weight left."""
  return {p: jnp.sum(jnp.any(k.reshape(-1, k.shape[-1]) != 0, axis=0)) for p, k in kernels.items()}


def _by_layer(kernels, active) -> dict[str, dict[str, int]]:
  """The counts of each layer: a recurrent or a separable one owns several kernels."""
  active_units = jax.device_get(_count_units(kernels))
  layers: dict[str, dict[str, int]] = {}
  for path, kernel in kernels.items():
    layer = layers.setdefault(layer_of(path), dict.fromkeys(OF_LAYER, 0))
    counts = (kernel.size, active[path], kernel.shape[-1], active_units[path])
    for name, count in zip(OF_LAYER, counts, strict=True):
      layer[name] += int(count)
  return layers


def _macs(layers: Mapping[str, Mapping[str, int]], positions: Mapping[str, int]) -> dict[str, Any]:
  if missing := [name for name in layers if name not in positions]:
    raise ValueError(f"positions: nothing is known of the layer '{missing[0]}'")
  macs = sum(positions[name] * layer['weights'] for name, layer in layers.items())
  active = sum(positions[name] * layer['active_weights'] for name, layer in layers.items())
  return dict(zip(MACS, (macs, active, macs / active if active else float('inf')), strict=True))
