"""Measures how much faster zeros make networks and single layers on CPU, sparse against dense.

python -m tools.costs.sparse_cpu [--cores=1] [--only=lenet300,vgg16,layers] [--rounds=15]

Both functions of a row are timed in alternating rounds in one process. Weights are random numbers
with zeros at random positions, since the speed of a layer depends only on which are zero. The
figures are written to results/cpu_sparse/, one file for each number of cores, and the page there is
generated from them.
"""

import argparse
import json
import os
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax import models
from sparsejax.cpu_sparse import sparse_apply
from sparsejax.experiment.machine import allocator, provenance
from sparsejax.internal.timing import alternate, median_ratio, repeated
from tools.costs import sparse_cpu_page

NETWORKS = (  # name, batch, sparsity
  *(('lenet300', batch, 1 - 1 / 56) for batch in (1, 64, 1024)),
  *(('vgg16', 16, sparsity) for sparsity in (0.9, 0.95, 0.99)),
)
IMAGES = {'lenet300': (28, 28, 1), 'vgg16': (32, 32, 3)}
LAYERS = (  # kernel, image, batch
  *(((784, 300), (784,), batch) for batch in (1, 64, 1024)),
  *(((1024, 1024), (1024,), batch) for batch in (1, 64)),
  ((1, 1, 256, 256), (16, 16, 256), 16),
  ((3, 3, 64, 64), (32, 32, 64), 16),
  ((3, 3, 128, 128), (16, 16, 128), 1),
  ((3, 3, 128, 128), (16, 16, 128), 16),
  ((3, 3, 512, 512), (4, 4, 512), 16),
)
SPARSITIES = 0.5, 0.7, 0.8, 0.9, 0.95, 0.99
BLOCK = 0.05  # seconds that each function is timed for in a round


def drawn(shape: Sequence[int], sparsity: float) -> np.ndarray:
  """Returns numbers of variance 2 / inputs, of which a share is zero."""
  rng = np.random.default_rng(0)
  numbers = rng.normal(size=shape) * (rng.random(shape) >= sparsity)
  return (numbers * np.sqrt(2 / ((1 - sparsity) * np.prod(shape[:-1])))).astype(np.float32)


def pruned(variables: Any, sparsity: float) -> Any:
  """Returns variables of which every kernel is sparse, the classifier's too."""
  return jax.tree.map(
    lambda x: drawn(x.shape, sparsity) if x.ndim > 1 else np.asarray(x), variables
  )


def network(name: str, batch: int, sparsity: float, rounds: int) -> dict[str, Any]:
  """Times a network, sparse and dense, within `jax.jit`."""
  model, shape = models.create(name), IMAGES[name]
  init = jax.jit(lambda key: model.init(key, jnp.zeros((1, *shape)), train=False))
  variables = pruned(init(jax.random.key(0)), sparsity)

  def function(variables, x):
    return model.apply(variables, x, train=False)

  x = jnp.asarray(drawn((batch, *shape), 0.0))
  begun = time.perf_counter()
  made = sparse_apply(function, variables, x)
  seconds = time.perf_counter() - begun
  placed = jax.tree.map(jnp.asarray, variables)
  sparse, dense = jax.jit(lambda x: made(x)), jax.jit(function)
  timed = {'sparse': repeated(lambda: sparse(x)), 'dense': repeated(lambda: dense(placed, x))}
  found = alternate(timed, rounds=rounds, seconds=BLOCK, note=print)
  return {
    'network': name,
    'batch': batch,
    'sparsity': sparsity,
    'make_seconds': seconds,
    'layers': [(layer.name, layer.implementation, dict(layer.seconds)) for layer in made.layers],
    **_figures(found),
  }


def _figures(found: dict[str, list[float]]) -> dict[str, Any]:
  """The median of each, the median ratio, and the smallest and largest of the rounds."""
  ratios = [d / s for d, s in zip(found['dense'], found['sparse'], strict=True)]
  return {
    'seconds': {name: statistics.median(times) for name, times in found.items()},
    'speedup': median_ratio(found['dense'], found['sparse']),
    'spread': [min(ratios), max(ratios)],
    'rounds': len(ratios),
  }


def layer(kernel: Sequence[int], image: Sequence[int], batch: int) -> dict[str, Any]:
  """Returns the seconds of a layer's implementations by sparsity, timed by `sparse_apply`."""
  x = jnp.asarray(drawn((batch, *image), 0.0))
  rows = []
  for sparsity in SPARSITIES:
    made = sparse_apply(_product, drawn(kernel, sparsity), x)
    [choice] = made.layers
    rows.append({'sparsity': sparsity, 'seconds': dict(choice.seconds)})
    print(kernel, batch, rows[-1])
  return {'kernel': list(kernel), 'image': list(image), 'batch': batch, 'rows': rows}


def _product(kernel, x):
  if kernel.ndim == 2:
    return x @ kernel
  numbers = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=numbers)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--cores', type=int, default=1)
  parser.add_argument('--only', default='lenet300,vgg16,layers')
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--out', type=pathlib.Path, default=sparse_cpu_page.FOLDER)
  arguments = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])  # before JAX begins
  allocator.keep_freed_memory()
  only = arguments.only.split(',')
  report = {
    'environment': provenance.environment(),
    'cores': arguments.cores,
    'networks': [network(*row, arguments.rounds) for row in NETWORKS if row[0] in only],
    'layers': [layer(*row) for row in LAYERS] if 'layers' in only else [],
  }
  arguments.out.mkdir(parents=True, exist_ok=True)
  path = arguments.out / f'{arguments.cores}_cores.json'
  path.write_text(json.dumps(report, indent=2) + '\n')
  sparse_cpu_page.write(arguments.out)


if __name__ == '__main__':
  main()
