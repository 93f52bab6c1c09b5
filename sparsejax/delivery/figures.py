"""The tables of a shipment: theoretical gains beside measured ones."""

from collections.abc import Mapping
from typing import Any, TextIO

from sparsejax.experiment.terminal.console import print_blocks
from sparsejax.experiment.terminal.numbers import MISSING, count, percent, times

HEADER = ('', 'dense', 'shipped', 'real', 'theoretical')


def print_tables(measurements: Mapping[str, Any], stream: TextIO | None = None) -> None:
  """Prints the tables of a shipment.

  Args:
    measurements: the content of shipped.json.
    stream: the stream to print to, by default stdout.
  """
  print_blocks(stream, tables(measurements))


def tables(measurements: Mapping[str, Any]) -> list[tuple[Any, ...]]:
  """Returns the tables: each a title, a header and rows.

  Args:
    measurements: the content of shipped.json.
  """
  title = f'{measurements["name"]}, seed {measurements["shipment"]["seed"]}'
  parts = [(name, count(size)) for name, size in measurements['bytes_by_part'].items()]
  written = [(name, count(row['bytes'])) for name, row in measurements['files'].items()]
  return [
    (title, HEADER, _comparison_rows(measurements)),
    ('By part', ('part of the model file', 'bytes'), parts),
    ('Files', ('file', 'bytes'), written),
  ]


def _comparison_rows(measurements: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Returns rows of a name, the dense and the shipped value, the real and theoretical ratio."""
  theoretical, before = measurements['theoretical'], measurements['before']
  dense_bytes, shipped_bytes = measurements['dense_bytes'], measurements['bytes']
  rows = [
    (
      *('weights', count(theoretical['weights']), count(theoretical['active_weights'])),
      *(MISSING, times(theoretical['compression'])),
    ),
    (
      *('multiply-accumulates', count(theoretical['macs']), count(theoretical['active_macs'])),
      *(MISSING, times(theoretical['speedup'])),
    ),
    (
      *('bytes', count(dense_bytes), count(shipped_bytes)),
      *(times(dense_bytes / shipped_bytes), times(theoretical['compression'])),
    ),
  ]
  for engine, sizes in measurements['latency'].items():
    for size, row in sizes.items():
      seconds = (_seconds(row[f'{which}_seconds']) for which in ('dense', 'shipped'))
      smallest, largest = map(times, row['spread']['speedup'])
      ratio = f'{times(row["speedup"])} ({smallest} to {largest})'
      rows.append((f'{engine}, batch {size}', *seconds, ratio, times(theoretical['speedup'])))
  for split in ('validation', 'test'):
    name = f'{split}_accuracy'
    accuracies = f'{percent(before[name])} (run)', percent(measurements[name])
    rows.append((f'{split} accuracy', *accuracies, MISSING, MISSING))
  return rows


def _seconds(value: float) -> str:
  """Returns a duration as text with three digits, in seconds, milliseconds or microseconds.

  Example:
    >>> [_seconds(value) for value in (0.0000123, 0.0123, 1.5)]
    ['12.3 us', '12.3 ms', '1.5 s']
  """
  for unit, size in (('s', 1.0), ('ms', 1e-3)):
    if value >= size:
      return f'{value / size:.3g} {unit}'
  return f'{value / 1e-6:.3g} us'
