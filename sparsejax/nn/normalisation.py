"""Batch normalisation with the constants that every network here uses, and the ReLU after it.

In training on CPU the two are one function with its own gradient: the program that JAX derives
from the plain form writes out images only to take their mean, and keeps x - mean as well as x.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from sparsejax.cpu_conv import choice

MOMENTUM = 0.9  # the decay of the running averages: a becomes 0.9 a + 0.1 m


class BatchNorm(nn.BatchNorm):
  """Flax's BatchNorm, with an optional ReLU; in training on CPU `normalise` computes it.

  The moments are taken in float32 whatever the dtype of the activations. With axis_name, a pmap
  axis, they are the moments of the whole batch.

  Attributes:
    relu: whether a ReLU follows.
  """

  momentum: float = MOMENTUM
  epsilon: float = 1e-5
  relu: bool = False

  @nn.compact
  def __call__(  # ty: ignore[incompatible-method-override]  # flax's `mask` is not taken
    self, x: jax.Array, use_running_average: bool | None = None
  ) -> jax.Array:
    average = nn.merge_param('use_running_average', self.use_running_average, use_running_average)
    if average or self.is_initializing() or choice.is_plain() or not self._is_ordinary():
      y = super().__call__(x, use_running_average)
      return nn.relu(y) if self.relu else y
    leaves = (self.get_variable('params', name) for name in ('scale', 'bias'))
    with choice.reverse_mode():
      y, *moments = normalise(x, *leaves, self.epsilon, self.relu, self.axis_name)
    for name, moment in zip(('mean', 'var'), moments, strict=True):
      old = self.get_variable('batch_stats', name)
      self.put_variable('batch_stats', name, self.momentum * old + (1 - self.momentum) * moment)
    return y if self.dtype is None else y.astype(self.dtype)

  def _is_ordinary(self) -> bool:
    """Whether flax's other options have their default values."""
    return self.axis == -1 and self.use_scale and self.use_bias and not self.axis_index_groups


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalise(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  epsilon: float = 1e-5,
  relu: bool = False,
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  r"""Returns the normalised activations and the moments used to normalise them.

  .. math::
    y = \max(0, \gamma \hat x + \beta), \quad \hat x = (x - m) / \sqrt{v + \epsilon}

  where m and v are the mean and the biased variance of x. v is computed as the mean of squares
  about m, because mean(x^2) - m^2 would lose a variance that is small beside m^2. With g the
  gradient of y where y is positive, and :math:`\langle \cdot \rangle` the mean over all positions,

  .. math:: dx = \gamma / \sqrt{v + \epsilon} \;
    (g - \langle g \rangle - \hat x \langle g \hat x \rangle)

  Only reverse mode is supported: `jax.jvp` of this function raises, `jax.jvp` of its gradient does
  not. No gradient flows through the returned moments.

  Args:
    x: (..., channels).
    scale: gamma, (channels,).
    bias: beta, (channels,).
    epsilon: added to the variance.
    relu: whether y goes through a ReLU.
    axis_name: a mapped axis over which the moments are averaged; None for the moments of x alone.

  Returns:
    y, shaped like x, and the mean and the variance, each (channels,) in float32.

  Example:
    >>> y, mean, variance = normalise(jnp.array([[1.0], [3.0]]), jnp.ones(1), jnp.zeros(1))
    >>> mean.item(), variance.item()
    (2.0, 1.0)

  References:
    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
  """
  return _forward(x, scale, bias, epsilon, relu, axis_name)[0]


def _forward(x, scale, bias, epsilon, relu, axis_name):
  scale, bias = (leaf.reshape((1,) * (x.ndim - 1) + (-1,)) for leaf in (scale, bias))
  mean = _joined(_mean(x), axis_name)
  variance = _joined(_mean(jnp.square(x - _apart(mean))), axis_name)
  factor = lax.rsqrt(variance + epsilon)
  y = _affine(x, mean, factor * scale, bias)
  y = nn.relu(y) if relu else y
  moments = mean.reshape(-1), variance.reshape(-1)
  return (y.astype(x.dtype), *moments), (x, scale, bias, mean, factor)


def _backward(epsilon, relu, axis_name, kept, gradients):
  x, scale, bias, mean, factor = kept
  gradient, slope = gradients[0], factor * scale
  if relu:
    gradient = jnp.where(_affine(x, mean, slope, bias) > 0, gradient, 0)
  bias_gradient = _mean(gradient)
  scale_gradient = _mean(gradient * (x - _apart(mean, bias_gradient))) * factor
  level, tilt = _joined(bias_gradient, axis_name), _joined(scale_gradient, axis_name)
  image_gradient = slope * (gradient - level - (x - mean) * (factor * tilt))
  positions = x.size // x.shape[-1]
  sums = (positions * part.reshape(-1) for part in (scale_gradient, bias_gradient))
  return image_gradient.astype(x.dtype), *sums


normalise.defvjp(_forward, _backward)


def _affine(x, mean, slope, bias):
  return (x - mean) * slope + bias


def _mean(x):
  """The mean over all axes but the last, taken over rows: XLA then sums in one pass on CPU."""
  mean = jnp.mean(x.reshape(-1, x.shape[-1]), 0, dtype=jnp.float32)
  return mean.reshape((1,) * (x.ndim - 1) + (-1,))


def _joined(mean, axis_name):
  return mean if axis_name is None else lax.pmean(mean, axis_name)


def _apart(mean, *others):
  """The same mean, hidden from XLA: otherwise x - mean, used twice, would be written out and kept.

  XLA merges two such copies again unless each has another array beside it.
  """
  return lax.optimization_barrier((mean, *others))[0]
