"""The event `lobs`: layer-wise optimal brain surgeon, from the first layer to the last.

Each layer gets its inputs from the network as pruned so far, and is solved to reproduce the outputs
of the dense network's layer. So it makes up for what the layers before it have lost.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sparsejax import models
from sparsejax.cpu_conv.formulations import taps
from sparsejax.experiment.rundir.state import TrainState
from sparsejax.internal.lookup import lookup
from sparsejax.nn import deterministic
from sparsejax.posterior.layers import DETERMINISTIC
from sparsejax.sparsity import lobs
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.parts import allocation, criteria
from sparsejax.sparsity.parts.selection import keep_largest

ALLOCATIONS = {f.__name__: f for f in (allocation.global_rank, allocation.uniform, allocation.erk)}
METHODS = ('lobs', 'magnitude')


def check(config: Mapping[str, Any]) -> None:
  """Raises a ValueError if a setting is impossible, or if nothing would hold the zeros."""
  settings, prune = config['lobs'], config.get('prune')
  if not 0 < settings['density'] <= 1:
    raise ValueError(f'lobs.density={settings["density"]} must be an active fraction in (0, 1]')
  lookup('lobs.allocation', settings['allocation'], ALLOCATIONS)
  lookup('lobs.method', settings['method'], dict.fromkeys(METHODS))
  if config['layers'] != DETERMINISTIC:
    raise ValueError(f"lobs: layers={config['layers']!r} must be '{DETERMINISTIC}'")
  if 'straight_through' in config['chain']:
    raise ValueError(
      "lobs: 'straight_through' ranks dense weights of its own and would bring back what lobs "
      "removes; config.chain must have 'prune' in its place"
    )
  at = {key.removeprefix('at'): value for key, value in settings.items() if key.startswith('at_')}
  is_held = prune is not None and 'prune' in config['chain'] and prune['schedule'] == 'one_shot'
  if not is_held or any(prune.get(f'begin{unit}') != value for unit, value in at.items()):
    raise ValueError(
      f'lobs at {at}: nothing holds its zeros in the training afterwards; put prune in the '
      "chain, with prune.schedule='one_shot' and prune.begin at the same time in the same unit"
    )


def check_layers(
  model: nn.Module, image_shape: tuple[int, ...], params: Any, exclude: Sequence[str]
) -> None:
  """Raises a ValueError if a chosen kernel belongs to no layer, or if no kernel is chosen.

  Args:
    model: the network of the parameters.
    image_shape: (height, width, channels).
    params: the shapes of the parameters.
    exclude: as in `prune_layers`.
  """
  try:
    chosen = tree.named_leaves(tree.pick(params, tree.choose(params, 'kernels', exclude)))
  except ValueError as error:
    raise ValueError(f'lobs.{error}') from None
  _ordered_layers(model, image_shape, chosen)


def prune_layers(
  state: TrainState,
  batches: Iterable[jax.Array],
  model: nn.Module,
  *,
  density: float,
  allocate: allocation.Allocation,
  exclude: Sequence[str] = (),
  method: str = 'lobs',
) -> TrainState:
  """Returns the state with the chosen kernels pruned, their other weights and biases adjusted.

  The allocation decides by magnitudes how many weights stay in each layer. Of the ways to set these
  counts that were tried, this one lost the least accuracy on validation, and it needs no data.

  Args:
    state: the state of a network without zeros to keep.
    batches: preprocessed calibration images; with method='magnitude' none are read.
    model: the network of the parameters.
    density: the active fraction of all the chosen kernels together.
    allocate: the allocation, which sets the number of weights that each keeps.
    exclude: regular expressions over paths of parameters.
    method: 'magnitude' only zeroes the smallest weights of each layer, for comparison at equal
      counts.

  Raises:
    ValueError: a chosen kernel's layer is neither a Dense nor a Conv of this package.
  """
  dense = state.params
  kernels = tree.named_leaves(tree.pick(dense, tree.choose(dense, 'kernels', exclude)))
  kernels = jax.device_get(kernels)
  scores = {path: criteria.magnitude(kernel) for path, kernel in kernels.items()}
  counts = _counts(scores, density, allocate)
  if method == 'magnitude':
    masks = {path: keep_largest(scores[path], counts[path]) for path in kernels}
    cut = {path: jnp.where(masks[path], kernel, 0.0) for path, kernel in kernels.items()}
    return state._replace(params=_replace_leaves(dense, cut))
  batches = list(batches)
  params, changed = dense, False
  for layer in _ordered_layers(model, batches[0].shape[1:], kernels):
    count = counts[f'{layer}/kernel']
    if not changed and count == kernels[f'{layer}/kernel'].size:
      continue
    changed = True
    inputs = jax.jit(partial(layer_inputs, model, layer))
    networks = [{'params': p, 'batch_stats': state.batch_stats} for p in (params, dense)]
    moments = lobs.second_moments([inputs(variables, b) for variables in networks] for b in batches)
    params = _replace_leaves(params, _operate(tree.named_leaves(dense), layer, moments, count))
  return state._replace(params=params)


def _counts(scores, density, allocate) -> dict[str, int]:
  layers = [allocation.Layer(path, score.shape, score.size) for path, score in scores.items()]
  row = jnp.asarray(allocate.plan(layers, density, 1))
  counts = jax.jit(lambda scores, row: allocate.counts(scores, row, 1, [1] * len(scores)))
  found = jax.device_get(counts([score[None] for score in scores.values()], row))
  return {path: int(count) for path, [count] in zip(scores, found, strict=True)}


def _ordered_layers(model, image_shape, kernels) -> list[str]:
  """Returns the layers of the chosen kernels in the order of the forward pass."""
  layers = [path.removesuffix('/kernel') for path in kernels]
  order = list(models.positions(model, image_shape))
  unknown = [path for path in layers if path not in order]
  if unknown:
    raise ValueError(f"lobs: '{unknown[0]}' is not the kernel of a layer; exclude it")
  return sorted(layers, key=order.index)


def _operate(named, layer, moments, count) -> dict[str, Any]:
  """The new kernel of a layer and, if it has one, the new bias."""
  kernel, bias = named[f'{layer}/kernel'], named.get(f'{layer}/bias')
  groups = len(moments.inputs)
  weights = kernel_matrices(np.asarray(kernel, np.float64), groups)
  if bias is not None:
    row = np.asarray(bias, np.float64).reshape(groups, 1, -1)
    weights = np.concatenate([weights, row], axis=1)
  new = lobs.remove(weights, moments, count, bias=bias is not None)
  matrices = new if bias is None else new[:, :-1]
  leaves = {f'{layer}/kernel': np.moveaxis(matrices, 0, 1).reshape(kernel.shape)}
  if bias is not None:
    leaves[f'{layer}/bias'] = new[:, -1].reshape(bias.shape)
  return {path: jnp.asarray(leaf, named[path].dtype) for path, leaf in leaves.items()}


def kernel_matrices(kernel: np.ndarray, groups: int) -> np.ndarray:
  """Returns a kernel (..., inputs / groups, features) as (groups, taps * inputs, units)."""
  return np.moveaxis(kernel.reshape(-1, groups, kernel.shape[-1] // groups), 1, 0)


def layer_inputs(model: nn.Module, layer: str, variables: Any, images: jax.Array) -> jax.Array:
  """Returns the inputs of a layer's kernel, with a 1 for its bias: (groups, rows, inputs).

  The rows are the examples times the positions; the inputs have the order of `kernel_matrices`.
  """
  found: list[jax.Array] = []

  def note(call, args, kwargs, context):
    if context.method_name == '__call__' and '/'.join(context.module.path) == layer:
      found.append(_rows(context.module, args[0]))
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    model.apply(variables, images, train=False)
  rows = jnp.concatenate(found, axis=1)
  has_bias = f'{layer}/bias' in tree.paths(variables['params'])
  return jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], -1) if has_bias else rows


def _rows(module: nn.Module, x: jax.Array) -> jax.Array:
  kind = type(module)
  path = '/'.join(module.path)
  if kind not in _ROWS:
    raise ValueError(
      f"lobs: '{path}' is a {kind.__name__} of {kind.__module__}; use Dense or Conv of "
      'sparsejax.nn, or exclude it'
    )
  return _ROWS[kind](module, x)


def _dense_rows(module: deterministic.Dense, x: jax.Array) -> jax.Array:
  del module
  return x.reshape(1, -1, x.shape[-1])


def _conv_rows(module: deterministic.Conv, x: jax.Array) -> jax.Array:
  groups = module.feature_group_count
  seen = jnp.stack(taps(x, module.kernel_size, module.strides, module.padding), axis=3)
  grouped = seen.reshape(-1, seen.shape[3], groups, x.shape[-1] // groups)
  return jnp.moveaxis(grouped, 2, 0).reshape(groups, len(grouped), -1)


_ROWS: dict[type, Callable[[Any, jax.Array], jax.Array]] = {
  deterministic.Dense: _dense_rows,
  deterministic.Conv: _conv_rows,
}


def _replace_leaves(params, leaves: Mapping[str, Any]):
  named = {**tree.named_leaves(params), **leaves}
  return jax.tree.unflatten(jax.tree.structure(params), list(named.values()))
