"""Recomputing BatchNorm's running averages after pruning.

Pruning changes the inputs of every BatchNorm, but not its running averages, which still describe
the unpruned network.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp


def recalibrate_batch_norm(
  update: Callable[[Any, Any], Any], batch_stats: Any, batches: Iterable[Any]
) -> Any:
  r"""Returns running averages that are the mean of the moments of the given batches.

  A training pass on a batch with moment x maps an average a to f(a) = m a + (1 - m) x. The momentum
  m is part of the network, but two passes, from 0 and from another a, reveal it, and with it x:

  .. math:: m = (f(a) - f(0)) / a, \quad x = f(0) / (1 - m)

  Args:
    update: a function (averages, batch) -> averages after one training pass of the pruned network
      over the batch; jitted or not.
    batch_stats: a tree with the structure and shapes of the averages; its values are not used.
    batches: batches of inputs without augmentation; a few thousand examples are enough.

  Returns:
    A tree with the structure of `batch_stats`.

  Raises:
    ValueError: `batches` is empty.

  Example:
    >>> mean = lambda stats, batch: {'mean': 0.9 * stats['mean'] + 0.1 * batch.mean()}
    >>> batches = [jnp.array([1.0, 3.0]), jnp.array([4.0, 8.0])]
    >>> round(float(recalibrate_batch_norm(mean, {'mean': jnp.zeros(())}, batches)['mean']), 3)
    4.0

    With Flax linen:

    >>> def update(batch_stats, images):  # doctest: +SKIP
    ...   variables = {'params': params, 'batch_stats': batch_stats}
    ...   return model.apply(variables, images, train=True, mutable='batch_stats')[1]['batch_stats']
  """
  zeros = jax.tree.map(jnp.zeros_like, batch_stats)
  total, count, one_minus_momentum = None, 0, None
  for batch in batches:
    from_zeros = update(zeros, batch)
    if one_minus_momentum is None:
      # The probe must be large compared with f(0), or f(a) - f(0) would lose its digits.
      probe = jax.tree.map(lambda f0: 1 + 10 * jnp.abs(f0), from_zeros)
      from_probe = update(probe, batch)
      one_minus_momentum = jax.tree.map(
        lambda fa, f0, a: 1 - (fa - f0) / a, from_probe, from_zeros, probe
      )
    moments = jax.tree.map(jnp.divide, from_zeros, one_minus_momentum)
    total = moments if total is None else jax.tree.map(jnp.add, total, moments)
    count += 1
  if not count:
    raise ValueError('recalibrate_batch_norm: batches is empty; give one batch or more')
  return jax.tree.map(lambda t: t / count, total)
