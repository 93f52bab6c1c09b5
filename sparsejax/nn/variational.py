"""Layers with a posterior in place of every weight, sampled by local reparameterisation.

The outputs are sampled, not the weights: an output is a sum of many independent products, so it is
drawn from the Gaussian with their summed means and variances, separately for every example and
position. That costs a second linear map, of the squared inputs with the variances, and its
gradients vary far less than those through sampled weights (Kingma et al. 2015, 1506.02557).

One implementation serves dense and convolutional layers alike: it sees a linear map and a kernel of
shape (..., inputs, outputs). Posteriors differ only in their `Family`.
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
from sparsejax.nn.deterministic import uniform_fan_in, width_of
from sparsejax.posterior.families.family import GROUPS, Family, Leaves, Linear, Noise, along


class Sampling(NamedTuple):
  """A family of posteriors, as its layers use it.

  Attributes:
    family: the family of posteriors.
    draw: the family's `draw`, with all settings filled in.
    kernel_std: the initial standard deviation of the kernels' means; None leaves them to the
      network's own rule.
    log_variance: the initial log-variances.
  """

  family: Family
  draw: Callable[..., jax.Array]
  kernel_std: float | None
  log_variance: float


def starts(
  sampling: Sampling, shape: tuple[int, ...], groups: str, kernel_init: Callable, *, use_bias: bool
) -> dict[str, tuple[Callable, tuple[int, ...]]]:
  """Returns {name: (initialiser, shape)} for the leaves of a layer.

  Args:
    sampling: how the layer is sampled.
    shape: the shape of its kernel.
    groups: 'inputs' or 'outputs', whichever has its own scale in a family with groups.
    kernel_init: the network's own rule, used if the family has none.
    use_bias: whether the layer has a bias.
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
  """Returns samples of a layer's outputs; without noise, the outputs of all the means, unpruned.

  Args:
    sampling: how the layer is sampled.
    leaves: its leaves by name.
    x: (examples, ..., inputs).
    linear: the layer's linear map.
    dtype: the dtype of the products.
    noise: a function from a shape to draws from N(0, 1).
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
  """The outputs of a linen module, which samples in training."""
  found = starts(
    module.sampling, shape, module.groups, module.kernel_init, use_bias=module.use_bias
  )
  leaves = {name: module.param(name, *init) for name, init in found.items()}

  def noise(noise_shape):
    return standard_normal(module.make_rng('noise'), noise_shape)

  return outputs(module.sampling, leaves, x, linear, module.dtype, noise if train else None)


def standard_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws from N(0, 1) with the older form of Threefry.

  Every device draws its own numbers, so numbers that can be split over devices gain nothing.
  Without that property half the hashes suffice, in 0.4 of the time on CPU.
  """
  with jax.threefry_partitionable(False):
    return jax.random.normal(key, shape)


class Dense(deterministic.Dense):
  """`deterministic.Dense` with a posterior; in training it draws from the rng `noise`."""

  sampling: Sampling = dataclasses.field(kw_only=True)
  groups: str = 'outputs'  # or 'inputs': what has its own scale, in a family with groups

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    return _apply(self, x, jnp.dot, (x.shape[-1], width_of(self)), train=train)


class Conv(deterministic.Conv):
  """`deterministic.Conv` with a posterior; in training it draws from the rng `noise`."""

  sampling: Sampling = dataclasses.field(kw_only=True)
  groups: str = 'outputs'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    check_groups(self.groups, self.feature_group_count)
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, width_of(self))
    linear = partial(convolved, self.strides, self.padding, self.feature_group_count)
    return _apply(self, x, linear, shape, train=train)


def check_groups(groups: str, feature_group_count: int) -> None:
  """Raises a ValueError if groups='inputs' and no kernel sees all of a convolution's inputs."""
  if groups == 'inputs' and feature_group_count > 1:
    raise ValueError(
      f"groups='inputs' must be 'outputs' for a convolution in {feature_group_count} parts, "
      'because each of its kernels sees only a part of the inputs'
    )


def convolved(strides: Any, padding: Any, groups: int, x: jax.Array, kernel: jax.Array):
  """Calls `convolve` with the images and the kernel as the last arguments."""
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
    family: a family in `posterior.FAMILIES`, or your own.
    threshold: the log alpha above which the training mask removes a weight; None is the family's.
    training_mask: whether a family that can mask in training does so.
    kernel_std: the initial standard deviation of the kernels' means; None leaves them to the
      network's own rule.
    log_variance: the initial log-variances; None is the family's.
    dense_groups: which side of a dense layer forms the groups, if the family has any: 'inputs' (as
      in the paper) or 'outputs'.
    conv_groups: likewise for convolutions; the paper uses 'outputs'.
    **settings: the family's own settings.

  Returns:
    (dense, conv), functions that take the arguments that `nn.Layers` names.

  Raises:
    ValueError: the groups are neither 'inputs' nor 'outputs'.
  """
  _check_sides(dense_groups, conv_groups)
  sampling = make_sampling(
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


def _check_sides(*sides: str) -> None:
  for groups in sides:
    if groups not in GROUPS:
      raise ValueError(f'groups={groups!r} must be {" or ".join(GROUPS)}')


def make_sampling(
  family: Family,
  *,
  threshold: float | None = None,
  training_mask: bool = True,
  kernel_std: float | None = None,
  log_variance: float | None = None,
  **settings: Any,
) -> Sampling:
  """Returns the sampling of a family's layers, from the settings that `makers` takes."""
  own = {**family.settings, **settings}
  if family.masks:
    masked_at = family.threshold if threshold is None else threshold
    own['threshold'] = float(masked_at) if training_mask else None
  log_variance = family.log_variance if log_variance is None else log_variance
  return Sampling(family, partial(family.draw, **own), kernel_std, float(log_variance))
