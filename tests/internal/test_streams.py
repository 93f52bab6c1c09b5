"""No two uses of a seed draw from the same bits."""

import jax
import numpy as np

from sparsejax.experiment.step import augment
from sparsejax.internal import streams

USES = (streams.INIT, streams.ORDER, streams.EXAMPLES, streams.DROPOUT, streams.PRUNING)


def bits(key):
  return tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())


def test_the_roots_of_all_uses_and_what_is_folded_from_them_differ():
  key = jax.random.key(0)
  roots = [streams.stream(key, use) for use in USES]
  folded = [jax.random.fold_in(root, epoch) for root in roots for epoch in range(5)]
  assert len({bits(k) for k in (key, *roots, *folded)}) == 1 + len(USES) * 6


def test_the_order_of_an_epoch_shares_no_key_with_its_examples():
  key = jax.random.key(3)
  for epoch in range(3):
    order = jax.random.fold_in(streams.stream(key, streams.ORDER), epoch)
    drawn_from = {bits(k) for k in jax.random.split(order, 4)} | {bits(order)}
    examples = augment.example_keys(key, epoch, np.arange(200))
    assert drawn_from.isdisjoint(bits(k) for k in examples)
