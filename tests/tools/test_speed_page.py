"""The page of measured speeds, made from figures written by hand."""

import itertools

import commands
import pytest

from tools.speed import speed, speed_page, startup
from tools.speed.speed_page import Row


def figures(rate, *, peers=None, links=False, **memory):
  spread = {'step': [1.0, 1.0]} | ({'bare_step': [1.0, 1.0]} if links else {})
  return {
    'examples_per_second': rate,
    'compile_seconds': 12.34,
    'matmul_flops': 398.4e9,
    'utilisation': 0.456,
    'chain_overhead': 1.0123,
    'peers': peers or {},
    'ratio': rate / max(peers.values()) if peers else None,
    'rounds': 5,
    'spread': spread,
    'memory': memory,
    'all_reduce_bytes': {'predicted': 1234, 'found': 1230},
    'batch_size': 64,
    'devices': 1,
    'dtype': 'float32',
    'environment': {
      'git_commit': '0123456789',
      'threads': 2,
      'cpus': 4,
      'processor': 'a processor',
      'backend': 'cpu',
      'python': '3',
      'versions': {'jax': '0.10'},
    },
  }


PEERS = {'eager_contiguous': 50.0, 'compiled_channels_last': 160.0}
ROWS = (
  Row('first', 'lenet300_dc', 64, gained='fewer page faults'),
  Row('second', 'vgg16_dense', 128, has_peer=False),
  Row('third', 'resnet50_dense', 32, device='gpu'),
)
FOUND = {
  'first': figures(200.0, peers=PEERS, links=True, peak_bytes=3 * 2**30, predicted_bytes=2**20),
  'first_plain': figures(25.0, peak_bytes=2**30),
  'second': figures(9.0),
}


def cells(text, row):
  """The cells of a row in each table that has it."""
  found = [line.strip('| ').split(' | ') for line in text.splitlines()]
  return [parts for parts in found if parts[0] == row]


def test_a_row_has_both_rates_and_the_fastest_way_of_the_other_side():
  speeds, reasons, memory = cells(speed_page.text_of(FOUND, ROWS), 'first')
  peer = '160 (compiled, channels last)'
  assert speeds[1:] == [
    '64',
    '25.0',
    '200',
    '8.00',
    peer,
    '1.25',
    '398',
    '46 %',
    '1.012',
    '12.3',
    '5',
  ]
  assert reasons[1:] == ['fewer page faults']
  assert memory[1:] == ['64', '1', '-', '3,072', '-', '1,024', '1,234', '1,230']


def test_what_was_not_measured_stays_open():
  text = speed_page.text_of(FOUND, ROWS)
  speeds, _ = cells(text, 'second')
  assert speeds[1:] == ['64', '-', '9.00', '-', '-', '-', '398', '46 %', '-', '12.3', '5']
  (third,) = cells(text, 'third')
  assert third[1:] == ['32', '-', 'not run', *'--------']
  head = next(line for line in text.splitlines() if line.startswith('| row'))
  assert head.count('|') == len(third) + 1
  assert '- third: `python -m sparsejax.benchmark --config=configs/resnet50_dense.py' in text
  assert 'tools.speed.speed --device=gpu' in text


def test_the_last_lines_name_a_gpu_and_what_xla_was_told():
  on_gpu = figures(200.0)
  on_gpu['environment'] |= {
    'backend': 'gpu',
    'devices': ['one chip', 'one chip'],
    'xla_flags': '--xla_one=2',
  }
  (line,) = [
    line
    for line in speed_page.text_of({'third': on_gpu}, ROWS).splitlines()
    if line.startswith('Code of commit')
  ]
  assert '1 one chip, float32, Python' in line
  assert line.endswith(', XLA_FLAGS="--xla_one=2".')


