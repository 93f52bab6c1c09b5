"""Shipments in a report: found beside runs, given to theirs, shown as measured."""

import json
import math

import pytest
from run_folders import edit, write_run

from sparsejax import report
from sparsejax.reports.figures import pareto
from sparsejax.reports.records import collect, run_groups, shipments
from sparsejax.reports.text import shipped as table

RUN = ('pru0.05', 0)
NETWORK = 'abc'


def write_shipment(folder, *, run=RUN, bits=4, size=5000, accuracy=0.97, **changes):
  """What `sparsejax.ship` measured, as far as a report reads it."""
  row = {'dense_seconds': 0.004, 'shipped_seconds': 0.001}
  slow = {'dense_seconds': 0.003, 'shipped_seconds': 0.002}
  found = {
    'shipment': {'hash': run[0], 'seed': run[1], 'network': NETWORK, 'bits': bits, 'epochs': 0},
    'theoretical': {'compression': 30.0, 'speedup': 12.0},
    'bytes': size,
    'dense_bytes': 400_000,
    'validation_accuracy': accuracy,
    'test_accuracy': accuracy,
    'latency': {'jax': {'1': row, '128': slow}, 'onnxruntime': {'1': slow, '128': slow}},
  }
  folder.mkdir(parents=True)
  (folder / 'shipped.json').write_text(json.dumps(found | changes))
  return folder


def of_run(**changes):
  """What identifies a shipment."""
  whose = {'hash': RUN[0], 'seed': RUN[1], 'network': NETWORK, 'bits': 4, 'epochs': 0}
  return whose | changes


def test_the_figures_of_a_shipment_are_of_the_fastest_engine(tmp_path):
  found = shipments.read(write_shipment(tmp_path / 'a'))
  assert found.run == RUN
  assert found.options == '4 bits'
  assert found.figures['file_ratio'] == 80
  assert found.figures['milliseconds_1'] == 1  # JAX's
  assert found.figures['dense_milliseconds_1'] == 3  # ONNX Runtime's
  assert found.figures['measured_speedup_1'] == 3
  assert found.figures['measured_speedup_128'] == 1.5


def test_a_shipment_belongs_to_its_run_wherever_it_lies(tmp_path):
  for seed in (0, 1):
    write_run(tmp_path / 'runs' / f'seed{seed}', seed=seed)
    write_shipment(tmp_path / 'elsewhere' / f'{seed}', run=(RUN[0], seed), size=4000 + 2000 * seed)
  write_shipment(tmp_path / 'runs' / 'seed0' / 'eight', bits=8, size=9000)
  runs = collect.collect([tmp_path])
  assert [len(run.shipments) for run in runs] == [2, 1]
  assert not any(run.problems for run in runs)
  four, eight = run_groups.shipped(run_groups.group(runs))
  assert four.label.endswith(', 4 bits')
  assert eight.label.endswith(', 8 bits')
  assert four.moments('file_bytes') == (5000, pytest.approx(math.sqrt(2) * 1000))
  assert four.moments('test_accuracy')[0] == 0.97  # of the file, not of the run
  cells = dict(zip(table.HEADER, table.row(eight), strict=False))
  assert cells['bytes of the file'] == '9,000'
  assert cells['dense bytes over these'] == '44.4x'


@pytest.mark.parametrize(
  ('changes', 'reason'),
  [
    ({'bytes': 0}, 'bytes, seconds, ratios and rates must be numbers above 0'),
    ({'test_accuracy': 2.0}, 'accuracies must be numbers from 0 to 1'),
    ({'latency': {}}, 'shipped.json cannot be read'),
    ({'theoretical': {}}, "it has no 'compression'"),
    ({'latency': {'jax': {'1': None}}}, 'shipped.json cannot be read'),
    ({'shipment': []}, 'shipped.json cannot be read'),
    ({'shipment': {'seed': 0}}, "it has no 'hash'"),
    ({'shipment': of_run(hash=1)}, 'must be a string, a whole number and a string'),
    ({'shipment': of_run(seed=True)}, 'must be a string, a whole number and a string'),
    ({'shipment': of_run(epochs='1')}, 'epochs must be a whole number'),
    ({'shipment': of_run(epochs=1, learning_rate=10**400)}, 'must be numbers above 0'),
    ({'shipment': of_run(bits='auto', tolerance='1' * 1000)}, 'must be numbers above 0'),
    ({'shipment': of_run(bits=True)}, 'shipped.json cannot be read'),
    ({'theoretical': {'compression': -1.0, 'speedup': 1.0}}, 'must be numbers above 0'),
    ({'sha256': 'of what was there'}, 'it is not as it was written'),
  ],
)
def test_a_damaged_shipment_is_a_row_that_says_so(changes, reason, tmp_path):
  write_run(tmp_path / 'run')
  write_shipment(tmp_path / 'damaged', **changes)
  run, broken = collect.collect([tmp_path])
  assert run.state == 'finished'
  assert broken.state == 'broken'
  assert reason in broken.problems[0]


