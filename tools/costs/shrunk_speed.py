"""Measures shrunk networks against the whole ones, and against networks built at the same widths.

python -m tools.costs.shrunk_speed [--cases=vgg16,lenet5] [--shares=0.5,0.9] [--rounds=7]
    [--seconds=2] [--out=results/shrunk_speed]

A random share of the filters of each layer is set to zero, with their biases and normalisations;
filters that are added to each other are removed together. Three networks answer or train in turns
within one process: the whole one with its zeros, the one that `models.shrink` returns, and one that
`models.create` builds at the same widths with random weights. Ratios are medians over the rounds,
each of two times in one round, with the least and the largest. The program writes shrunk_speed.json
and the page made from it; --page makes only the page.
"""

import argparse
import functools
import itertools
import json
import pathlib
import statistics
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax import compact, models
from sparsejax.experiment.machine import allocator, compilation, provenance
from sparsejax.internal import timing
from sparsejax.models.network import Network
from sparsejax.reports.text.markdown import table
from sparsejax.sparsity.leaves import tree
from tools import ROOT

FILE = 'shrunk_speed.json'
SHARES = (0.5, 0.7, 0.9)  # of the filters that are removed
AIM = 1.05  # the shrunk network's time over that of the network built at its widths


class Case(NamedTuple):
  """A network whose speed is measured.

  Attributes:
    model: its name.
    batch: the number of images in a batch.
    trains: whether training steps are timed instead of answers.
  """

  model: str
  batch: int
  trains: bool = False

  @property
  def image_shape(self) -> tuple[int, int, int]:
    return (28, 28, 1) if self.model.startswith('lenet') else (32, 32, 3)


CASES = {
  'vgg16': Case('vgg16', 128),
  'mobilenet': Case('mobilenet', 128),
  'lenet5': Case('lenet5', 128),
  'resnet50': Case('resnet50', 32),
  'vgg16_training': Case('vgg16', 16, trains=True),
}


def without_filters(case: Case, model: Network, share: float) -> dict[str, Any]:
  """Returns a network's variables with a share of its units at zero.

  The units are the ties of `compact.plan`. The share is drawn at random among the units that lie in
  the same parameters.
  """
  images = jnp.zeros((1, *case.image_shape))
  init = jax.jit(functools.partial(model.init, train=False))
  variables = dict(init(jax.random.key(0), images))
  stats = variables.get('batch_stats', {})

  def answers(params, images):
    return model.apply({'params': params, 'batch_stats': stats}, images, train=False)

  leaves = {p: np.array(x) for p, x in tree.named_leaves(variables['params']).items()}
  alike: dict[tuple[str, ...], list[compact.Tie]] = {}
  for tie in compact.plan(answers, variables['params'], images).ties:
    alike.setdefault(tuple(tie.slices), []).append(tie)
  rng = np.random.default_rng(0)
  for ties in alike.values():
    for number in rng.permutation(len(ties))[: round(share * len(ties))]:
      for path, axes in ties[number].slices.items():
        if (last := leaves[path].ndim - 1) in axes:  # the unit's filters, not its readers
          leaves[path][..., list(axes[last])] = 0
  structure = jax.tree.structure(variables['params'])
  return {**variables, 'params': jax.tree.unflatten(structure, leaves.values())}


def repeated(case: Case, model: Network, variables: dict[str, Any]) -> timing.Timed:
  """Returns a function from a number of answers or training steps to the seconds they take."""
  images = jax.random.normal(jax.random.key(1), (case.batch, *case.image_shape))
  step = training(model, variables, images) if case.trains else answering(model, variables, images)
  return timing.repeated(step)


def answering(model: Network, variables: dict[str, Any], images: jax.Array) -> Callable[[], Any]:
  """Returns a function that computes the logits of the images."""
  answer = jax.jit(functools.partial(model.apply, train=False))
  return functools.partial(answer, jax.device_put(variables), images)


def training(model: Network, variables: dict[str, Any], images: jax.Array) -> Callable[[], Any]:
  """Returns a function that makes the next training step, of SGD with momentum."""
  labels, tx = jnp.zeros(len(images), jnp.int32), optax.sgd(1e-3, momentum=0.9)

  def loss(params, stats):
    given = {'params': params, 'batch_stats': stats}
    logits, changed = model.apply(given, images, train=True, mutable=['batch_stats'])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, changed['batch_stats']

  @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
  def step(params, stats, state):
    gradient, stats = jax.grad(loss, has_aux=True)(params, stats)
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), stats, state

  params = jax.tree.map(jnp.array, variables['params'])
  held = [params, jax.tree.map(jnp.array, variables['batch_stats']), tx.init(params)]

  def advance():
    held[:] = step(*held)
    return held

  return advance


