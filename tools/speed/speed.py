"""Measures the training step of five networks, before and after, against PyTorch's, and a start.

python -m tools.speed.speed --torch-python=PYTHON [--data=DIR] [--device=gpu] [--only=EXPRESSION]

Every row is `python -m sparsejax.benchmark` in its own process: against PyTorch, and for most rows
again with `--plain`, the ordinary layers as XLA compiles them on CPU. Rows for a processor with
other vectors are left out and named. `--only=startup` measures only the time to import the library
and to make a run's first step. Rows that are already in results/speed are not measured again, so
the command can be killed and started again; remove a file to measure it again. README.md there is
made only from these files and `ROWS` (`--collect` makes it without measuring).
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from sparsejax.experiment.machine import files, provenance
from tools import ROOT
from tools.pages import kept
from tools.speed import speed_page, startup
from tools.speed.speed_page import FOLDER, PLAIN, ROWS, STARTUP, Row

# JAX's platforms: a missing GPU must be an error, and on CPU a GPU may exist as well.
PLATFORMS = {'cpu': 'cpu', 'gpu': 'cuda'}
LEFT_OUT = ('timed', 'program_flops', 'width', 'layers')
DIGITS = 4


def measure(row: Row, arguments: argparse.Namespace, *, plain: bool) -> bool:
  """Runs the benchmark of a row and keeps its figures; returns whether it ended well."""
  target = FOLDER / f'{row.name}{PLAIN if plain else ""}.json'
  if target.exists():
    return True
  rounds = min(arguments.rounds, row.rounds)
  command = [sys.executable, *row.command(), f'--rounds={rounds}']
  command += [f'--config.data.dir={pathlib.Path(arguments.data).absolute()}'] * bool(arguments.data)
  if plain:
    command += ['--plain']
  elif row.has_peer:
    command += ['--against=torch', f'--torch-python={arguments.torch_python}']
  print(target.stem, *command[1:], flush=True)
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder, 'figures.json')
    environment = os.environ | {'JAX_PLATFORMS': PLATFORMS[row.device]}
    done = subprocess.run(
      [*command, f'--out={out}'], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    if done.returncode == 0:
      FOLDER.mkdir(exist_ok=True)
      files.write_json(target, thin(kept.read(out)))
  return done.returncode == 0


def measure_startup(rounds: int) -> bool:
  """Measures how fast a process starts; returns whether that ended well."""
  target = FOLDER / f'{STARTUP}.json'
  if target.exists():
    return True
  print(STARTUP, flush=True)
  try:
    figures = startup.measure(rounds)
  except subprocess.CalledProcessError as error:
    print(error, file=sys.stderr)
    return False
  FOLDER.mkdir(exist_ok=True)
  files.write_json(target, thin(figures))
  return True


def thin(figures):
  """Returns the part of a benchmark's figures to keep, with times and rates to four digits.

  Example:
    >>> thin({'step_seconds': 0.123456, 'memory': {'peak_bytes': 123456}, 'timed': 'what'})
    {'step_seconds': 0.1235, 'memory': {'peak_bytes': 123456}}
  """
  if isinstance(figures, dict):
    return {name: thin(value) for name, value in figures.items() if name not in LEFT_OUT}
  if isinstance(figures, list):
    return [thin(value) for value in figures]
  return float(f'{figures:.{DIGITS}g}') if isinstance(figures, float) else figures


def measure_all(arguments: argparse.Namespace) -> bool:
  """Measures the chosen rows, writing the page after each; returns whether all ended well."""
  all_well = True
  if arguments.device == 'cpu' and re.search(arguments.only, STARTUP):
    all_well &= measure_startup(arguments.rounds)
    speed_page.write()
  processor = provenance.processor()
  for row in ROWS:
    if row.device != arguments.device or not re.search(arguments.only, row.name):
      continue
    if not row.runs_on(arguments.device, processor):
      print(f'{row.name}: for a processor with {row.vectors}, not {processor}')
      continue
    for plain in row.plain_too():
      all_well &= measure(row, arguments, plain=plain)
      speed_page.write()
  return all_well


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--torch-python', default=sys.executable, help='the Python that has PyTorch')
  parser.add_argument('--data', help='the folder of tensorflow-datasets; default: its own')
  parser.add_argument('--device', choices=PLATFORMS, default='cpu', help='the device of the rows')
  parser.add_argument('--only', default='', help='a regular expression for the rows')
  parser.add_argument('--rounds', type=int, default=7, help='at most this many')
  parser.add_argument('--collect', action='store_true', help='make only the page')
  arguments = parser.parse_args()
  all_well = arguments.collect or measure_all(arguments)
  speed_page.write()
  sys.exit(not all_well)


if __name__ == '__main__':
  main()
