"""Layers with a posterior in the place of every weight, sampled by local reparameterisation.

What is sampled is not the weights but what they make: an output is a sum of many independent
products, so it is drawn from the Gaussian of their means and variances, for every example and
position by itself. That costs a second linear map, of the squared inputs with the variances, and
its gradients vary far less than those through sampled weights (Kingma et al. 2015, 1506.02557).

One implementation serves dense and convolutional layers alike: it sees a linear map and a kernel of
shape (..., inputs, outputs). Which axis has the groups is the shape of the scale, as
`posterior` says.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax.layers import deterministic
from sparsejax.layers.convolution import convolve
from sparsejax.layers.deterministic import uniform_fan_in
from sparsejax.posterior import family as families
from sparsejax.posterior.kl import EPSILON

Leaves = Mapping[str, jax.Array]
Linear = Callable[[jax.Array, jax.Array], jax.Array]  # (x, kernel) -> y, without a bias
Noise = Callable[[tuple[int, ...]], jax.Array]  # shape -> independent draws of N(0, 1)
GROUPS = ('inputs', 'outputs')


class Start(NamedTuple):
  """How a layer begins: for each leaf a mean and a standard deviation over its entries.

  kernel: the standard deviation of its entries about 0; None leaves it to the network's own rule.
  log_variance: of every variance.
  spread: the standard deviation of scales and log-variances about their starts.
  """

  kernel: float | None = None
  log_variance: float = -9.0
  spread: float = 0.01


class Sampling(NamedTuple):
  """A family of posteriors, as its layers use it.

  name: of `posterior.FAMILIES`.
  draw: (leaves, x, linear, noise) -> outputs, bias included.
  start: how its leaves begin.
  """

  name: str
  draw: Callable[[Leaves, jax.Array, Linear, Noise], jax.Array]
  start: Start


def draw_sparse_vd(
  leaves: Leaves, x: jax.Array, linear: Linear, noise: Noise, *, threshold: float | None = None
) -> jax.Array:
  r"""Samples the outputs of a layer with weights N(theta, alpha theta^2).

  .. math:: y = x * \theta + \sqrt{x^2 * \alpha\theta^2 + 10^{-8}} \, \epsilon + b

  with * the layer's linear map.

  Args:
    leaves: kernel, kernel_log_variance and perhaps bias.
    x: (examples, ..., inputs).
    linear: the map.
    noise: draws of N(0, 1).
    threshold: where log alpha is so much or more, theta counts as 0 in the mean: what will be
      removed is noise alone already in training; None trains without.
  """
  kernel = leaves['kernel']
  if threshold is not None:
    kernel = jnp.where(families.sparse_vd_log_alpha(leaves) >= threshold, 0.0, kernel)
  mean = linear(x, kernel)
  variance = linear(jnp.square(x), families.sparse_vd_variance(leaves))
  y = _gaussian(mean, variance, noise)
  return y + _along(leaves['bias'], y) if 'bias' in leaves else y


def draw_grouped(
  leaves: Leaves,
  x: jax.Array,
  linear: Linear,
  noise: Noise,
  *,
  draw_scale: Callable[[Leaves, Noise, int], jax.Array],
) -> jax.Array:
  r"""Samples the outputs of a layer whose groups have scales z, one draw for each example.

  .. math::
    \text{inputs: } & N((xz) * \mu + b, \; (xz)^2 * s^2 + s_b^2) \\
    \text{outputs: } & z \, N(x * \mu + b, \; x^2 * s^2 + s_b^2)

  Args:
    leaves: of a family of `posterior` with groups.
    x: (examples, ..., inputs).
    linear: the map.
    noise: draws of N(0, 1).
    draw_scale: (leaves, noise, examples) -> z, (examples, groups).
  """
  scale = draw_scale(leaves, noise, len(x))
  scale = scale.reshape(len(x), *(1,) * (x.ndim - 2), -1).astype(x.dtype)
  if families.groups_are_inputs(leaves):
    x = x * scale
  mean = linear(x, leaves['kernel'])
  variance = linear(jnp.square(x), jnp.exp(leaves['kernel_log_variance']))
  if 'bias' in leaves:
    mean += _along(leaves['bias'], mean)
    variance += _along(jnp.exp(leaves['bias_log_variance']), variance)
  y = _gaussian(mean, variance, noise)
  return y if families.groups_are_inputs(leaves) else y * scale


def _gaussian(mean, variance, noise):
  # Where a variance is 0 the root's gradient would be infinite; and a product that XLA forms in
  # another order may fall a rounding below.
  deviation = jnp.sqrt(jnp.maximum(variance, 0) + jnp.asarray(EPSILON, variance.dtype))
  return mean + deviation * noise(mean.shape).astype(mean.dtype)


def _along(bias, y):
  """A vector over the outputs, for adding to y."""
  return bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _normal_jeffreys_scale(leaves, noise, examples):
  mean, log_variance = (
    leaves[name].reshape(1, -1) for name in ('scale_mean', 'scale_log_variance')
  )
  return mean + jnp.exp(log_variance / 2) * noise((examples, mean.size))


def _horseshoe_scale(leaves, noise, examples):
  mean, variance = (part.reshape(1, -1) for part in families.horseshoe_log_scale(leaves))
  return jnp.exp(mean + jnp.sqrt(variance) * noise((examples, mean.size)))


# How the leaves begin.


def _init_leaves(module, shape, kernel_init, sampling, use_bias, groups):
  """Declares the parameters of a layer, and returns them by name."""
  start, own = sampling.start, families.FAMILIES[sampling.name].own

  def about(mean, spread):
    def init(key, of_shape):
      return mean + spread * jax.random.normal(key, of_shape)

    return init

  if start.kernel is not None:
    kernel_init = about(0.0, start.kernel)
  elif own and len(shape) == 2 and kernel_init is uniform_fan_in:
    kernel_init = about(0.0, 1 / math.sqrt(shape[0]))
  inits = {'kernel': (kernel_init, shape)}
  if use_bias:
    inits['bias'] = (about(0.0, 0.0), shape[-1:])
  scale_shape = (shape[-2], 1) if groups == 'inputs' else shape[-1:]
  for name, mean in families.SCALE_STARTS.get(sampling.name, {}).items():
    is_shared = name.startswith(families.SHARED)
    # The horseshoe's means are where its KL is least; a spread would only blur them.
    spread = start.spread if name == 'scale_mean' else 0.0
    inits[name] = (about(mean, spread), (1,) * len(scale_shape) if is_shared else scale_shape)
  for name in families.FAMILIES[sampling.name].names(bias=use_bias):
    if name.endswith(families.VARIANCE):
      of = name.removesuffix(families.VARIANCE)
      like = inits[of if of in inits else f'{of}_mean'][1]
      inits[name] = (about(start.log_variance, start.spread if own else 0.0), like)
  return {name: module.param(name, *inits[name]) for name in sorted(inits)}


def _apply(module, x, linear, shape, groups, *, train):
  """Samples in training; else the outputs of the posterior means, none of them removed."""
  sampling = module.sampling
  leaves = _init_leaves(module, shape, module.kernel_init, sampling, module.use_bias, groups)
  x = x.astype(module.dtype)

  def linear_in_dtype(inputs, kernel):
    return linear(inputs, kernel.astype(module.dtype))

  if not train:
    means = {
      name: found.mean for name, found in families.FAMILIES[sampling.name].moments(leaves).items()
    }
    y = linear_in_dtype(x, means['kernel'])
    return y + _along(means['bias'], y) if 'bias' in means else y

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
  groups: str | None = None  # 'inputs' or 'outputs'

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    return _apply(self, x, jnp.dot, (x.shape[-1], self.features), self.groups, train=train)


class Conv(deterministic.Conv):
  """As `deterministic.Conv`, with a posterior; draws from the rng `noise` in training."""

  sampling: Sampling = dataclasses.field(kw_only=True)
  groups: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    if self.groups == 'inputs' and self.feature_group_count > 1:
      raise ValueError(
        f"groups='inputs' of a convolution in {self.feature_group_count} parts, each of whose "
        "kernels sees a part of the inputs; allowed is 'outputs'"
      )
    shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
    linear = partial(_convolve, self.strides, self.padding, self.feature_group_count)
    return _apply(self, x, linear, shape, self.groups, train=train)


def _convolve(strides, padding, groups, x, kernel):
  return convolve(x, kernel, strides, padding, groups)


def sparse_vd(*, start: Start = Start(log_variance=-10.0), threshold: float | None = 3.0):
  """Returns the makers of dense and convolutional layers of sparse variational dropout.

  Args:
    start: how the layers begin.
    threshold: of log alpha, above which a mean counts as 0 in training; None for no such mask.

  Returns:
    (dense, conv), functions of the arguments that `layers.Layers` names.

  References:
    Molchanov, Ashukha and Vetrov 2017, https://arxiv.org/abs/1701.05369
  """
  sampling = Sampling('sparse_vd', partial(draw_sparse_vd, threshold=threshold), start)
  return partial(Dense, sampling=sampling), partial(Conv, sampling=sampling)


def grouped(
  name: str,
  *,
  start: Start = Start(),
  dense_groups: str = 'inputs',
  conv_groups: str = 'outputs',
):
  """Returns the makers of dense and convolutional layers of Bayesian compression.

  Args:
    name: 'group_normal_jeffreys' or 'group_horseshoe', the prior of a group's scale.
    start: how the layers begin.
    dense_groups: 'inputs' (the paper's) or 'outputs' of dense layers have a scale each.
    conv_groups: likewise of convolutions, 'outputs' in the paper.

  Returns:
    (dense, conv), functions of the arguments that `layers.Layers` names.

  Raises:
    ValueError: another name, or groups along another axis.

  References:
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665
  """
  if name not in SCALES:
    raise ValueError(f'grouped layers {name!r}: allowed are {", ".join(SCALES)}')
  for groups in (dense_groups, conv_groups):
    if groups not in GROUPS:
      raise ValueError(f'groups={groups!r}: allowed are {" and ".join(GROUPS)}')
  sampling = Sampling(name, partial(draw_grouped, draw_scale=SCALES[name]), start)
  return (
    partial(Dense, sampling=sampling, groups=dense_groups),
    partial(Conv, sampling=sampling, groups=conv_groups),
  )


SCALES = {
  'group_normal_jeffreys': _normal_jeffreys_scale,
  'group_horseshoe': _horseshoe_scale,
}
