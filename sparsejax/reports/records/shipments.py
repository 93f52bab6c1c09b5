"""Shipments of runs, as `sparsejax.ship` measured them and wrote to shipped.json."""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import digests
from sparsejax.experiment.terminal.errors import in_one_line
from sparsejax.reports.records import reading
from sparsejax.reports.records.record_checks import is_figure, is_share

ACCURACIES = ('validation_accuracy', 'test_accuracy')
BATCH_SIZES = (1, 128)
LONGEST = 80  # characters of a label


class Shipment(NamedTuple):
  """A shipment.

  Attributes:
    folder: its folder.
    run: the hash and the seed of its run.
    network: the digest of the network that was shipped.
    options: the options that change its file, as a label.
    figures: its accuracies; `compression` and `theoretical_speedup` of the shipped network, None if
      infinite; `file_bytes`, `dense_bytes`, `file_ratio` (dense over file); and for batch sizes N
      `milliseconds_N`, `dense_milliseconds_N` and `measured_speedup_N`, each network in its fastest
      engine.
  """

  folder: pathlib.Path
  run: tuple[str, int]
  network: str
  options: str
  figures: Mapping[str, float | None]


def read(folder: pathlib.Path) -> Shipment:
  """Returns the shipment in a folder.

  Raises:
    ValueError: its shipped.json cannot be read, was changed, or lacks what a report shows.
  """
  try:
    content = reading.content(folder / files.SHIPPED)
    found = reading.parse(content)
    if digests.KEY in found and found[digests.KEY] != digests.of_content(json.loads(content)):
      raise ValueError('it is not as it was written')
    return _read(folder, found)
  except (AttributeError, KeyError, OSError, TypeError, ValueError, OverflowError) as error:
    lacks = f'it has no {error}' if isinstance(error, KeyError) else in_one_line(error)
    raise ValueError(f'{files.SHIPPED} cannot be read: {lacks}') from error


def _read(folder: pathlib.Path, found: Mapping[str, Any]) -> Shipment:
  shipment = found['shipment']
  run = (shipment['hash'], shipment['seed'])
  network = shipment['network']
  if not isinstance(run[0], str) or not _is_whole(run[1]) or not isinstance(network, str):
    raise ValueError('its hash, seed and network must be a string, a whole number and a string')
  figures: dict[str, float | None] = {name: found[name] for name in ACCURACIES}
  if not all(map(is_share, figures.values())):
    raise ValueError('accuracies must be numbers from 0 to 1')
  for name, key in (('compression', 'compression'), ('theoretical_speedup', 'speedup')):
    ratio = found['theoretical'][key]
    figures[name] = None if ratio is None else _positive(ratio)
  file_bytes, dense_bytes = _positive(found['bytes']), _positive(found['dense_bytes'])
  figures |= {'file_bytes': file_bytes, 'dense_bytes': dense_bytes}
  figures['file_ratio'] = dense_bytes / file_bytes
  for size in BATCH_SIZES:
    rows = [sizes[str(size)] for sizes in found['latency'].values()]
    shipped, dense = (
      1000 * min(_positive(row[f'{which}_seconds']) for row in rows)
      for which in ('shipped', 'dense')
    )
    figures[f'milliseconds_{size}'] = shipped
    figures[f'dense_milliseconds_{size}'] = dense
    figures[f'measured_speedup_{size}'] = dense / shipped
  return Shipment(folder, run, network, _label(shipment), figures)


def _label(shipment: Mapping[str, Any]) -> str:
  """Returns the options of a shipment as a short text.

  Example:
    >>> _label({'bits': 4, 'epochs': 0}), _label({'bits': None, 'epochs': 0})
    ('4 bits', 'no shared weights')
    >>> _label({'bits': [['conv', 8], ['.*', 5]], 'epochs': 3, 'learning_rate': 1e-4})
    'bits conv=8 .*=5, 3 epochs at 0.0001'
    >>> _label({'bits': 'auto', 'tolerance': 0.001, 'epochs': 0})
    'bits auto within 0.1 %'
  """
  bits, epochs = shipment['bits'], shipment['epochs']
  if bits is None:
    text = 'no shared weights'
  elif _is_whole(bits):
    text = f'{bits} bits'
  elif bits == 'auto':
    text = f'bits auto within {100 * _positive(shipment["tolerance"], least=0):g} %'
  elif isinstance(bits, str):
    text = f'bits {bits}'
  else:
    pairs = bits.items() if isinstance(bits, Mapping) else bits
    text = 'bits ' + ' '.join(f'{layer}={number}' for layer, number in pairs)
  if not _is_whole(epochs):
    raise ValueError('epochs must be a whole number')
  if epochs:
    text += f', {epochs} epochs at {_positive(shipment["learning_rate"]):g}'
  return text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'


def _is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and is_figure(value)


def _positive(value: Any, least: float = math.ulp(0.0)) -> float:
  if not is_figure(value) or value < least:
    raise ValueError('bytes, seconds, ratios and rates must be numbers above 0')
  return float(value)


def choose(
  found: Iterable[Shipment], network: str | None
) -> tuple[tuple[Shipment, ...], list[str]]:
  """Returns the shipments of a run that count, and what is wrong with the others.

  Of those with the same options, the first counts. One that shipped another network than the run
  has now, since the run was trained again, does not count.

  Args:
    found: the shipments of the run's hash and seed.
    network: the digest of the network that the run delivers; None if it is not known.
  """
  counted: dict[str, Shipment] = {}
  problems = []
  for shipment in found:
    where = os.path.basename(shipment.folder)
    if network is not None and shipment.network != network:
      problems.append(f'its shipment {where} is of another network, and is not counted')
    elif (first := counted.setdefault(shipment.options, shipment)).figures != shipment.figures:
      other = os.path.basename(first.folder)
      problems.append(f'its shipment {where} has the options of {other}, and is not counted again')
  return tuple(counted.values()), problems
