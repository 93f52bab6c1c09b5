"""The table of shipments: measured bytes and milliseconds beside the gains that counts promise."""

from sparsejax.reports.records.run_groups import Group
from sparsejax.reports.records.shipments import BATCH_SIZES
from sparsejax.reports.text import cells

KIND = 'shipped'
HEADER = (
  'experiment, shipped with',
  'n',
  'bytes of the file',
  'dense bytes over these',
  'compression (weights)',
  *(head for size in BATCH_SIZES for head in (f'batch {size}: ms', 'speed-up')),
  'theoretical speed-up',
  'test accuracy of the file, %',
)
NOTE = (
  'Shipped: the file was read back, and its network measured. Bytes are the whole file; dense ones '
  'are four for each number of the dense network. Speed-up is the time of the dense network over '
  "the shipped one's, each in its fastest engine, timed in turns in one process; the theoretical "
  'one follows from the counts of multiply-accumulates.'
)


def row(group: Group) -> list[str]:
  """Returns the row of an experiment whose runs were shipped, as from `run_groups.shipped`."""
  times = [
    cells.measured(*group.moments(f'{name}_{size}'), unit)
    for size in BATCH_SIZES
    for name, unit in (('milliseconds', ''), ('measured_speedup', 'x'))
  ]
  return [
    group.label,
    str(len(group.counted)),
    cells.measured(*group.moments('file_bytes')),
    cells.measured(*group.moments('file_ratio'), 'x'),
    cells.measured(*group.moments('compression'), 'x'),
    *times,
    cells.measured(*group.moments('theoretical_speedup'), 'x'),
    cells.format_percent([run.figure('test_accuracy') for run in group.counted]),
  ]
