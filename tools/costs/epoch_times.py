"""Measures how long an epoch of each config takes here, and puts the table into the README.

python -m tools.costs.epoch_times [--data=DIR]

A few steps after the first, which compiles, are timed and scaled to an epoch of the training split;
evaluation is not included. One process trains at a time.
"""

import argparse
import json
import statistics

from sparsejax.benchmarks import programs
from sparsejax.benchmarks.step_figures import timed_compilation
from sparsejax.experiment.config import commandline
from sparsejax.experiment.machine import compilation, provenance
from sparsejax.experiment.training import setup
from sparsejax.internal import timing
from tools import ROOT

CONFIGS = (
  'quickstart',
  'lenet300_dc',
  'lenet5_dc',
  'allconv_dense',
  'butterfly_resnet18',
  'butterfly_resnet18:general',
  'mobilenet_dense',
  'vgg16_dense',
  'resnet50_dense',
)
BEGIN, END = '<!-- epoch times: begin -->', '<!-- epoch times: end -->'
CALLS, SECONDS = 3, 1.0


def measure(name: str, data_dir: str | None) -> dict:
  """Returns the median time of a step, and the time of an epoch that follows from it."""
  module, colon, argument = name.partition(':')
  config = commandline.resolve([f'--config={ROOT}/configs/{module}.py{colon}{argument}'])
  config['data']['dir'] = data_dir
  experiment = setup.build(config)
  step = programs.training_step(programs.Subject(experiment), experiment.tx)
  _, compile_seconds = timed_compilation(step)
  times = timing.alternate({'step': step}, rounds=CALLS, seconds=SECONDS)
  step_seconds, clock = statistics.median(times['step']), experiment.clock
  return {
    'config': name,
    'model': config['model']['name'],
    'batch_size': clock.batch_size,
    'step_seconds': step_seconds,
    'examples_per_second': clock.batch_size / step_seconds,
    'epoch_seconds': step_seconds * clock.steps_per_epoch,
    'compile_seconds': compile_seconds,
  }


def table(rows: list[dict]) -> list[str]:
  """Returns the rows as a table in Markdown."""
  lines = ['| config | batch | a step | examples/s | an epoch |', '|---|---|---|---|---|']
  for row in rows:
    epoch = row['epoch_seconds']
    lines.append(
      f'| {row["config"]} | {row["batch_size"]} | {1000 * row["step_seconds"]:.1f} ms | '
      f'{row["examples_per_second"]:,.0f} | '
      f'{f"{epoch:.1f} s" if epoch < 100 else f"{epoch / 60:.0f} min"} |'
    )
  return lines


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--data', help='the folder of tensorflow-datasets; default: its own')
  compilation.use_cache()
  data_dir = parser.parse_args().data
  rows = []
  for name in CONFIGS:
    rows.append(measure(name, data_dir))
    print(table(rows)[-1], flush=True)
  environment = provenance.environment()
  content = {'environment': environment, 'rows': rows}
  (ROOT / 'results' / 'costs' / 'epoch_times.json').write_text(json.dumps(content, indent=2) + '\n')
  readme = ROOT / 'README.md'
  before, _, rest = readme.read_text().partition(BEGIN)
  after = rest.partition(END)[2]
  machine = (
    f'Measured by `python -m tools.costs.epoch_times` on {environment["cpus"]} cores of '
    f'{environment["processor"]}, JAX {environment["versions"]["jax"]}, float32; '
    'the machine is shared, and at other moments the same step was up to 1.5 times faster.'
  )
  readme.write_text('\n'.join([before + BEGIN, machine, '', *table(rows), END]) + after)


if __name__ == '__main__':
  main()
