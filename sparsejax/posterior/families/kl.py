"""Kullback-Leibler divergences in closed form, in nats, for each element.

Variances are given by their logarithms. Unless it says otherwise, every function is finite with
finite gradients for log-variances in [-80, 80] and means in [-1e9, 1e9].
"""

import math

import jax
import jax.numpy as jnp

K1, K2, K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. 2017, equation 14
EPSILON = 1e-8  # added to squared means before their logarithm is taken, since they may be zero


def log_alpha(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  r"""Returns how noisy each element is: the log of its variance over its squared mean.

  .. math:: \log \alpha = \log \sigma^2 - \log(\theta^2 + 10^{-8})

  Args:
    mean: theta, of any shape.
    log_variance: log sigma^2, of that shape.

  Example:
    >>> log_alpha(jnp.array([1.0, 0.0]), jnp.array([-3.0, -3.0])).round(2).tolist()
    [-3.0, 15.42...]
  """
  return log_variance - jnp.log(jnp.square(mean) + EPSILON)


@jax.custom_jvp
def log_uniform_kl(log_alpha: jax.Array) -> jax.Array:
  r"""Returns KL(N(theta, alpha theta^2) || log-uniform), up to a constant: 0 at alpha = infinity.

  .. math:: -KL \approx k_1 \sigma(k_2 + k_3 \log\alpha) - \tfrac12 \log(1 + \alpha^{-1}) - k_1

  The approximation is within 0.01 nats of the exact divergence. The same form serves a group's
  scale under the normal-Jeffreys prior.

  Args:
    log_alpha: log alpha, of any shape.

  Example:
    >>> log_uniform_kl(jnp.array([-8.0, 0.0, 8.0])).round(3).tolist()
    [4.636..., 0.431..., 0.0]

  References:
    Molchanov, Ashukha and Vetrov 2017, https://arxiv.org/abs/1701.05369, equation 14
  """
  return K1 * jax.nn.sigmoid(-(K2 + K3 * log_alpha)) + 0.5 * jax.nn.softplus(-log_alpha)


@log_uniform_kl.defjvp
def _log_uniform_kl_jvp(primals, tangents):
  # This takes half as long as what the compiler makes of the gradients of softplus and sigmoid; in
  # a small network the divergence is a large part of the step.
  [log_alpha], [tangent] = primals, tangents
  noise = jax.nn.sigmoid(-(K2 + K3 * log_alpha))
  slope = -K1 * K3 * noise * (1 - noise) - 0.5 * jax.nn.sigmoid(-log_alpha)
  return log_uniform_kl(log_alpha), slope * tangent


def standard_normal_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  r"""Returns KL(N(mu, s^2) || N(0, 1)).

  .. math:: \tfrac12 (s^2 + \mu^2 - 1 - \log s^2)

  Args:
    mean: mu, of any shape.
    log_variance: log s^2, of that shape.

  Example:
    >>> standard_normal_kl(jnp.array([0.0, 2.0]), jnp.zeros(2)).tolist()
    [0.0, 2.0]
  """
  return 0.5 * (jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance)


def gamma_kl(mean: jax.Array, log_variance: jax.Array, log_scale: float = 0.0) -> jax.Array:
  r"""Returns KL(LogN(m, v) || Gamma(shape 1/2, scale theta)), the half of a half-Cauchy prior.

  .. math:: \tfrac12 \log\theta + e^{m + v/2} / \theta - \tfrac12 (m + \log v + 1 + \log 2)

  whose minimum 0.153426 lies at v = 2, m = log theta - 1 - log 2.

  Args:
    mean: m, the mean of the logarithm.
    log_variance: log v, where v is the variance of the logarithm, of that shape; the result is
      finite for m + v/2 below log theta + 80.
    log_scale: log theta; for a scale of 1e-10 the quotient above would otherwise overflow.

  Example:
    >>> gamma_kl(jnp.array([-1 - jnp.log(2.0)]), jnp.array([jnp.log(2.0)])).round(4).tolist()
    [0.153...]

  References:
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665, appendix A
  """
  variance = jnp.exp(log_variance)
  rest = mean - log_scale + log_variance + 1 + math.log(2)
  return jnp.exp(mean - log_scale + variance / 2) - 0.5 * rest


def inverse_gamma_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  r"""Returns KL(LogN(m, v) || InverseGamma(shape 1/2, scale 1)), the other half of a half-Cauchy.

  .. math:: e^{v/2 - m} - \tfrac12 (-m + \log v + 1 + \log 2)

  It is `gamma_kl` of the reciprocal, whose logarithm has the mean -m.

  Args:
    mean: m, the mean of the logarithm.
    log_variance: log v, of that shape.

  Example:
    >>> inverse_gamma_kl(jnp.array([1 + jnp.log(2.0)]), jnp.array([jnp.log(2.0)])).round(4).tolist()
    [0.153...]

  References:
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665, appendix A
  """
  return gamma_kl(-mean, log_variance)