def measure(name: str, share: float, count: int, seconds: float) -> dict[str, Any]:
  """Returns the times of the three networks of a case, and their ratios."""
  case = CASES[name]
  model = models.create(case.model)
  variables = without_filters(case, model, share)
  begun = time.perf_counter()
  small, fewer = models.shrink(model, variables, case.image_shape)
  spent = time.perf_counter() - begun
  fresh = models.create(case.model, widths=small.widths)
  images = jnp.zeros((1, *case.image_shape))
  scratch = dict(jax.jit(functools.partial(fresh.init, train=False))(jax.random.key(2), images))
  timed = {
    'whole': repeated(case, model, variables),
    'shrunk': repeated(case, small, fewer),
    'scratch': repeated(case, fresh, scratch),
  }
  found = timing.alternate(timed, rounds=count, seconds=seconds, note=_say)
  row = {
    'case': name,
    'share': share,
    'parameters': [sum(x.size for x in jax.tree.leaves(v)) for v in (variables, fewer)],
    'seconds_to_shrink': spent,
    'seconds': found,
    'speedup': ratios(found['whole'], found['shrunk']),
    'over_scratch': ratios(found['shrunk'], found['scratch']),
  }
  _say({key: value for key, value in row.items() if key != 'seconds'})
  return row


def ratios(times: list[float], others: list[float]) -> dict[str, float]:
  """Returns the median, least and largest ratio of two times in one round."""
  of_rounds = [time / other for time, other in zip(times, others, strict=True)]
  return {'median': statistics.median(of_rounds), 'least': min(of_rounds), 'most': max(of_rounds)}


def page(found: dict[str, Any]) -> str:
  """Returns the page in Markdown."""
  at, count = found['environment'], found['rounds']
  told = (
    f'Made by `python -m tools.costs.shrunk_speed`, on {at["cpus"]} cores of {at["processor"]}, '
    f'JAX {at["versions"]["jax"]}, float32. A random share of the filters of each layer is zero, '
    'and `models.shrink` removes them. The whole network, the shrunk one and one built from '
    'scratch at the same widths run in turns in one process. Ratios are medians over the rounds '
    f'({count}), with the least and the largest.'
  )
  lines = ['# How fast a shrunk network is', '', *textwrap.wrap(told, 100), '']
  rows = [
    f'{_what(row["case"])} | {row["share"]:.0%} | {row["parameters"][0]:,} | '
    f'{row["parameters"][1]:,} | {1e3 * statistics.median(row["seconds"]["whole"]):.1f} ms | '
    f'{1e3 * statistics.median(row["seconds"]["shrunk"]):.1f} ms | {_spread(row["speedup"])} | '
    f'{_spread(row["over_scratch"])}'
    for row in found['rows']
  ]
  head = 'network | filters removed | parameters | left | whole | shrunk | speedup | over scratch'
  most = max(row['over_scratch']['median'] for row in found['rows'])
  word = 'within' if most <= AIM else 'beyond'
  return '\n'.join(
    [
      *lines,
      *table(head, rows),
      '',
      f'A shrunk network takes at most {most:.2f} times the time of the one built from scratch, '
      f'{word} the aim of {AIM:.2f}.',
      '',
    ]
  )


def _what(name: str) -> str:
  case = CASES[name]
  return f'{case.model}, {"training" if case.trains else "answers"}, batch {case.batch}'


def _spread(ratio: dict[str, float]) -> str:
  return f'{ratio["median"]:.2f} ({ratio["least"]:.2f} to {ratio["most"]:.2f})'


def _say(line: Any) -> None:
  print(line, file=sys.stderr, flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--cases', default=','.join(CASES))
  parser.add_argument('--shares', default=','.join(map(str, SHARES)))
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--seconds', type=float, default=2.0)
  parser.add_argument('--out', type=pathlib.Path, default=ROOT / 'results' / 'shrunk_speed')
  parser.add_argument('--page', action='store_true', help='make only the page')
  arguments = parser.parse_args()
  arguments.out.mkdir(parents=True, exist_ok=True)
  file = arguments.out / FILE
  if not arguments.page:
    allocator.keep_freed_memory()
    compilation.use_cache()
    rows = []
    report = {'environment': provenance.environment(), 'rounds': arguments.rounds, 'rows': rows}
    for name, share in itertools.product(arguments.cases.split(','), arguments.shares.split(',')):
      rows.append(measure(name, float(share), arguments.rounds, arguments.seconds))
      file.write_text(json.dumps(report, indent=2) + '\n')  # a later row may fail
  (arguments.out / 'README.md').write_text(page(json.loads(file.read_text())))


if __name__ == '__main__':
  main()