def test_a_row_is_measured_on_a_machine_of_its_vectors():
  narrow, any_cpu, gpu = (
    Row('a', 'lenet300_dc', 64, vectors='AVX2'),
    Row('b', 'lenet300_dc', 64, has_plain=False),
    Row('c', 'lenet300_dc', 64, device='gpu'),
  )
  chips = ('a chip with AVX2', 'a chip with AVX-512')
  machines = list(itertools.product(('cpu', 'gpu'), chips))
  assert [narrow.runs_on(*machine) for machine in machines] == [True, False, False, False]
  assert [any_cpu.runs_on(*machine) for machine in machines] == [True, True, False, False]
  assert [gpu.runs_on(*machine) for machine in machines] == [False, False, True, True]
  assert [row.plain_too() for row in (narrow, any_cpu, gpu)] == [(False, True), (False,), (False,)]


START = {
  'import_seconds': 0.987,
  'first_step_cold_seconds': 6.0,
  'first_step_warm_seconds': 4.321,
  'spread': {
    'import_seconds': [0.9, 1.1],
    'first_step_cold_seconds': [5.0, 7.0],
    'first_step_warm_seconds': [4.0, 5.0],
  },
  'config': 'configs/quickstart.py',
  'rounds': 3,
  'environment': figures(1.0)['environment'] | {'git_commit': 'abcdefghij'},
}


def test_a_start_is_a_table_of_its_own():
  text = speed_page.text_of(FOUND | {'startup': START}, ROWS)
  (imported,) = cells(text, '`import sparsejax`')
  assert imported[1:] == ['0.99', '0.90', '1.10']
  assert 'in 3 fresh processes' in text
  assert 'configs/quickstart.py` to its first step done, nothing compiled before | 6.00 |' in text
  assert 'Code of commit abcdefg; 2 of 4 cores of a processor, Python 3, JAX 0.10.' in text
  assert '--only=startup' in speed_page.text_of(FOUND, ROWS)


def test_a_start_is_the_median_of_rounds_after_a_first(monkeypatch):
  seconds = iter([99.0, 3.0, 1.0, 2.0])
  monkeypatch.setattr(startup, 'one_round', lambda: {'import_seconds': next(seconds)})
  found = startup.measure(3)
  assert found['import_seconds'] == 2.0
  assert found['spread'] == {'import_seconds': [1.0, 3.0]}


def test_a_run_is_timed_to_its_first_step_and_ends_there(tmp_path):
  seconds = startup.to_first_step(tmp_path / 'run', str(commands.CACHES / 'compiled'))
  assert seconds > 0
  assert (tmp_path / 'run' / 'config.json').exists()
  assert not (tmp_path / 'run' / 'summary.json').exists()


def test_a_column_of_reasons_without_a_text_is_left_out():
  text = speed_page.text_of(FOUND, ROWS)
  assert 'the reason for each gain' in text
  assert 'what is missing' not in text
  assert '## Reasons' not in speed_page.text_of(FOUND, ROWS[1:])


@pytest.mark.parametrize(
  ('rate', 'expected'), [(None, '-'), (9.876, '9.88'), (98.76, '98.8'), (98765.4, '98,765')]
)
def test_a_rate_has_three_digits_or_all_before_the_point(rate, expected):
  assert speed_page.number(rate) == expected


def test_times_are_kept_to_four_digits_and_sizes_whole():
  kept = speed.thin({'step': [0.123456], 'memory': {'peak_bytes': 123456}, 'timed': 'what'})
  assert kept == {'step': [0.1235], 'memory': {'peak_bytes': 123456}}


def test_every_row_has_a_name_of_its_own():
  names = [row.name for row in speed_page.ROWS]
  assert len(set(names)) == len(names)


def test_the_page_leads_to_the_pages_on_answers_that_there_are(tmp_path):
  assert not speed_page.answers(tmp_path)
  (tmp_path / 'cpu_sparse').mkdir()
  (tmp_path / 'cpu_sparse' / 'README.md').touch()
  [line] = [line for line in speed_page.answers(tmp_path).splitlines() if line.startswith('- ')]
  assert line == '- [Zeros at any place, skipped on CPU](../cpu_sparse/README.md)'
