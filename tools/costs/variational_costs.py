"""Measures the cost of posteriors: a variational step over a deterministic one, and its parts.

python -m tools.costs.variational_costs [--models=lenet300,lenet5,vgg16] [--batch=64]

Steps consist of forward pass, backward pass and Adam, timed in turns within one process, so that
their ratios hold on a machine that is not quiet. If the noise is drawn beforehand, as an argument
of the step, only the second linear map remains; the difference is the cost of drawing, which is
also given by generator. The KL link is timed alone over the same parameters and compared with the
step that draws its noise.
"""

import argparse
import functools
import json
import math
import pathlib
import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp
import optax

import sparsejax
from sparsejax import models, posterior
from sparsejax.experiment.machine import allocator, compilation, provenance
from sparsejax.nn import variational
from tools import ROOT

SHAPES = {'lenet300': (28, 28, 1), 'lenet5': (28, 28, 1)}
TURNS, SECONDS = 7, 20.0  # compared functions take at least these turns, or as many as fit
GENERATORS = {
  'threefry, the older form (ours)': ('threefry2x32', variational.standard_normal),
  'threefry, partitionable': ('threefry2x32', jax.random.normal),
  'rbg': ('rbg', jax.random.normal),
}


def medians(functions) -> dict[str, float]:
  """The median seconds of each of {name: () -> arrays}, called in turns, the first not counted."""
  for function in functions.values():
    jax.block_until_ready(function())
  seconds = {name: [] for name in functions}
  end = time.perf_counter() + SECONDS
  turn = 0
  while turn < TURNS or (time.perf_counter() < end and turn < 50 * TURNS):
    for name, function in functions.items():
      begun = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - begun)
    turn += 1
  return {name: statistics.median(times) for name, times in seconds.items()}


def training_step(name: str, family: str, batch: int):
  """(step(params, state, key, noise), its arguments, the noise's shapes).

  If `noise` is a list of arrays, these replace the draws, in order; if it is None, the step draws.
  """
  model = models.create(name, layers=family)
  images = jax.random.normal(jax.random.key(0), (batch, *SHAPES.get(name, (32, 32, 3))))
  labels = jnp.zeros(batch, jnp.int32)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), images[:1])
  params, tx = variables['params'], optax.adam(1e-3)

  def loss(params, key):
    own = {**variables, 'params': params}
    logits, _ = model.apply(own, images, train=True, rngs={'noise': key}, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  @jax.jit
  def step(params, state, key, noise):
    with mock.patch.object(variational, 'standard_normal', drawn(noise)):
      grad = jax.grad(loss)(params, key)
    updates, state = tx.update(grad, state, params)
    return optax.apply_updates(params, updates), state

  shapes = []

  def note(key, shape):
    shapes.append(shape)
    return jnp.zeros(shape)

  with mock.patch.object(variational, 'standard_normal', note):
    jax.eval_shape(loss, params, jax.random.key(0))
  return step, (params, tx.init(params), jax.random.key(1)), shapes


def drawn(noise):
  """The function that draws, or one that returns the given arrays in order."""
  if noise is None:
    return variational.standard_normal
  left = iter(noise)
  return lambda key, shape: next(left)


def normal(impl: str, draw, shapes):
  """() -> draws of these shapes by one of JAX's generators."""

  @jax.jit
  def draw_all(key):
    return [draw(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes)]

  return functools.partial(draw_all, jax.random.key(0, impl=impl))


def measure(name: str, batch: int) -> dict:
  steps, rows, links, draws = {}, {}, {}, {}
  for family in ('deterministic', *posterior.FAMILIES):
    step, own, shapes = training_step(name, family, batch)
    if family == 'deterministic':
      steps[family] = functools.partial(step, *own, [])
      continue
    noise = [jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes)]
    steps[family] = functools.partial(step, *own, noise)
    steps[f'{family}, drawing'] = functools.partial(step, *own, None)
    draws[family] = shapes
    params, tx = own[0], sparsejax.add_kl_gradients(50_000)
    zeros = jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(lambda u, p, tx=tx: tx.update(u, tx.init(p), p)[0])
    links[f'{family} KL'] = functools.partial(update, zeros, params)
    links[f'{family} sum'] = functools.partial(
      jax.jit(lambda u, p: jax.tree.map(jnp.add, u, p)), zeros, params
    )
  seconds = medians(steps) | medians(links)
  for family in posterior.FAMILIES:
    drawing = seconds[f'{family}, drawing']
    # Reading and writing gradients does not count: in a chain that is one pass with Adam's.
    kl = seconds[f'{family} KL'] - seconds[f'{family} sum']
    rows[family] = {
      'step_seconds': drawing,
      'ratio_noise_given': seconds[family] / seconds['deterministic'],
      'ratio_noise_drawn': drawing / seconds['deterministic'],
      'kl_share_of_step': max(kl, 0.0) / (drawing + max(kl, 0.0)),
      'noise_values_a_step': sum(map(math.prod, draws[family])),
      'noise_seconds': medians(
        {name: normal(*generator, draws[family]) for name, generator in GENERATORS.items()}
      ),
    }
  return {
    'model': name,
    'batch_size': batch,
    'deterministic_step_seconds': seconds['deterministic'],
    'families': rows,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', default='lenet300,lenet5,vgg16')
  parser.add_argument('--batch', type=int, default=64)
  default = ROOT / 'results' / 'costs' / 'variational_costs.json'
  parser.add_argument('--out', type=pathlib.Path, default=default)
  arguments = parser.parse_args()
  allocator.keep_freed_memory()
  compilation.use_cache()
  results = []
  for name in arguments.models.split(','):
    found = measure(name, arguments.batch)
    results.append(found)
    print(f'{name}, batch {arguments.batch}: {found["deterministic_step_seconds"]:.4f} s')
    for family, row in found['families'].items():
      print(
        f'  {family:22} x{row["ratio_noise_given"]:.2f} with the noise given, '
        f'x{row["ratio_noise_drawn"]:.2f} drawing it, KL link {100 * row["kl_share_of_step"]:.1f} %'
      )
      for generator, spent in row['noise_seconds'].items():
        print(f'    {generator:32} {spent:.4f} s for {row["noise_values_a_step"]:,} values')
  report = {'environment': provenance.environment(), 'models': results}
  arguments.out.write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
  main()
