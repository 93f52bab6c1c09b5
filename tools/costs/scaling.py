"""Measures how training steps scale over devices and processes, and checks that results agree.

python -m tools.costs.scaling [--models=lenet300,lenet5,vgg16] [--data=DIR] [--workdir=DIR]
    [--out=DIR]

Every device gets a batch of the same size, on one device and on eight (weak scaling); each place
trains with `launch.py`, several times in turns. The times come from windows of metrics.jsonl
without a validation; the first window includes the compilation and is left out. Then shorter runs
with the same whole batch on one device, on eight and on two processes of four are compared loss by
loss, and the bytes that a step averages are predicted from the parameters and read from each
compiled program.

A finished run below --workdir is not run again. The program writes scaling.json, and README.md from
it. Exit status: 1 if the losses or the bytes disagree.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from sparsejax.benchmarks import programs, traffic
from sparsejax.experiment.config import commandline
from sparsejax.experiment.machine import compilation, files, provenance, threads
from sparsejax.experiment.rundir import metrics
from sparsejax.experiment.training import setup
from sparsejax.reports.text.markdown import table
from tools import ROOT
from tools.costs import places
from tools.costs.places import Place

ONE = Place('1 device', processes=1, devices=1, shares=1)
EIGHT = Place('8 devices', processes=1, devices=8, shares=8)
TWO_OF_FOUR = Place('2 processes of 4', processes=2, devices=4, shares=8)
WHOLE = Place('1 device, the batch of 8', processes=1, devices=1, shares=8)
PLACES = (
  ONE,
  Place('2 devices', processes=1, devices=2, shares=2),
  Place('4 devices', processes=1, devices=4, shares=4),
  EIGHT,
  TWO_OF_FOUR,
  WHOLE,
)
COMPARED_STEPS, ALIKE_STEPS = 20, 10
ALIKE = 1e-4  # relative; float32 sums differ in order, until a unit turns on in one run only


class Case(NamedTuple):
  """A dense network to be trained. Its numbers are powers of two, so that windows divide epochs.

  Attributes:
    arguments: the arguments of launch.py.
    batch_size: examples per step on each device.
    window: steps between two lines of metrics, enough to time.
    examples: examples of an epoch; a multiple of eight batches.
    has_batch_norm: whether its gradients go through differences of large numbers, which rounding
      affects; then only losses before the first update must be equal.
  """

  arguments: tuple[str, ...]
  batch_size: int
  window: int
  examples: int
  has_batch_norm: bool = False


def _lenet(model: str, data: str = 'mnist') -> tuple[str, ...]:
  return (
    '--config=configs/quickstart.py',
    "--config.chain=('add_decayed_weights', 'trace', 'scale_by_learning_rate')",
    '--config.method=dense',
    f'--config.model.name={model}',
    f'--config.data.name={data}',
    '--config.scale_by_learning_rate.learning_rate=0.01',
  )


CASES = {
  'digits': Case(_lenet('lenet300', 'digits'), batch_size=16, window=64, examples=1024),
  'lenet300': Case(_lenet('lenet300'), batch_size=64, window=64, examples=16384),
  'lenet5': Case(_lenet('lenet5'), batch_size=16, window=16, examples=4096),
  'vgg16': Case(
    ('--config=configs/vgg16_dense.py', '--config.model.width=16'),
    batch_size=16,
    window=4,
    examples=4096,
    has_batch_norm=True,
  ),
}


def arguments_of(case: Case, place: Place, data: str | None) -> list[str]:
  """Returns the arguments of launch.py for every run of a case in a place."""
  return [
    *case.arguments,
    f'--config.batch_size={case.batch_size * place.shares}',
    f'--config.data.limit={case.examples}',
    *([f'--config.data.dir={pathlib.Path(data).absolute()}'] if data else []),
  ]


def train(
  case: Case, place: Place, data: str | None, workdir: pathlib.Path, steps: int, every: int, *more
) -> list[dict[str, Any]]:
  """Trains a number of steps with a line every few; evaluates and saves only at the end."""
  epochs = steps * case.batch_size * place.shares / case.examples
  lengths = [
    f'--config.{field}={epochs}'
    for field in ('epochs', 'evaluation.every_epochs', 'log.checkpoint_every_epochs')
  ]
  arguments = [*arguments_of(case, place, data), *lengths, f'--config.log.every_steps={every}']
  places.launch(place, [*arguments, *more], workdir)
  return metrics.read(workdir / files.METRICS)


def rates(lines: Sequence[Mapping[str, Any]]) -> list[float]:
  """Returns the examples per second of the windows that contain only training.

  Example:
    >>> rates([{'examples_per_second': rate} for rate in (1.0, 7.0, 8.0)])
    [7.0, 8.0]
  """
  return [line['examples_per_second'] for line in lines[1:] if 'validation_loss' not in line]


def losses(lines: Sequence[Mapping[str, Any]]) -> list[float]:
  """Returns the training losses of the lines."""
  return [line['train_loss'] for line in lines]


def largest_difference(some: Sequence[float], others: Sequence[float]) -> float:
  """Returns the largest difference between numbers at the same place, relative to the second.

  Example:
    >>> largest_difference([1.0, 3.0], [1.0, 4.0])
    0.25
  """
  return max(abs(a - b) / abs(b) for a, b in zip(some, others, strict=True))


def exchanged(arguments: Sequence[str]) -> dict[str, int]:
  """Returns the bytes that a step of this config averages, predicted and found in the program."""
  compilation.use_cache()
  experiment = setup.build(commandline.resolve(arguments))
  subject = programs.Subject(experiment)
  program = programs.training_step(subject, experiment.tx).lower().compile().as_text()
  return {
    'predicted': traffic.predicted_bytes(subject.variables),
    'found': traffic.found_bytes(program),
  }


def times(
  case: Case, data: str | None, workdir: pathlib.Path, repeats: int, windows: int
) -> list[dict[str, Any]]:
  """Returns a row for each place."""
  found = {place: [] for place in PLACES}
  for turn in range(repeats):
    for place in PLACES:
      path = workdir / f'{place.label.replace(" ", "_").replace(",", "")}.turn{turn}'
      steps = (windows + 2) * case.window  # the first and the last are not counted
      found[place].append(train(case, place, data, path, steps, case.window))
      print(f'  {place.label}: {statistics.median(rates(found[place][-1])):,.0f}/s', flush=True)
  rows = []
  for place, turns in found.items():
    batch_size = case.batch_size * place.shares
    seconds = [batch_size / rate for lines in turns for rate in rates(lines)]
    rows.append(
      {
        'place': place.label,
        **{field: getattr(place, field) for field in ('processes', 'devices', 'shares')},
        'batch_size': batch_size,
        'step_seconds': statistics.median(seconds),
        'spread': [min(seconds), max(seconds)],
        'examples_per_second': batch_size / statistics.median(seconds),
        'train_loss': turns[0][-1]['train_loss'],
        'all_reduce_bytes': places.call(place, exchanged, arguments_of(case, place, data)),
      }
    )
  return with_ratios(rows)


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Adds to each row its step time over the first row's times its shares of the batch."""
  first = rows[0]['step_seconds']
  return [{**row, 'of_ideal': row['step_seconds'] / (row['shares'] * first)} for row in rows]


