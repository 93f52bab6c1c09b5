"""BatchNorm after a cut: its running averages still describe the network that was."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp


def recalibrate_batch_norm(
  update: Callable[[Any, Any], Any], batch_stats: Any, batches: Iterable[Any]
) -> Any:
  r"""Returns running averages that are the mean of the batches' own moments.

  A training pass f moves an average a to m a + (1 - m) x, with x the batch's moment. What it makes
  of 0 and of another a tells the momentum m, and so x, whatever network and momentum there are:

  .. math:: m = (f(a) - f(0)) / a, \quad x = f(0) / (1 - m)

  Args:
    update: (averages, batch) -> averages after one training pass over the batch, as the network is
      now; jitted by the caller, or not.
    batch_stats: a tree of the averages' structure and shapes; the values are not read.
    batches: inputs as the network takes them, not augmented; some thousand examples will do.

  Returns:
    A tree as batch_stats.

  Raises:
    ValueError: no batch.

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
  total, count, weight = None, 0, None
  for batch in batches:
    found = update(zeros, batch)
    if weight is None:
      # Large beside f(0), or the difference would lose its digits.
      probe = jax.tree.map(lambda f: 1 + 10 * jnp.abs(f), found)
      probed = update(probe, batch)
      weight = jax.tree.map(lambda p, f, a: 1 - (p - f) / a, probed, found, probe)
    moments = jax.tree.map(jnp.divide, found, weight)
    total = moments if total is None else jax.tree.map(jnp.add, total, moments)
    count += 1
  if not count:
    raise ValueError('recalibrate_batch_norm: no batch; give one or more')
  return jax.tree.map(lambda t: t / count, total)
