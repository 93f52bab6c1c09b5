"""Measures what an epoch of each config takes on this machine, and puts the table into the README.

python results/epoch_times.py [--data=DIR]

A few steps are timed after the first, which compiles, and scaled to an epoch of the training split;
evaluation comes on top. One process trains at a time.
"""

import argparse
import importlib
import json
import pathlib
import statistics
import sys
import time

import jax

from sparsejax import models
from sparsejax.experiment import augment, compilation, parallel, runs, setup, state, steps

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
CALLS, MIN_SECONDS = 3, 1.0


def measure(name: str, data_dir: str | None) -> dict:
  """Returns the median time of a step and what follows from it for an epoch."""
  module, _, argument = name.partition(':')
  get_config = importlib.import_module(f'configs.{module}').get_config
  config = (get_config(argument) if argument else get_config()).to_dict()
  config['data']['dir'] = data_dir
  experiment = setup.build(config)
  clock = experiment.clock
  step = steps.make_train_step(
    experiment.model,
    experiment.tx,
    experiment.preprocessing,
    batch_size=clock.batch_size,
    steps_per_epoch=clock.steps_per_epoch,
  )
  run = parallel.train_calls(step, convolutional=models.has_convolutions(experiment.model))
  train = parallel.replicate(state.initial(experiment.init_variables(), experiment.tx, 0)).train
  data = setup.on_devices(experiment.dataset.train)
  order = parallel.replicate(augment.epoch_permutation(train.key, 0, clock.examples))
  train, first = _time(run, train, data, order, 1)
  train, rough = _time(run, train, data, order, 1)
  count = max(1, min(round(MIN_SECONDS / rough), clock.steps_per_epoch))
  times = []
  for _ in range(CALLS):
    train, seconds = _time(run, train, data, order, count)
    times.append(seconds / count)
  step_seconds = statistics.median(times)
  return {
    'config': name,
    'model': config['model']['name'],
    'batch_size': clock.batch_size,
    'step_seconds': step_seconds,
    'examples_per_second': clock.batch_size / step_seconds,
    'epoch_seconds': step_seconds * clock.steps_per_epoch,
    'compile_seconds': first - step_seconds,
  }


def _time(run, train, data, order, count):
  begun = time.monotonic()
  for new, _ in run(train, data, order, count):
    train = new
  jax.block_until_ready(train)
  return train, time.monotonic() - begun


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
  parser.add_argument('--data', help='of tensorflow-datasets; default: its own')
  sys.path.insert(0, str(ROOT))  # the configs are no package that could be installed
  compilation.use_cache()
  data_dir = parser.parse_args().data
  rows = []
  for name in CONFIGS:
    rows.append(measure(name, data_dir))
    print(table(rows)[-1], flush=True)
  environment = runs.environment()
  content = {'environment': environment, 'rows': rows}
  (ROOT / 'results' / 'epoch_times.json').write_text(json.dumps(content, indent=2) + '\n')
  readme = ROOT / 'README.md'
  before, _, rest = readme.read_text().partition(BEGIN)
  after = rest.partition(END)[2]
  machine = (
    f'Measured by `python results/epoch_times.py` on {environment["cpus"]} cores of '
    f'{environment["processor"]}, JAX {environment["versions"]["jax"]}, float32; '
    'the machine is shared, and the same step took up to 1.5 times less at other moments.'
  )
  readme.write_text('\n'.join([before + BEGIN, machine, '', *table(rows), END]) + after)


if __name__ == '__main__':
  main()
