"""Shipments of runs, as `sparsejax.ship` measured them and wrote to shipped.json."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records import reading
from sparsejax.reports.records.record_checks import is_figure, is_share

ACCURACIES = ('validation_accuracy', 'test_accuracy')
BATCH_SIZES = (1, 128)


class Shipment(NamedTuple):
  """A shipment.

  Attributes:
    run: the hash and the seed of its run.
    options: the options that change its file, as a label.
    figures: its accuracies, and `file_bytes`, `dense_bytes`, `file_ratio` (dense over file), and
      for batch sizes N `milliseconds_N`, `dense_milliseconds_N` and `measured_speedup_N`, each
      network in its fastest engine.
  """

  run: tuple[str, int]
  options: str
  figures: Mapping[str, float]


def read(folder: pathlib.Path) -> Shipment:
  """Returns the shipment in a folder.

  Raises:
    ValueError: its shipped.json cannot be read, or lacks what a report shows.
  """
  try:
    return _read(reading.read(folder / files.SHIPPED))
  except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    lacks = f'it has no {error}' if isinstance(error, KeyError) else printable(error)
    raise ValueError(f'{files.SHIPPED} cannot be read: {lacks}') from error


def _read(found: Mapping[str, Any]) -> Shipment:
  shipment = found['shipment']
  run, options = (shipment['hash'], shipment['seed']), _label(shipment)
  if not isinstance(run[0], str) or not isinstance(run[1], int):
    raise ValueError('hash and seed must be a text and a whole number')
  figures = {name: found[name] for name in ACCURACIES}
  if not all(map(is_share, figures.values())):
    raise ValueError('accuracies must be numbers from 0 to 1')
  file_bytes, dense_bytes = _positive(found['bytes']), _positive(found['dense_bytes'])
  figures |= {'file_bytes': file_bytes, 'dense_bytes': dense_bytes}
  figures['file_ratio'] = dense_bytes / file_bytes
  for size in BATCH_SIZES:
    rows = [sizes[str(size)] for sizes in found['latency'].values()]
    shipped, dense = (
      1000 * min(_positive(row[f'{which}_seconds']) for row in rows)
      for which in ('shipped', 'dense')
    )
    figures[f'milliseconds_{size}'], figures[f'dense_milliseconds_{size}'] = shipped, dense
    figures[f'measured_speedup_{size}'] = dense / shipped
  return Shipment(run, options, figures)


def _label(shipment: Mapping[str, Any]) -> str:
  """Returns the options of a shipment as a short text.

  Example:
    >>> _label({'bits': 4, 'epochs': 0}), _label({'bits': None, 'epochs': 0})
    ('4 bits', 'no shared weights')
    >>> _label({'bits': {'conv': 8, '.*': 5}, 'epochs': 3, 'learning_rate': 1e-4})
    'bits conv=8 .*=5, 3 epochs at 0.0001'
    >>> _label({'bits': 'auto', 'tolerance': 0.001, 'epochs': 0})
    'bits auto within 0.1 %'
  """
  bits, epochs = shipment['bits'], shipment['epochs']
  if bits is None:
    text = 'no shared weights'
  elif isinstance(bits, int):
    text = f'{bits} bits'
  elif isinstance(bits, Mapping):
    text = 'bits ' + ' '.join(f'{layer}={number}' for layer, number in bits.items())
  else:
    text = f'bits {bits}'
    text += f' within {100 * shipment["tolerance"]:g} %' if bits == 'auto' else ''
  return f'{text}, {epochs} epochs at {shipment["learning_rate"]:g}' if epochs else text


def _positive(value: Any) -> float:
  if not is_figure(value) or value <= 0:
    raise ValueError('bytes and seconds must be numbers above 0')
  return float(value)
