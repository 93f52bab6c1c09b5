"""Layers with a posterior in the place of every weight, sampled by local reparameterisation.

What is sampled is not the weights but what they make: an output is a sum of many independent
products, so it is drawn from the Gaussian of their means and variances, for every example and
position by itself. That costs a second linear map, of the squared inputs with the variances, and
its gradients vary far less than those through sampled weights (Kingma et al. 2015, 1506.02557).

One implementation serves dense and convolutional layers alike: it sees a linear map and a kernel of
shape (..., inputs, outputs). All that sets one posterior apart from another is its `Family`.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax.cpu_conv.convolution import convolve
from sparsejax.nn import deterministic
from sparsejax.nn.deterministic import uniform_fan_in
from sparsejax.posterior.families.family import GROUPS, Family, Leaves, Linear, Noise, along


class Sampling(NamedTuple):
  """A family of posteriors, as its layers use it.

  Attributes:
    family: of the posteriors.
    draw: its `draw`, with all settings filled in.
    kernel_std: of the means of kernels at the start; None leaves them to the network's own rule.
    log_variance: where log-variances begin.
  """

  family: Family
  draw: Callable[..., jax.Array]
  kernel_std: float | None
  log_variance: float


def starts(
  sampling: Sampling, shape: tuple[int, ...], groups: str, kernel_init: Callable, *, use_bias: bool
) -> dict[str, tuple[Callable, tuple[int, ...]]]:
  """Returns {name: (initialiser, shape)} of the leaves of a layer.

  Args:
    sampling: of the layer.
    shape: of its kernel.
    groups: 'inputs' or 'outputs', what has a scale in a family with groups.
    kernel_init: the network's own rule, where the family has none.
    use_bias: whether there is a bias.
  """
  family, _, kernel_std, log_variance = sampling

  def about(mean, spread):
    def init(key, of_shape):
      return mean + spread * jax.random.normal(key, of_shape)

    return init

  if kernel_std is not None:
    kernel_init = about(0.0, kernel_std)
  elif family.starts_normal and len(shape) == 2 and kernel_init is uniform_fan_in:
    kernel_init = about(0.0, 1 / math.sqrt(shape[0]))
  inits = {'kernel': kernel_init, 'bias': about(0.0, 0.0)}
  for name, leaf in family.leaves.items():
    inits[name] = about(log_variance if leaf.start is None else leaf.start, leaf.spread)
  shapes = family.shapes(shape, groups, bias=use_bias)
  return {name: (inits[name], shapes[name]) for name in sorted(shapes)}


def outputs(
  sampling: Sampling,
  leaves: Leaves,
  x: jax.Array,
  linear: Linear,
  dtype: Any,
  noise: Noise | None,
) -> jax.Array:
  """Returns samples of a layer's outputs; without noise those of the means, none of them removed.

  Args:
    sampling: of the layer.
    leaves: by name.
    x: (examples, ..., inputs).
    linear: the layer's map.
    dtype: of the products.
    noise: draws from N(0, 1) by shape.
  """
  x = x.astype(dtype)

  def linear_in_dtype(inputs, kernel):
    return linear(inputs, kernel.astype(dtype))

  if noise is not None:
    return sampling.draw(leaves, x, linear_in_dtype, noise)
  means = {name: found.mean for name, found in sampling.family.moments(leaves).items()}
  y = linear_in_dtype(x, means['kernel'])
  return y + along(means['bias'], y) if 'bias' in means else y


def _apply(module, x, linear, shape, *, train):
  """The outputs of a module of linen, which samples in training."""
  found = starts(
    module.sampling, shape, module.groups, module.kernel_init, use_bias=module.use_bias
  )
  leaves = {name: module.param(name, *init) for name, init in found.items()}

  def noise(noise_shape):
    return standard_normal(module.make_rng('noise'), noise_shape)

  return outputs(module.sampling, leaves, x, linear, module.dtype, noise if train else None)


def standard_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws of N(0, 1), from the older form of Threefry.

  Every device draws its own, so nothing is won by numbers that can be split over devices; without
  that half the hashes are needed, and on CPU 0.4 of the time.
  """
  with jax.threefry_partitionable(False):
    return jax.random.normal(key, shape)


class Dense(deterministic.Dense):
  """As `deterministic.Dense`, with a posterior; draws from the rng `noise` in training."""

  sampling: Sampling = dataclasses.field(kw_only=True)
  groups: str = 'outputs'  # or 'inputs': what has a scale, in a family with groups

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    return _apply(self, x, jnp.dot, (x.shape[-1], self.features), train=train)


class Conv(deterministic.Conv):
  """As `deterministic.Conv`, with a posterior; draws from the rng `noise` in training."""

  sampling: Sampling = dataclasses.field(kw_only=True)
  groups: str = 'outputs'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    check_groups(self.groups, self.feature_group_count)
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
    linear = partial(convolved, self.strides, self.padding, self.feature_group_count)
    return _apply(self, x, linear, shape, train=train)


def check_groups(groups: str, feature_group_count: int) -> None:
  """Raises a ValueError where a convolution has no kernel that sees all of its inputs."""
  if groups == 'inputs' and feature_group_count > 1:
    raise ValueError(
      f"groups='inputs' of a convolution in {feature_group_count} parts, each of whose kernels "
      "sees a part of the inputs; it must be 'outputs'"
    )


def convolved(strides: Any, padding: Any, groups: int, x: jax.Array, kernel: jax.Array):
  """Returns `convolve` with the images and the kernel last."""
  return convolve(x, kernel, strides, padding, groups)


def makers(
  family: Family,
  *,
  threshold: float | None = None,
  training_mask: bool = True,
  kernel_std: float | None = None,
  log_variance: float | None = None,
  dense_groups: str = 'inputs',
  conv_groups: str = 'outputs',
  **settings: Any,
):
  """Returns the makers of dense and convolutional layers of a family of posteriors.

  Args:
    family: of `posterior.FAMILIES`, or one's own.
    threshold: of log alpha, for the mask in training; the family's by default.
    training_mask: whether a family that can mask in training does.
    kernel_std: of the means of kernels at the start; None leaves them to the network's own rule.
    log_variance: where log-variances begin; the family's by default.
    dense_groups: 'inputs' (the paper's) or 'outputs' of dense layers are the groups, if there are.
    conv_groups: likewise of convolutions, 'outputs' in the paper.
    **settings: the family's own.

  Returns:
    (dense, conv), functions of the arguments that `layers.Layers` names.

  Raises:
    ValueError: groups along another axis.
  """
  for groups in (dense_groups, conv_groups):
    if groups not in GROUPS:
      raise ValueError(f'groups={groups!r} must be {" or ".join(GROUPS)}')
  sampling = sampling_of(
    family,
    threshold=threshold,
    training_mask=training_mask,
    kernel_std=kernel_std,
    log_variance=log_variance,
    **settings,
  )
  return (
    partial(Dense, sampling=sampling, groups=dense_groups),
    partial(Conv, sampling=sampling, groups=conv_groups),
  )


def sampling_of(
  family: Family,
  *,
  threshold: float | None = None,
  training_mask: bool = True,
  kernel_std: float | None = None,
  log_variance: float | None = None,
  **settings: Any,
) -> Sampling:
  """Returns how layers of a family are sampled, from the settings that `makers` has."""
  own = {**family.settings, **settings}
  if family.masks:
    masked_at = family.threshold if threshold is None else threshold
    own['threshold'] = float(masked_at) if training_mask else None
  log_variance = family.log_variance if log_variance is None else log_variance
  return Sampling(family, partial(family.draw, **own), kernel_std, float(log_variance))
