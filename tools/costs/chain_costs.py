"""Measures the time that sparsity links add to a training step, and the memory of their masks.

python -m tools.costs.chain_costs [--models=resnet50,lenet5] [--batch=128]

The links' updates are timed alone, in turns with the bare optimizer's over the same parameters, and
the difference is compared with a whole training step in the same process. That is far steadier than
the difference of two whole steps, since the links take a hundredth of a step.
"""

import argparse
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import optax

import sparsejax
from sparsejax import allocation, models, update_rules
from sparsejax.experiment.machine import allocator, compilation, provenance
from tools import ROOT

TURNS, NEVER, DUE = 21, 10**8, 3
SHAPES = {'lenet300': (28, 28, 1), 'lenet5': (28, 28, 1)}


def bare() -> optax.GradientTransformation:
  return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9))


def chains(step: int) -> dict[str, optax.GradientTransformation]:
  """The chains of the configs, with a mask update at the given step."""
  one_shot = sparsejax.one_shot(step, 0.05)
  many = tuple(range(step, step + 10_000, 100))
  periodic = sparsejax.PruningSchedule(many, (0.05,) * len(many))
  return {
    'bare': bare(),
    'deep compression': optax.chain(bare(), sparsejax.prune(one_shot)),
    'L1': optax.chain(bare(), sparsejax.proximal_l1(1e-5, 0.1, 0.9), sparsejax.prune(one_shot)),
    'gradual': optax.chain(bare(), sparsejax.prune(periodic)),
    'RigL': sparsejax.prune(
      periodic,
      allocation=allocation.erk(),
      update_rule=update_rules.rigl(step + 100),
      inner=bare(),
    ),
  }


def timed(function, *arguments):
  begun = time.perf_counter()
  result = jax.block_until_ready(function(*arguments))
  return result, time.perf_counter() - begun


def updater(tx):
  """A donated update of parameters and state by a gradient, as in a training step."""

  def update(params, state, grad):
    moved, state = tx.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, moved), state

  return jax.jit(update, donate_argnums=(0, 1))


def time_updates(params, txs, turns):
  """The seconds of each turn's update by chain; every turn starts with another chain."""
  grad = jax.tree.map(lambda p: jnp.full_like(p, 1e-4), params)
  live, seconds = {}, {name: [] for name in txs}
  for name, tx in txs.items():
    copied = jax.tree.map(jnp.array, params)
    live[name] = (updater(tx), (copied, tx.init(copied)))
  for turn in range(turns):
    names = list(live)
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
      update, (own, state) = live[name]
      moved, spent = timed(update, own, state, grad)
      live[name] = (update, moved)
      seconds[name].append(spent)
  return seconds, live


def step_seconds(model, variables, image_shape, batch, turns):
  """The median time of forward pass, backward pass and bare optimizer together."""
  images = jax.random.normal(jax.random.key(0), (batch, *image_shape))
  labels = jnp.zeros(batch, jnp.int32)
  tx = bare()

  @jax.jit
  def step(params, stats, state):
    def loss(params):
      logits, changed = model.apply(
        {'params': params, 'batch_stats': stats}, images, train=True, mutable=['batch_stats']
      )
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

    grad, changed = jax.grad(loss, has_aux=True)(params)
    moved, state = tx.update(grad, state, params)
    return optax.apply_updates(params, moved), changed.get('batch_stats', {}), state

  params, stats = variables['params'], variables.get('batch_stats', {})
  own = (params, stats, tx.init(params))
  own, _ = timed(step, *own)
  times = []
  for _ in range(turns):
    own, spent = timed(step, *own)
    times.append(spent)
  return statistics.median(times)


def mask_bytes(state) -> dict[str, float]:
  masks = optax.tree.get(state, 'masks')
  weights = sum(m.size for m in jax.tree.leaves(masks))
  memory = sum(m.nbytes for m in jax.tree.leaves(masks))
  disk = sum(m.nbytes for m in jax.tree.leaves(sparsejax.pack_masks(masks)))
  return {
    'mask_bytes_per_weight': memory / weights,
    'mask_bits_on_disk_per_weight': 8 * disk / weights,
  }


def measure(name: str, batch: int, step_turns: int) -> dict:
  model, image_shape = models.create(name), SHAPES.get(name, (32, 32, 3))
  init = jax.jit(model.init, static_argnames='train')
  variables = init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False)
  params = variables['params']
  step = step_seconds(model, variables, image_shape, batch, step_turns)
  quiet, _ = time_updates(params, chains(NEVER), TURNS + 1)
  median = {name: statistics.median(times[1:]) for name, times in quiet.items()}
  due, live = time_updates(params, chains(DUE), DUE + 2)
  rows = {}
  for chain in median:
    event = due[chain][DUE] - median[chain]
    rows[chain] = {
      'update_seconds': median[chain],
      'chain_overhead': 1 + (median[chain] - median['bare']) / step,
      'pruning_event_in_steps': None if chain == 'bare' else event / step,
    }
  _, (_, state) = live['RigL']
  return {
    'model': name,
    'batch_size': batch,
    'parameters': sum(p.size for p in jax.tree.leaves(params)),
    'step_seconds': step,
    'chains': rows,
    **mask_bytes(state),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', default='resnet50,lenet5')
  parser.add_argument('--batch', type=int, default=128)
  parser.add_argument('--step-turns', type=int, default=5)
  default = ROOT / 'results' / 'costs' / 'chain_costs.json'
  parser.add_argument('--out', type=pathlib.Path, default=default)
  arguments = parser.parse_args()
  allocator.keep_freed_memory()
  compilation.use_cache()
  results = []
  for name in arguments.models.split(','):
    results.append(measure(name, arguments.batch, arguments.step_turns))
    print(json.dumps(results[-1], indent=2))
  report = {'environment': provenance.environment(), 'models': results}
  arguments.out.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
  main()
