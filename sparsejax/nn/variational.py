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
from sparsejax.posterior.families.family import GROUPS, Family, along


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


def _leaves(module, shape):
  """Declares the parameters of a layer, and returns them by name."""
  family, _, kernel_std, log_variance = module.sampling

  def about(mean, spread):
    def init(key, of_shape):
      return mean + spread * jax.random.normal(key, of_shape)

    return init

  kernel_init = module.kernel_init
  if kernel_std is not None:
    kernel_init = about(0.0, kernel_std)
  elif family.starts_normal and len(shape) == 2 and kernel_init is uniform_fan_in:
    kernel_init = about(0.0, 1 / math.sqrt(shape[0]))
  inits = {'kernel': kernel_init, 'bias': about(0.0, 0.0)}
  for name, leaf in family.leaves.items():
    inits[name] = about(log_variance if leaf.start is None else leaf.start, leaf.spread)
  shapes = family.shapes(shape, module.groups, bias=module.use_bias)
  return {name: module.param(name, inits[name], shapes[name]) for name in sorted(shapes)}


def _apply(module, x, linear, shape, *, train):
  """Samples in training; else the outputs of the posterior means, none of them removed."""
  sampling = module.sampling
  leaves = _leaves(module, shape)
  x = x.astype(module.dtype)

  def linear_in_dtype(inputs, kernel):
    return linear(inputs, kernel.astype(module.dtype))

  if not train:
    means = {name: found.mean for name, found in sampling.family.moments(leaves).items()}
    y = linear_in_dtype(x, means['kernel'])
    return y + along(means['bias'], y) if 'bias' in means else y

  def noise(noise_shape):
    return standard_normal(module.make_rng('noise'), noise_shape)

  return sampling.draw(leaves, x, linear_in_dtype, noise)


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
    if self.groups == 'inputs' and self.feature_group_count > 1:
      raise ValueError(
        f"groups='inputs' of a convolution in {self.feature_group_count} parts, each of whose "
        "kernels sees a part of the inputs; allowed is 'outputs'"
      )
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
    linear = partial(_convolve, self.strides, self.padding, self.feature_group_count)
    return _apply(self, x, linear, shape, train=train)


def _convolve(strides, padding, groups, x, kernel):
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
      raise ValueError(f'groups={groups!r}: allowed are {" and ".join(GROUPS)}')
  own = {**family.settings, **settings}
  if family.masks:
    masked_at = family.threshold if threshold is None else threshold
    own['threshold'] = float(masked_at) if training_mask else None
  log_variance = family.log_variance if log_variance is None else log_variance
  sampling = Sampling(family, partial(family.draw, **own), kernel_std, float(log_variance))
  return (
    partial(Dense, sampling=sampling, groups=dense_groups),
    partial(Conv, sampling=sampling, groups=conv_groups),
  )
