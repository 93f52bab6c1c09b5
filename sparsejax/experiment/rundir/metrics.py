"""metrics.jsonl: one line per logged step, appended during training and cut back on resuming."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import logging

from sparsejax.experiment.machine import files
from sparsejax.sparsity.counting import measure

# The fields that differ between two runs of the same experiment on the same machine.
TIMINGS = ('seconds', 'examples_per_second')

# The fields about the evaluated network, which depends on a posterior's thresholds; all others are
# about the training.
NETWORK_FIELDS = (
  *('validation_loss', 'validation_accuracy', 'active_parameters', 'active_fraction'),
  *('below_1e-3', 'below_threshold', 'active_macs'),
)


class Counts(NamedTuple):
  """The counts of a network for a line.

  above: the numbers of parameters with a magnitude above zero, above 1e-3 and, if the chain prunes
    by a threshold, above the threshold.
  weights: the number of active weights in each layer.
  """

  above: Sequence[int] | jax.Array
  weights: Mapping[str, int] | Mapping[str, jax.Array]


def counts(network: Any, thresholds: tuple[float, ...]) -> Counts:
  """Counts a network on the device."""
  return Counts(measure.count_above(network, thresholds), measure.active_weights(network))


def counted(
  found: Counts, parameters: int, positions: Mapping[str, int], products: int = 0
) -> dict[str, int | float]:
  """Returns a line's figures about a network's parameters.

  Args:
    found: the network's counts, on the host.
    parameters: its number of parameters.
    positions: the positions of each layer, as `measure.report` takes them.
    products: the multiply-accumulates of products of activations, likewise.

  Example:
    >>> counted(Counts([8, 6], {'conv': 5}), 10, {'conv': 4})
    {'active_parameters': 8, 'active_fraction': 0.8, 'below_1e-3': 0.4, 'active_macs': 20}
  """
  kernels = sum(positions[layer] * int(count) for layer, count in found.weights.items())
  active, not_small, *not_under = (int(count) for count in found.above)
  line: dict[str, int | float] = {
    'active_parameters': active,
    'active_fraction': active / parameters,
    'below_1e-3': 1 - not_small / parameters,
    'active_macs': kernels + products,
  }
  if not_under:
    line['below_threshold'] = 1 - not_under[0] / parameters
  return line


class MetricsFile:
  """The open metrics.jsonl of a run that continues from where it was saved.

  Lines after the saved ones are removed before anything is added, so that the file never shows a
  restart. A file that does not begin with the saved lines was cut or changed: it is renamed, and
  the lines are put back.

  Args:
    path: the path of the file.
    saved: its text when the run was saved, from the checkpoint.
  """

  def __init__(self, path: pathlib.Path, saved: str = ''):
    content = path.read_bytes() if path.is_file() else None
    expected = saved.encode()
    if saved and (content is None or not content.startswith(expected)):
      how = 'is missing'
      if path.exists():
        how = f'is not what this run wrote; it is now {files.set_aside(path, "damaged").name}'
      logging.warning('%s %s, and its lines were put back from the checkpoint', path, how)
    if content != expected:
      files.write_atomically(path, saved)
    self.lines = [json.loads(line) for line in saved.splitlines()]
    self._file = path.open('a')

  @property
  def text(self) -> str:
    """All lines, as in the file."""
    return ''.join(map(_line, self.lines))

  def append(self, line: Mapping[str, Any]) -> None:
    """Writes one line and hands it to the operating system, so that a kill does not lose it."""
    self._file.write(_line(line))
    self._file.flush()
    self.lines.append(dict(line))

  def sync(self) -> None:
    """Forces the lines to the disk; call it before a checkpoint relies on them."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the whole lines of a metrics.jsonl, oldest first, without a last line cut short."""
  if not path.exists():
    return []
  *whole, _ = path.read_text().split('\n')
  return [json.loads(line) for line in whole]


def _line(line: Mapping[str, Any]) -> str:
  return json.dumps(files.finite(dict(line))) + '\n'