def test_a_shipment_of_no_run_is_told_unless_runs_were_chosen(tmp_path):
  write_run(tmp_path / 'run')
  write_shipment(tmp_path / 'other', run=('another', 3))
  _, stray = collect.collect([tmp_path])
  assert 'the run with hash another and seed 3, which is not in this report' in stray.problems[0]
  assert len(collect.collect([tmp_path], collect.Choice(runs=['run']))) == 1
  assert report.main(['report', str(tmp_path), f'--out={tmp_path / "out"}']) == 0
  assert 'hash another and seed 3' in (tmp_path / 'out' / 'report.md').read_text()


def test_what_a_killed_command_left_is_no_shipment(tmp_path):
  write_run(tmp_path / 'run')
  write_shipment(tmp_path / '.of a person')
  write_shipment(tmp_path / f'.out.{"0" * 32}.tmp', bits=8)
  (run,) = collect.collect([tmp_path])
  assert [shipment.options for shipment in run.shipments] == ['4 bits']


def test_the_report_has_the_table_and_both_figures(tmp_path):
  path = write_run(tmp_path / 'runs' / 'seed0')
  write_run(tmp_path / 'runs' / 'dense', density=1.0, method='dense')
  write_shipment(path / 'shipped')
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '### shipped' in text
  assert '| pruning, 4 bits | 1 | 5,000 | 80x | 30x | 1 | 3x | 2 | 1.5x | 12x | 97.00 |' in text
  for name in ('bytes', 'milliseconds'):
    assert (tmp_path / 'out' / f'lenet300_on_mnist.{name}.png').exists()
  assert 'Bytes are the whole file' in (tmp_path / 'out' / 'report.html').read_text()


def test_without_shipments_nothing_is_said_of_them(tmp_path):
  write_run(tmp_path / 'runs' / 'seed0')
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  assert 'hipped' not in (tmp_path / 'out' / 'report.md').read_text()
  assert not list((tmp_path / 'out').glob('*.bytes.*'))


@pytest.mark.parametrize(('axis', 'at'), [(pareto.BYTES, 400_000), (pareto.MILLISECONDS, 3)])
def test_a_line_shows_where_the_dense_network_is_and_nothing_published(axis, at, tmp_path):
  path = write_run(tmp_path / 'runs' / 'seed0')
  write_shipment(path / 'shipped')
  found = run_groups.shipped(run_groups.group(collect.collect([tmp_path])))
  figure = pareto.pareto('lenet300 on mnist', found, axis)
  axes = figure.axes[0]
  lines = {line.get_label(): line for line in axes.get_lines()}
  (label,) = (label for label in lines if str(label).startswith('the dense network'))
  assert list(lines[label].get_xdata()) == [at, at]
  assert axes.get_xlim()[1] > at
  assert axes.get_xlabel() == axis.label
  published = pareto.pareto('lenet300 on mnist', found)
  assert [is_said(one, 'Deep Compression 2015') for one in (figure, published)] == [False, True]


def is_said(figure, text):
  return any(text in label.get_text() for label in figure.legends[0].get_texts())


def test_of_two_shipments_with_the_same_options_one_counts_and_the_run_says_so(tmp_path):
  write_run(tmp_path / 'run')
  write_shipment(tmp_path / 'a')
  write_shipment(tmp_path / 'b')  # a copy
  write_shipment(tmp_path / 'c', size=1000)
  (run,) = collect.collect([tmp_path])
  assert [shipment.folder.name for shipment in run.shipments] == ['a']
  assert run.problems == ('its shipment c has the options of a, and is not counted again',)


def test_a_shipment_of_an_earlier_network_is_not_counted(tmp_path):
  path = write_run(tmp_path / 'run')
  write_shipment(tmp_path / 'file')
  (path / 'checkpoints' / 'best').mkdir(parents=True)
  (path / 'checkpoints' / 'best' / 'manifest.json').write_text('{}')
  (run,) = collect.collect([tmp_path])
  assert run.shipments == ()
  assert run.problems == ('its shipment file is of another network, and is not counted',)


def test_an_infinite_ratio_and_a_missing_one_are_words(tmp_path):
  path = write_run(tmp_path / 'run')
  write_shipment(path / 'a', theoretical={'compression': None, 'speedup': None})
  (group,) = run_groups.shipped(run_groups.group(collect.collect([tmp_path])))
  cells = table.row(group)
  assert cells[4] == cells[-2] == 'infinite'


def test_a_run_that_cannot_be_read_keeps_its_problem_beside_a_shipment(tmp_path):
  path = write_run(tmp_path / 'run')
  write_shipment(tmp_path / 'file')
  edit(path / 'config.json', epochs=None)
  edit(path / 'summary.json', hash=RUN[0])
  found = collect.collect([tmp_path])
  assert [run.state for run in found] == ['finished']
  assert found[0].problems[0].startswith('config.json has no epochs')
