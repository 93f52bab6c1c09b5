"""Measures the training step of a config, against the machine and against PyTorch.

python -m sparsejax.benchmark --config=configs/NAME.py[:ARGUMENT] [--config.field=value ...]

--against=torch       also times the same network in PyTorch, in turns with ours
--torch-python=PATH   the Python that has PyTorch; default: the one that runs this command
--out=FILE.json       also writes the figures to this file
--plain               times on CPU what an accelerator gets, XLA's own convolution and pooling, and
                      leaves freed memory to the C library, as other programs do
--profile=DIR         writes a trace of three steps, for Perfetto or TensorBoard
--rounds=N            the number of rounds (7); the figures are medians over them

The command prints one JSON object. `utilisation` is the share of the machine's own rate of matrix
products, `chain_overhead` the time of a step over that of a step without sparsity transformations,
and `ratio` our examples per second over those of the fastest of PyTorch's four variants.

Exit status: 0 finished, 2 if this cannot be measured as asked, 128 plus the signal's number after a
signal, 1 otherwise.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from sparsejax.experiment import command
from sparsejax.experiment.terminal.say import complain, say_lines


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  # Otherwise JAX would take three quarters of a GPU's memory and leave PyTorch too little.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  from sparsejax.benchmarks.peer import PeerError

  return command.run(
    'benchmark',
    argv,
    text=lambda: __doc__,
    read=_arguments,
    act=_benchmark,
    folder=lambda arguments: arguments.out,
    left='nothing is written',
    failures=(PeerError, OSError),
  )


def _benchmark(arguments: argparse.Namespace) -> None:
  """Prints the figures, and writes them if --out is given."""
  from sparsejax.cpu_conv import choice
  from sparsejax.experiment.machine import files

  command.set_up_process(keep_memory=not arguments.plain)  # as the launch command does
  _keep_processor()
  with choice.plain() if arguments.plain else contextlib.nullcontext():
    figures = benchmark(arguments)
  say_lines(json.dumps(figures, indent=2))
  if arguments.out is not None:
    files.write_json(arguments.out, figures)


def _keep_processor() -> None:
  """Makes JAX see the CPU besides the chosen platforms, because operations are counted there.

  Raises:
    UsageError: the chosen platform does not exist, so that the CPU would silently replace it.
  """
  import jax  # it has read JAX_PLATFORMS already, since this package imports it

  from sparsejax.experiment.terminal.errors import UsageError

  config: Any = jax.config  # JAX adds its flags at import, where ty does not see them
  platforms = config.jax_platforms
  if platforms and 'cpu' not in platforms.split(','):
    config.update('jax_platforms', f'{platforms},cpu')
    if jax.default_backend() == 'cpu':
      raise UsageError(f'JAX_PLATFORMS={platforms}: JAX finds no such device; give cpu')


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
  """Returns the command's own arguments, with the config's arguments as `config`.

  Raises:
    UsageError: an argument is unknown or impossible.
  """
  from sparsejax.experiment.terminal.arguments import Parser, folder
  from sparsejax.experiment.terminal.errors import UsageError

  parser = Parser(prog='benchmark', add_help=False, allow_abbrev=False)
  parser.add_argument('--against', choices=('torch',))
  parser.add_argument('--torch-python', default=sys.executable)
  parser.add_argument('--out')
  parser.add_argument('--plain', action='store_true')
  parser.add_argument('--profile')
  parser.add_argument('--rounds', type=int, default=7)
  arguments, rest = parser.parse_known_args(argv)
  stray = [argument for argument in rest if not re.match(r'--(no)?config[.=]', argument)]
  if stray:
    raise UsageError(f"unexpected argument '{stray[0]}': --help lists those allowed")
  if arguments.rounds < 1:
    raise UsageError(f'--rounds={arguments.rounds} must be 1 or more')
  if arguments.profile is not None:
    arguments.profile = folder('--profile', arguments.profile)
  if arguments.out is not None:
    arguments.out = folder('--out', arguments.out, 'file')
  out = arguments.out
  if out is not None and (out.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK)):
    raise UsageError(f'--out={out} must be a writable file in an existing folder')
  arguments.config = rest
  return arguments


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the figures.

  Raises:
    UsageError: this cannot be measured; nothing has been compiled or written.
    PeerError: PyTorch's process ended too early.
  """
  from sparsejax.benchmarks import peer, programs, step_figures
  from sparsejax.experiment.config import commandline
  from sparsejax.experiment.machine import threads
  from sparsejax.experiment.terminal.errors import UsageError
  from sparsejax.experiment.training import setup

  settings = commandline.resolve(arguments.config)
  try:
    experiment = setup.build(settings)
  except ValueError as error:
    raise UsageError(str(error)) from error
  try:
    if arguments.profile is not None:
      arguments.profile.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    where = arguments.profile
    raise UsageError(f'--profile={where}: {error.strerror}; it must be a writable folder') from None
  options: dict[str, Any] = dict(count=arguments.rounds, profile=arguments.profile, note=complain)
  if arguments.against is None:
    return step_figures.measure(experiment, **options)
  chain = programs.bare_chain(experiment.config)
  cores = threads.available()
  with (
    command.leaving_on_signals('benchmark'),  # the end of the block also ends PyTorch's process
    peer.Peer(arguments.torch_python, experiment, chain, cores) as torch,
  ):
    return step_figures.measure(experiment, peer=torch, **options)


if __name__ == '__main__':
  sys.exit(command.guarded(main, sys.argv))
