"""Ships a finished run: a smaller network in one small file, with its accuracy, bytes and latency.

python -m sparsejax.ship --run=RUN --out=DIR [--bits=4 | --bits=conv=8,.*=5 | --bits=auto]

--run=DIR            a finished run
--out=DIR            the folder to write: a new or an empty one
--bits=N             the weights of each layer share 2^N values, N from 1 to 8;
                     PATTERN=N,PATTERN=N gives bits by layer; auto chooses the fewest bits from 2 to
                     8 within the tolerance. Without this flag weights share no values
--tolerance=0.005    the validation accuracy that auto may lose, from 0 to 1
--epochs=N           trains the shared values for N epochs on the run's data, with Adam
--learning_rate=1e-4 the learning rate of Adam
--format=LIST        a comma-separated list of file, onnx, stablehlo and safetensors; file is always
                     written. With onnx the installed ONNX runtimes are timed too
--rounds=7           the number of rounds in which the networks are timed
--data_dir=DIR       the folder of tensorflow-datasets, if it is not the one in the run's config
--parts=FILE         a Python file that registers parts of your own that the run uses

DIR/model.sparse is the model file, for sparsejax.shipping.load. It is read back, and the network in
it is measured on the validation split and, once, on the test split. DIR/shipped.json has all
measurements, with the run and the environment. DIR is created only when everything is written.

Exit status: 0 finished, 2 for invalid flags or a run that cannot be shipped, 128 plus the number of
the signal after a signal, 1 otherwise.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from sparsejax.experiment.terminal import extras
from sparsejax.experiment.terminal.say import complain, say, say_lines
from sparsejax.internal import signals

if TYPE_CHECKING:
  from sparsejax.delivery.request import Request

FINISHED, CRASHED, USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  if any(argument in ('--help', '-h') for argument in argv[1:]):
    say_lines(__doc__)
    return FINISHED
  from sparsejax.delivery import request
  from sparsejax.experiment.terminal import logs
  from sparsejax.experiment.terminal.errors import UnreadableError, UsageError

  try:
    options = request.read(argv[1:])
    logs.show_warnings()
    with signals.handled(_exit_on_signal):  # raises, so that incomplete files are removed
      _ship(options)
  except UsageError as error:
    return _fail(USAGE, error)
  except (UnreadableError, OSError) as error:
    return _fail(CRASHED, error)
  return FINISHED


def _ship(request: 'Request') -> None:
  """Writes the shipment and prints its tables; a folder with the same shipment is only shown."""
  # These imports take seconds; errors in the flags were reported before them.
  from sparsejax.delivery import figures, folder, shipment, source
  from sparsejax.experiment.machine import allocator, compilation, files, threads
  from sparsejax.experiment.terminal.errors import UsageError, in_one_line

  allocator.keep_freed_memory()
  threads.serve_devices(os.environ)
  compilation.use_cache()
  run = source.read(request.run, data_dir=request.data_dir, parts=request.parts)
  identity = shipment.identify(run, request)
  existing = folder.read_existing(request.out, identity)
  if existing is None:
    figures.print_tables(shipment.ship(run, request, identity))
    return
  try:
    figures.tables(existing)
  except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
    raise UsageError(
      f'--out={request.out}: its {files.SHIPPED} is damaged ({in_one_line(error)}); {folder.EMPTY}'
    ) from error
  say(f'{request.out} already holds this shipment; nothing is written.')
  figures.print_tables(existing)


def _fail(status: int, error: Exception) -> int:
  """Prints an error in one line; returns the exit status."""
  from sparsejax.experiment.terminal.errors import in_one_line

  complain(f'ship: {in_one_line(error)}')
  return status


def _exit_on_signal(number: int, frame: object) -> NoReturn:
  """Exits with 128 plus the number of the signal."""
  del frame
  complain(f'ship: {signal.Signals(number).name}; nothing is written')
  raise SystemExit(128 + number)


if __name__ == '__main__':
  sys.exit(extras.explained(main, sys.argv))
