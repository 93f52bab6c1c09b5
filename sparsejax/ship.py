"""Ships a finished run: a smaller network in one small file, with its accuracy, bytes and latency.

python -m sparsejax.ship --run=RUN --out=DIR [--bits=4 | conv=8,.*=5 | auto | posterior]

--run=DIR            a finished run
--out=DIR            the folder to write: a new or an empty one
--bits=N             the weights of each layer share 2^N values, N from 1 to 8;
                     PATTERN=N,PATTERN=N gives bits by layer; auto chooses the fewest bits from 2 to
                     8 within the tolerance; posterior takes for each layer of a Bayesian run the
                     bits in its summary, which follow from the posterior's variances, or 8 if they
                     are more. Without this flag weights share no values
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
measurements, with the run and the environment; its compression_in_bytes is the bytes of the dense
float32 network over those of the model file. Unlike compression_with_bits in the summary of a
Bayesian run, it counts everything: positions, biases, codebooks and the header. DIR is created only
when everything is written.

Exit status: 0 finished, 2 if this cannot be shipped as asked, 128 plus the signal's number after a
signal, 1 otherwise.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparsejax.experiment import command
from sparsejax.experiment.terminal.say import say

if TYPE_CHECKING:
  from collections.abc import Mapping
  from typing import Any

  from sparsejax.delivery.request import Request


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status."""
  return command.run(
    'ship',
    argv,
    text=lambda: __doc__,
    read=_read,
    act=_ship,
    folder=lambda request: request.out,
    left='nothing is written',
    failures=(OSError,),
  )


def _read(argv: Sequence[str]) -> 'Request':
  from sparsejax.delivery import request

  return request.read(argv)


def _ship(request: 'Request') -> None:
  """Writes the shipment and prints its tables; a folder with the same shipment is only shown."""
  from sparsejax.delivery import figures

  command.set_up_process()
  with command.leaving_on_signals('ship', '; nothing is written'):  # incomplete files are removed
    measurements = _written(request)
  figures.print_tables(measurements)


def _written(request: 'Request') -> 'Mapping[str, Any]':
  """Writes the shipment, unless the folder holds the same one; returns its measurements."""
  # These imports take seconds; errors in the flags were reported before them.
  from sparsejax.delivery import figures, folder, shipment, source
  from sparsejax.experiment.machine import files
  from sparsejax.experiment.terminal.errors import UsageError, in_one_line

  run = source.read(request.run, data_dir=request.data_dir, parts=request.parts)
  identity = shipment.identify(run, request)
  existing = folder.read_existing(request.out, identity)
  if existing is None:
    return shipment.ship(run, request, identity)
  try:
    figures.tables(existing)
  except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
    raise UsageError(
      f'--out={request.out}: its {files.SHIPPED} is damaged ({in_one_line(error)}); {folder.EMPTY}'
    ) from error
  say(f'{request.out} already holds this shipment; nothing is written.')
  return existing


if __name__ == '__main__':
  sys.exit(command.guarded(main, sys.argv))
