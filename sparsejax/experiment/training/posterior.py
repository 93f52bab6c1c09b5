"""Builds variational layers from a family's settings, and the network that they deploy."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax import nn, posterior
from sparsejax.experiment.config import fields
from sparsejax.experiment.config.check import checked_block
from sparsejax.internal.lookup import lookup
from sparsejax.models.dead_units import architecture
from sparsejax.nn import Layers
from sparsejax.posterior import precision
from sparsejax.posterior.layers import DETERMINISTIC
from sparsejax.sparsity.leaves import tree


def build_layers(config: Mapping[str, Any]) -> Layers:
  """Returns the layers that `config.layers` names, with the settings of the block of that name.

  Raises:
    ValueError: the family or a setting is unknown, or a value is impossible.
  """
  name = config['layers']
  if name == DETERMINISTIC:
    return nn.DETERMINISTIC
  family = lookup('layers', name, posterior.FAMILIES)
  settings = checked_block(name, config.get(name) or {}, fields.LAYERS[name])
  if settings.pop('thresholds') and settings.get('training_mask'):
    raise ValueError(
      f'{name}.thresholds: the training mask has one threshold for all layers; set '
      f'{name}.training_mask=False'
    )
  return nn.of(family, **settings)


def check(config: Mapping[str, Any]) -> None:
  """Raises a ValueError if posteriors have no KL, or a KL has no posteriors."""
  lookup('layers', config['layers'], {DETERMINISTIC: None, **posterior.FAMILIES})
  is_variational = config['layers'] != DETERMINISTIC
  has_kl = 'add_kl_gradients' in config['chain']
  if is_variational and not has_kl:
    raise ValueError(
      f"layers='{config['layers']}': without the KL nothing makes the posteriors noisy; put "
      "'add_kl_gradients' in config.chain"
    )
  if is_variational:
    _check_chain(config)
  if has_kl and not is_variational:
    raise ValueError(
      "config.chain: 'add_kl_gradients' has no posteriors to act on with "
      f"layers='{DETERMINISTIC}'; give one of {', '.join(posterior.FAMILIES)}"
    )


# Links that move or mask every parameter, also log-variances and scales, for which zero means a
# variance of 1 and no removal.
DECAYS = ('add_decayed_weights', 'adamw', 'lamb', 'lion', 'adamaxw', 'nadamw')


def _check_chain(config):
  names = set(config['chain'])
  if 'straight_through' in names:
    raise ValueError(
      f"config.chain: 'straight_through' must be left out with layers='{config['layers']}': "
      'posteriors lose weights by their own log alpha'
    )
  if decays := [name for name in DECAYS if name in names]:
    raise ValueError(
      f"config.chain: '{decays[0]}' would decay the posteriors' log-variances towards 0, that is, "
      f"variances of 1; with layers='{config['layers']}' leave it out: the KL takes its place"
    )
  for name in ('prune', 'hold', 'proximal_l1', 'proximal_group_l1'):
    if name in names and config[name]['parameters'] != 'kernels':
      raise ValueError(
        f"{name}.parameters='{config[name]['parameters']}' includes the posteriors' variances; "
        f"with layers='{config['layers']}' it must be 'kernels'"
      )


def thresholds(config: Mapping[str, Any], params: Any) -> Mapping[str, float] | None:
  """Returns the threshold of every variational layer: its own, or else the family's.

  It is None for a deterministic network.

  Args:
    config: the resolved settings.
    params: the model's parameters, or their shapes.

  Raises:
    ValueError: a threshold names a layer that does not exist.
  """
  if config['layers'] == DETERMINISTIC:
    return None
  block = config[config['layers']]
  paths = list(posterior.variational_layers(params))
  own = dict(block['thresholds'] or {})
  for path in own:
    lookup(f'layer of {config["layers"]}.thresholds', path, dict.fromkeys(paths))
  return {path: float(own.get(path, block['threshold'])) for path in paths}


def check_start(params: Any, by_path: Mapping[str, float]) -> None:
  """Raises a ValueError if training cannot start: a KL is not finite, or a layer would be empty."""
  for path, kl in posterior.kl_by_layer(params).items():
    if not bool(jnp.isfinite(kl)):
      raise ValueError(
        f"log_variance: the KL of '{path}' is {float(kl)} at the start; give a lower log_variance"
      )
  for path, values in posterior.log_alphas(params).items():
    lowest = float(jnp.min(values))
    if lowest >= by_path[path]:
      raise ValueError(
        f"threshold of '{path}', {by_path[path]}: before training its log alpha is {lowest:.2f} or "
        'more, so the whole layer would be removed; give a higher threshold or a lower log_variance'
      )


def check_bound(config: Mapping[str, Any], params: Any) -> None:
  """Raises a ValueError if `bound_variances.where` finds no variance."""
  if 'bound_variances' not in config['chain']:
    return
  where = config['bound_variances']['where']
  named = tree.named_leaves(params)
  is_chosen = posterior.weight_variances(where)
  if not any(is_chosen(path, leaf) for path, leaf in named.items()):
    variances = [path for path in named if posterior.is_weight_variance(path)]
    raise ValueError(
      f"bound_variances.where='{where}' must find one of the variances {', '.join(variances)}"
    )


def figures(params: Any, share: jax.Array, bound: Mapping[str, Any] | None) -> dict[str, jax.Array]:
  """Returns a line's figures about posteriors. Jittable.

  Args:
    params: the parameters of the trained network.
    share: the weight of the KL over the number of training examples.
    bound: the settings of `bound_variances`, if the chain has it.

  Returns:
    `kl`, and `kl/PATH` for each layer, in nats; `kl_term`, the addition to the mean cross-entropy,
    in nats per example; and, if the log alpha of sparse VD or (by the chain) the variances are
    bounded, `at_bounds`, the share of them at their bounds.
  """
  by_layer = posterior.kl_by_layer(params)
  total = jnp.asarray(sum(by_layer.values()))
  found = {'kl': total, 'kl_term': share * total}
  if (at_bounds := _share_at_bounds(params, bound)) is not None:
    found['at_bounds'] = at_bounds
  return found | {f'kl/{path}': kl for path, kl in by_layer.items()}


def _share_at_bounds(params, bound):
  if bound is not None:
    is_chosen = posterior.weight_variances(bound['where'])
    limit = math.log(bound['maximum'])
    named = tree.named_leaves(params).items()
    flags = [leaf >= limit - 1e-6 for path, leaf in named if is_chosen(path, leaf)]
  else:
    found = posterior.variational_layers(params).values()
    bounded = [(f.log_alpha(leaves), f.bound) for f, leaves in found if f.bound is not None]
    flags = [jnp.abs(values) >= bound for values, bound in bounded]
  if not flags:
    return None
  return sum(jnp.sum(flag) for flag in flags) / sum(flag.size for flag in flags)


BINS = 40  # bins of a layer's histogram of log alpha in the summary


def histograms(params: Any, thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
  """Returns, by layer, the histogram of log alpha and the applied and suggested thresholds."""
  found = {}
  layers = posterior.variational_layers(params)
  for path, values in jax.device_get(posterior.log_alphas(params)).items():
    counts, edges = np.histogram(values, BINS)
    bound = layers[path][0].bound  # values at the bound are not a hump
    inside = values if bound is None else values[np.abs(values) < bound]
    suggested = posterior.suggest_threshold(inside)
    found[path] = {
      'counts': counts.tolist(),
      'from': round(float(edges[0]), 4),
      'to': round(float(edges[-1]), 4),
      'threshold': thresholds[path],
      'suggested_threshold': None if suggested is None else round(suggested, 2),
    }
  return found


def kept_units(network: Any, layers: Sequence[str]) -> list[int]:
  """Returns the learned architecture: kept outputs of convolutions, kept inputs of dense layers.

  Args:
    network: the deployed parameters, without dead units.
    layers: the layers' paths, in the order in which an image passes through them.
  """
  shapes = {path: leaf.ndim for path, leaf in tree.named_leaves(network).items()}
  kept = architecture(network)
  return [
    kept[path]['outputs' if shapes[f'{path}/kernel'] == 4 else 'inputs']
    for path in layers
    if path in kept
  ]


def rounded(params: Any, network: Any) -> tuple[Any, dict[str, precision.Grid]]:
  """Returns the deployed network with every layer's kernel on its own grid, and the grids."""
  found = jax.device_get(posterior.moments(params))
  named = {path: np.asarray(leaf) for path, leaf in tree.named_leaves(network).items()}
  kernels = {layer: named[f'{layer}/kernel'] for layer in found}
  grids = precision.grids(kernels, {layer: found[layer]['kernel'].variance for layer in found})
  for layer, grid in grids.items():
    named[f'{layer}/kernel'] = precision.round_to(kernels[layer], grid.significand)
  return jax.tree.unflatten(jax.tree.structure(network), list(named.values())), grids
