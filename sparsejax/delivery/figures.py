"""The tables of a shipment: what sparsity promises beside what was measured."""

from collections.abc import Mapping
from typing import Any, TextIO

from sparsejax.experiment.terminal.console import print_blocks
from sparsejax.experiment.terminal.numbers import MISSING, count, percent, times

HEADER = ('', 'dense', 'shipped', 'real', 'theoretical')


def show(figures: Mapping[str, Any], stream: TextIO | None = None) -> None:
  """Prints the tables of a shipment.

  Args:
    figures: the content of shipped.json.
    stream: the stream to print to, by default stdout.
  """
  print_blocks(stream, blocks(figures))


def blocks(figures: Mapping[str, Any]) -> list[tuple[Any, ...]]:
  """Returns the tables: each a title, a header and rows.

  Args:
    figures: the content of shipped.json.
  """
  parts = [(name, count(size)) for name, size in figures['bytes_by_part'].items()]
  written = [(name, count(row['bytes'])) for name, row in figures['files'].items()]
  return [
    (f'{figures["name"]}, seed {figures["shipment"]["seed"]}', HEADER, rows_of(figures)),
    ('By part', ('part of the model file', 'bytes'), parts),
    ('Files', ('file', 'bytes'), written),
  ]


def rows_of(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Returns the rows of the table: dense, shipped, the real ratio and the theoretical one."""
  promised, before = figures['theoretical'], figures['before']
  rows = [
    (
      *('weights', count(promised['weights']), count(promised['active_weights'])),
      *(MISSING, times(promised['compression'])),
    ),
    (
      *('multiply-accumulates', count(promised['macs']), count(promised['active_macs'])),
      *(MISSING, times(promised['speedup'])),
    ),
    (
      *('bytes', count(figures['dense_bytes']), count(figures['bytes'])),
      *(times(figures['dense_bytes'] / figures['bytes']), times(promised['compression'])),
    ),
  ]
  for engine, sizes in figures['latency'].items():
    for size, row in sizes.items():
      seconds = (_seconds(row[f'{which}_seconds']) for which in ('dense', 'shipped'))
      least, most = map(times, row['spread']['speedup'])
      ratio = f'{times(row["speedup"])} ({least} to {most})'
      rows.append((f'{engine}, batch {size}', *seconds, ratio, times(promised['speedup'])))
  for split in ('validation', 'test'):
    name = f'{split}_accuracy'
    shown = f'{percent(before[name])} (run)', percent(figures[name])
    rows.append((f'{split} accuracy', *shown, MISSING, MISSING))
  return rows


def _seconds(value: float) -> str:
  """Writes a short time.

  Example:
    >>> [_seconds(value) for value in (0.0000123, 0.0123, 1.5)]
    ['12.3 us', '12.3 ms', '1.5 s']
  """
  for unit, size in (('s', 1.0), ('ms', 1e-3)):
    if value >= size:
      return f'{value / size:.3g} {unit}'
  return f'{value / 1e-6:.3g} us'
