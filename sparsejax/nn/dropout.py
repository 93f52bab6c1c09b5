"""Dropout that eases as the network is pruned (Han et al. 2015a, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Dropout(nn.Module):
  """Drops units at rate * sqrt(share of the kernel's entries that are not zero).

  Pruning already limits the capacity that dropout is meant to limit, so Han et al. retrain with
  D_r = D_o sqrt(C_ir / C_io), where C_io and C_ir are the layer's connections before and after
  pruning. Since C_ir is read from the kernel, one rule serves all of training: ordinary dropout
  while the layer is dense, less from the pruning step on. Units that are kept are divided by the
  share kept.

  Attributes:
    rate: the share of units dropped while the network is dense; 0 computes nothing.
  """

  rate: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, kernel: jax.Array | None, *, train: bool) -> jax.Array:
    """Returns x with units dropped.

    Args:
      x: activations.
      kernel: the kernel of the layer that made x; None counts as dense.
      train: whether to drop at all.
    """
    if not train or self.rate == 0:
      return x
    share = jnp.float32(1) if kernel is None else jnp.mean(kernel != 0, dtype=jnp.float32)
    keep = 1 - self.rate * jnp.sqrt(share)
    kept = jax.random.bernoulli(self.make_rng('dropout'), keep, x.shape)
    return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros_like(x))


def kernel_of(module: nn.Module, *path: str) -> jax.Array | None:
  """Returns the kernel at that path below a bound module, or None if that layer has none."""
  params = module.variables['params']
  for name in path:
    params = params[name]
  return params.get('kernel')