def compare(case: Case, data: str | None, workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns how far the losses of one whole batch differ between places, step by step."""
  found = {}
  for place in (EIGHT, TWO_OF_FOUR, WHOLE):
    path = workdir / f'{place.label.replace(" ", "_").replace(",", "")}.compared'
    # Otherwise BatchNorm would have other moments on one device than on eight.
    synchronised = '--config.model.sync_batch_norm=True'
    lines = train(case, place, data, path, COMPARED_STEPS, 1, synchronised)
    found[place] = losses(lines)
  return [
    {
      'places': [place.label, other.label],
      'losses': [found[place][-1], found[other][-1]],
      'first_step': largest_difference(found[place][:1], found[other][:1]),
      'alike_steps': largest_difference(found[place][:ALIKE_STEPS], found[other][:ALIKE_STEPS]),
      'all_steps': largest_difference(found[place], found[other]),
    }
    for place, other in ((TWO_OF_FOUR, EIGHT), (EIGHT, WHOLE))
  ]


def disagreements(models: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns a line for everything that disagrees."""
  lines = []
  for model in models:
    for pair in model['compared']:
      difference = pair['first_step' if model['has_batch_norm'] else 'alike_steps']
      if not difference <= ALIKE:
        places_of_pair = ' and '.join(pair['places'])
        lines.append(f'{model["model"]}: {places_of_pair} differ by {difference:.1e}')
    for row in model['rows']:
      predicted, found = row['all_reduce_bytes'].values()
      if row['processes'] * row['devices'] > 1 and predicted != found:
        lines.append(
          f'{model["model"]}: {row["place"]}: {found} bytes averaged, {predicted} predicted'
        )
  return lines


def text_of(report: Mapping[str, Any]) -> str:
  """Returns the page that shows the report."""
  environment, cores = report['environment'], report['environment']['threads']
  lines = [
    '# Several devices and several processes',
    '',
    f'All devices are forced CPU devices that share the {cores} core(s) of this machine, and so do '
    'two processes: more devices can make nothing faster here. Every device gets the same batch, '
    'so ideally, once N exceeds the number of cores, a step on N devices takes N times as long as '
    'on one (one device alone uses all cores only as far as its operations allow). `of ideal` is '
    'the time of a step over N times that of one device: what is above 1 is lost; what is below 1 '
    'is time in which one device alone leaves cores idle, or which every step takes however small '
    'it is. The last row of each table is one device that does the work of eight: it shows what a '
    'larger batch alone changes.',
    '',
    "Bytes are what every device gives to the all-reduces of a step: every gradient, BatchNorm's "
    'averages, loss and accuracy; predicted from the parameters, and found in the compiled '
    'program.',
  ]
  for model in report['models']:
    lines += ['', f'## {model["model"]}, {model["batch_size"]} examples on each device', '']
    lines += table(
      'on | whole batch | a step | examples/s | of ideal | bytes predicted | found | last loss',
      [
        f'{row["place"]} | {row["batch_size"]} | {1000 * row["step_seconds"]:.2f} ms | '
        f'{row["examples_per_second"]:,.0f} | {row["of_ideal"]:.2f} | '
        f'{row["all_reduce_bytes"]["predicted"]:,} | {row["all_reduce_bytes"]["found"]:,} | '
        f'{row["train_loss"]:.6f}'
        for row in model['rows']
      ],
    )
  lines += [
    '',
    '## The same losses',
    '',
    "The whole batch is the same, and BatchNorm's moments are those of all devices. The figures "
    'are relative differences of the training losses: in the first step, before any update; the '
    f'largest in the first {ALIKE_STEPS} steps; and the largest in all {COMPARED_STEPS}. Sums in '
    'another order differ by rounding, until a unit turns on in one run only. With BatchNorm '
    'rounding counts for more: there a variance is a difference of two larger numbers, and every '
    'gradient is divided by its root; then only the first step must agree.',
    '',
  ]
  lines += table(
    f'model | between | first step | first {ALIKE_STEPS} steps | {COMPARED_STEPS} steps | '
    'last losses',
    [
      f'{model["model"]} | {" and ".join(pair["places"])} | {pair["first_step"]:.1e} | '
      f'{pair["alike_steps"]:.1e} | '
      f'{pair["all_steps"]:.1e} | {" and ".join(f"{loss:.7f}" for loss in pair["losses"])}'
      for model in report['models']
      for pair in model['compared']
    ],
  )
  lines += [f'\n**Wrong**: {line}.' for line in disagreements(report['models'])]
  lines += [
    '',
    f'Made by `python -m tools.costs.scaling`: medians of {report["windows"]} windows in each of '
    f'{report["repeats"]} run(s); {environment["time"][:10]}, commit '
    f'{environment["git_commit"][:7]}; {cores} core(s) of {environment["processor"]}, load '
    f'{environment["load_average"]:.1f} at the start, Python {environment["python"]}, '
    f'JAX {environment["versions"]["jax"]}, float32.',
  ]
  return '\n'.join(lines) + '\n'


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', help='some of ' + ', '.join(CASES))
  parser.add_argument('--data', help='the folder of data sets; without it only the digits train')
  parser.add_argument('--workdir', type=pathlib.Path, help='for the runs; default: a temporary one')
  parser.add_argument('--out', type=pathlib.Path, default=ROOT / 'results' / 'scaling')
  parser.add_argument('--repeats', type=int, default=2, help='runs in each place, in turns')
  parser.add_argument('--windows', type=int, default=8, help='timed windows in each run')
  arguments = parser.parse_args()
  usual = [name for name in CASES if bool(arguments.data) == (name != 'digits')]
  names = arguments.models.split(',') if arguments.models else usual
  jax.config.update('jax_platforms', 'cpu')
  where = {'threads': threads.available(), 'load_average': os.getloadavg()[0]}
  counts = {'repeats': arguments.repeats, 'windows': arguments.windows}
  report = {'environment': provenance.environment() | where, **counts, 'models': []}
  with tempfile.TemporaryDirectory() as temporary:
    workdir = (arguments.workdir or pathlib.Path(temporary)).absolute()
    for name in names:
      print(name, flush=True)
      case = CASES[name]
      rows = times(case, arguments.data, workdir / name, **counts)
      compared = compare(case, arguments.data, workdir / name)
      report['models'].append({'model': name, **case._asdict(), 'rows': rows, 'compared': compared})
  arguments.out.mkdir(parents=True, exist_ok=True)
  files.write_json(arguments.out / 'scaling.json', report)
  (arguments.out / 'README.md').write_text(text_of(report))
  wrong = disagreements(report['models'])
  print(*wrong, sep='\n', file=sys.stderr)
  return bool(wrong)


if __name__ == '__main__':
  sys.exit(main())
