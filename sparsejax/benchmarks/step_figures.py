"""The figures of a benchmark: everything is timed in turns; the figures follow from the medians."""

import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from sparsejax.benchmarks import memory, programs, traffic
from sparsejax.benchmarks.peer import Peer
from sparsejax.benchmarks.programs import Repeated, Subject
from sparsejax.cpu_conv import choice
from sparsejax.experiment.machine import compilation, parallel, provenance, threads
from sparsejax.experiment.training.setup import Experiment
from sparsejax.internal import timing

TIMED = (
  'training steps on data that lie on the device: batch, augmentation and normalisation included, '
  'for both alike'
)
BLOCK_SECONDS = 0.5
PROFILED_STEPS = 3


def measure(
  experiment: Experiment,
  *,
  peer: Peer | None = None,
  count: int = 7,
  profile: pathlib.Path | None = None,
  note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
  """Returns every figure of the experiment's training step on this machine.

  Args:
    experiment: the built config.
    peer: the same network in another framework, already started; its steps are timed in turns
      with ours.
    count: the number of rounds.
    profile: a folder for a trace of some steps.
    note: receives each line of progress.
  """
  where = description(experiment)
  subject = Subject(experiment)
  flops = programs.step_flops(subject)
  step = programs.training_step(subject, experiment.tx)
  note('compiling')
  compiled, compile_seconds = timed_compilation(step)
  held = memory.peak_during(lambda: step(1))
  timed = {'step': step} | programs.bare_optimizer(subject)
  if peer is not None:
    note('compiling in PyTorch')
    peer.prepare()
    timed |= {variant: peer.timed(variant) for variant in peer.variants}
    where['environment']['torch'] = peer.version
  product, product_flops = programs.matrix_product(experiment.config['model']['dtype'])
  timed |= programs.parts(subject) | {'product': product}
  times = timing.alternate(timed, rounds=count, seconds=BLOCK_SECONDS, note=note)
  if profile is not None:
    with jax.profiler.trace(str(profile), create_perfetto_trace=True):
      step(PROFILED_STEPS)
  figures = speeds(
    times,
    batch_size=experiment.clock.batch_size,
    flops=flops,
    product_flops=product_flops,
    peers=peer.variants if peer else (),
  )
  return figures | {
    'compile_seconds': compile_seconds,
    'peak_bytes': held['peak_bytes'],
    'peer_failures': peer.failures if peer else {},
    'memory': memory.planned(compiled) | held,
    'all_reduce_bytes': {
      'predicted': traffic.predicted_bytes(subject.variables),
      'found': traffic.found_bytes(compiled.as_text()),
    },
    # In the compiled program the body of a loop counts once, as does each branch of a condition.
    'program_flops': compiled.cost_analysis().get('flops'),
    'rounds': count,
    'timed': TIMED,
    **where,
  }


def speeds(
  times: Mapping[str, Sequence[float]],
  *,
  batch_size: int,
  flops: float,
  product_flops: float,
  peers: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns the figures that follow from the times, with None for those measured elsewhere.

  Args:
    times: the seconds in each round of `step`, `forward`, `gradient` (both passes), `chain`,
      `product` and the peers; and, if the chain has sparsity transformations, of `bare_step` and
      `bare_chain`, which lack them.
    batch_size: examples per step.
    flops: operations of a step.
    product_flops: operations of a matrix product.
    peers: the names of the other framework's variants.
  """
  medians = {name: statistics.median(of_rounds) for name, of_rounds in times.items()}
  rate = batch_size / medians['step']
  achieved, attainable = flops / medians['step'], product_flops / medians['product']
  peer_rates = {name: batch_size / medians[name] for name in peers}
  best = max(peer_rates.values(), default=None)
  return {
    'examples_per_second': rate,
    'step_seconds': medians['step'],
    'compile_seconds': None,
    'flops_per_example': flops / batch_size,
    'achieved_flops': achieved,
    'matmul_flops': attainable,
    'utilisation': achieved / attainable,
    'chain_overhead': timing.median_ratio(times['step'], times.get('bare_step', times['step'])),
    'peak_bytes': None,
    'peer_examples_per_second': best,
    'ratio': best and rate / best,
    'peers': peer_rates,
    'parts': {
      'forward_seconds': medians['forward'],
      'backward_seconds': medians['gradient'] - medians['forward'],
      'chain_seconds': medians['chain'],
      'bare_chain_seconds': medians.get('bare_chain', medians['chain']),
    },
    'spread': {name: [min(of_rounds), max(of_rounds)] for name, of_rounds in times.items()},
  }


def timed_compilation(step: Repeated) -> tuple[Any, float]:
  """Returns the compiled program of a step, and the seconds to trace and compile it, uncached."""
  with compilation.cache_disabled():
    begun = time.perf_counter()
    compiled = step.lower().compile()
    return compiled, time.perf_counter() - begun


def description(experiment: Experiment) -> dict[str, Any]:
  """Returns the settings and the environment of a measurement.

  It is called before measuring, so that the load average is that of other programs.
  """
  config = experiment.config
  environment = {'threads': threads.available(), 'load_average': os.getloadavg()[0]}
  return {
    'config': config['name'],
    'model': config['model']['name'],
    'width': experiment.model.width,
    'layers': config['layers'],
    'plain': choice.is_plain(),
    'chain': list(config['chain']),
    'dtype': config['model']['dtype'],
    'batch_size': config['batch_size'],
    'examples': experiment.clock.examples,  # on the devices
    'devices': parallel.device_count(),
    'environment': provenance.environment() | environment,
  }
