"""The table of shipments: bytes and milliseconds as measured, beside what counting weights says."""

from sparsejax.reports.records.run_groups import Group
from sparsejax.reports.text import cells

KIND = 'shipped'
HEADER = (
  'experiment, shipped with',
  'n',
  'bytes of the file',
  'dense bytes over these',
  'compression (weights)',
  'batch 1: ms',
  'speed-up',
  'batch 128: ms',
  'speed-up',
  'theoretical speed-up',
  'test accuracy of the file, %',
)
NOTE = (
  'Shipped: the file was read back, and its network measured. Bytes are the whole file; dense ones '
  'are four for each number of the dense network. Speed-up is the time of the dense network over '
  "the shipped one's, each in its fastest engine, by turns in one process; theoretical is what "
  'counting multiply-accumulates would give.'
)


def row(group: Group) -> list[str]:
  """Returns the row of an experiment whose runs were shipped, as `groups.shipped` returns them."""
  times = [
    _figure(group, f'{name}_{size}', unit)
    for size in (1, 128)
    for name, unit in (('milliseconds', ''), ('measured_speedup', 'x'))
  ]
  return [
    group.label,
    str(len(group.counted)),
    _figure(group, 'file_bytes', ''),
    _figure(group, 'file_ratio', 'x'),
    _figure(group, 'compression', 'x'),
    *times,
    _figure(group, 'theoretical_speedup', 'x'),
    cells.format_percent([run.figure('test_accuracy') for run in group.counted]),
  ]


def _figure(group: Group, name: str, unit: str) -> str:
  mean, spread = group.moments(name)
  number = f'{mean:,.0f}' if mean >= 1000 else f'{mean:.3g}'
  return f'{cells.format_moments(mean, spread, number)}{unit}'
