"""Ships a finished run: its smaller network in one small file, with measured figures.

python -m sparsejax.ship --run=RUN --out=DIR [--bits=4 | --bits=conv=8,.*=5 | --bits=auto]

--run=DIR            a finished run
--out=DIR            the folder to write: a new or an empty one
--bits=N             the weights of each layer share 2^N values, 1 to 8; PATTERN=N,PATTERN=N by
                     layer; auto: the fewest bits of 2 to 8 that validation allows. Without it every
                     weight keeps its own value
--tolerance=0.005    the share of validation accuracy that auto may lose
--epochs=N           trains the shared values for N epochs on the run's data, by Adam
--learning_rate=1e-4 of Adam
--format=LIST        file, onnx, stablehlo, safetensors, with commas; file is always written, and
                     its figures are shown. What runs ONNX here is timed too
--rounds=7           how often each network is timed
--data_dir=DIR       the folder of tensorflow-datasets, if it is not the run's own
--parts=FILE         the Python file that registers your own parts that the run uses

DIR/model.sparse is the model file, which sparsejax.shipping.load reads. It is read back before it
is measured: on the validation split and, once, on the test split. DIR/shipped.json has every figure
and where it comes from. DIR appears when all of it is there.

Exit status: 0 finished, 2 if this cannot be shipped as asked, 128 plus the signal's number after a
signal, 1 otherwise.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from sparsejax.experiment.terminal import extras
from sparsejax.experiment.terminal.say import complain, say, say_lines
from sparsejax.internal import signals

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
    asked = request.read(argv[1:])
    logs.show_warnings()
    with signals.handled(_leave):  # the end of the block takes away what is half written
      _ship(asked)
  except UsageError as error:
    return _fail(USAGE, error)
  except (UnreadableError, OSError) as error:
    return _fail(CRASHED, error)
  return FINISHED


def _ship(asked) -> None:
  # These imports take seconds, so mistakes that need none of them were reported above.
  from sparsejax.delivery import figures, folder, shipment, source
  from sparsejax.experiment.machine import allocator, compilation, threads
  from sparsejax.experiment.terminal.errors import UsageError, in_one_line

  allocator.keep_freed_memory()
  threads.serve_devices(os.environ)
  compilation.use_cache()
  run = source.read(asked.run, data_dir=asked.data_dir, parts=asked.parts)
  told = shipment.shipment_of(run, asked)
  found = folder.earlier(asked.out, told)
  if found is None:
    figures.show(shipment.ship(run, asked, told))
    return
  try:
    figures.blocks(found)
  except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
    raise UsageError(
      f'--out={asked.out}: its {folder.SHIPPED} is damaged ({in_one_line(error)}); {folder.EMPTY}'
    ) from error
  say(f'{asked.out} already holds this shipment; nothing is written.')
  figures.show(found)


def _fail(status: int, error: Exception) -> int:
  from sparsejax.experiment.terminal.errors import in_one_line

  complain(f'ship: {in_one_line(error)}')
  return status


def _leave(number: int, frame: object) -> NoReturn:
  del frame
  complain(f'ship: {signal.Signals(number).name}; nothing is written')
  raise SystemExit(128 + number)


if __name__ == '__main__':
  sys.exit(extras.explained(main, sys.argv))
