"""Whatever is wrong with one run is said in its row, in plain words, and never ends the report."""

import copy
import csv
import json
import math
import os

import numpy as np
import pytest
from run_folders import edit, read_csv, write_run, write_sweep

from sparsejax import report
from sparsejax.experiment.rundir import digests
from sparsejax.experiment.terminal.say import printable
from sparsejax.reports import whole
from sparsejax.reports.figures import drawing, experiments, interactive
from sparsejax.reports.records import collect, curves, reading
from sparsejax.reports.text import tables


@pytest.fixture
def without_figures(monkeypatch):
  """Those take most of the time; a test of its own draws them."""
  monkeypatch.setattr(drawing, '_plan_tasks', lambda *_: ())


def reported(tmp_path):
  """The rows of a report over tmp_path/runs."""
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  assert '</html>' in (tmp_path / 'out' / 'report.html').read_text()
  return read_csv(tmp_path / 'out')


DEEP = '[' * 100_000 + ']' * 100_000


def test_the_summary_of_a_run_that_had_ended_is_missed(tmp_path, without_figures):
  path = write_run(tmp_path / 'runs' / 'odd')
  digests.write(path, (path / 'summary.json').read_text())
  (path / 'summary.json').unlink()
  assert 'summary.json is not as the run wrote it' in reported(tmp_path)['odd']['problems']


@pytest.mark.parametrize('name', ['summary', 'config', 'environment', 'metrics'])
@pytest.mark.parametrize(
  ('content', 'problem'),
  [
    (DEEP, 'nested more than 24 levels deep'),
    ('{"a": ' * 30 + '1' + '}' * 30, 'nested more than 24 levels deep'),
    ('null', 'holds no'),
    ('"text"', 'holds no'),
    ('1' * 5000, 'cannot be read: Exceeds the limit'),
    ('\udcff', 'cannot be read: '),
  ],
)
def test_a_file_that_is_none_is_a_row_that_says_so(
  tmp_path, without_figures, name, content, problem
):
  write_run(tmp_path / 'runs' / 'whole', density=0.02)
  path = write_run(tmp_path / 'runs' / 'odd')
  suffix = 'jsonl' if name == 'metrics' else 'json'
  (path / f'{name}.{suffix}').write_bytes(os.fsencode(content))
  rows = reported(tmp_path)
  assert rows['whole']['problems'] == ''
  wanted = 'is cut off or not a line of metrics' if name == 'metrics' else problem
  assert f'{name}.{suffix}' in rows['odd']['problems']
  assert wanted in rows['odd']['problems']


STEP = int(os.environ.get('STEP', 4))
ODD = [
  *(None, True, False, -1, 0, 2, 1e-320, 1e308, -1e308, 10**400, float('nan'), float('inf')),
  *('', 'text', '-0', '\x1b[31m', 'n' * 300, '\ud800', '$x$ \\frac', '=1+1', 'a|b\nc', '<script>'),
  *([], [1, 'a', None], {}, {'a': {'b': [1]}}, [[[]]]),
]


def places(content, path=()):
  """Every place in nested content."""
  yield path
  if isinstance(content, dict | list):
    for key in content if isinstance(content, dict) else range(len(content)):
      yield from places(content[key], (*path, key))


def put(content, path, value):
  if not path:
    return value
  content = copy.deepcopy(content)
  held = content
  for key in path[:-1]:
    held = held[key]
  held[path[-1]] = value
  return content


BINS = {'from': -8.0, 'to': 8.0, 'counts': [3, 40], 'threshold': 2.0, 'suggested_threshold': 1.0}


def write_odd(root):
  """A run for every place of every file, with one odd value in each; returns how many."""
  whole = write_run(root / 'whole', density=0.02)
  edit(whole / 'summary.json', log_alpha={'fc1': BINS}, bits={'fc1': 4})
  edit(whole / 'config.json', chain=['sgd', 'prune'], lobs={'density': 0.1}, layers='sparse_vd')
  count = 0
  for file in ('config.json', 'summary.json', 'environment.json'):
    content = json.loads((whole / file).read_text())
    for n, path in enumerate(places(content)):
      for value in (ODD[(n + k) % len(ODD)] for k in range(0, len(ODD), STEP)):
        run = write_run(root / f'{file}{count}', seed=count)
        (run / file).write_text(json.dumps(put(content, path, value)))
        count += 1
  line = {'epoch': 1.0, 'validation_accuracy': 0.5, 'validation_loss': 1.0, 'train_loss': 1.0}
  for path in places(line):
    for value in ODD:
      write_run(root / f'metrics{count}', seed=count, metrics=[put(line, path, value)])
      count += 1
  return count


def test_one_odd_value_anywhere_is_a_row_and_no_more(tmp_path, without_figures, monkeypatch):
  count = write_odd(tmp_path / 'runs')
  alone = []
  monkeypatch.setattr(whole, '_checked_for_page', alone.append)
  rows = reported(tmp_path)
  # All was seen on reading: the nets are for what nobody thought of.
  assert not alone
  assert not [row for row in rows.values() if 'it cannot be' in row['problems']]
  assert len(rows) == count + 1
  assert rows['whole']['state'] == 'finished'
  assert {row['state'] for row in rows.values()} <= {'finished', 'collapsed', 'failed', 'broken'}


def test_what_nobody_thought_of_is_a_row_and_no_end(tmp_path, without_figures, monkeypatch):
  for n in range(3):
    write_run(tmp_path / 'runs' / f'run{n}', seed=n)
  row, read = tables.row, curves.read

  def fails(run, root):
    if run.config.get('seed') == 1:
      raise ZeroDivisionError('in\none cell')
    return row(run, root)

  def fails_to_read(path, problems):
    if path.parent.name == 'run2':
      raise MemoryError
    return read(path, problems)

  monkeypatch.setattr(tables, 'row', fails)
  monkeypatch.setattr(curves, 'read', fails_to_read)
  rows = reported(tmp_path)
  assert {name: (row['state'], row['problems']) for name, row in rows.items()} == {
    'run0': ('finished', ''),
    'run1': ('broken', 'it cannot be shown: ZeroDivisionError: in one cell'),
    'run2': ('broken', 'it cannot be read: MemoryError: MemoryError'),
  }


def test_a_figure_that_can_not_be_drawn_is_a_line_and_the_others_are_drawn(tmp_path, monkeypatch):
  write_run(tmp_path / 'runs' / 'a')

  def fails(*_):
    raise ArithmeticError('no such axis')

  monkeypatch.setattr(experiments, 'traces', fails)
  monkeypatch.setattr(interactive, 'pareto', fails)
  reported(tmp_path)
  assert not list((tmp_path / 'out').glob('*.traces.*'))
  assert (tmp_path / 'out' / 'lenet300_on_mnist.pareto.png').exists()
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '| lenet300_on_mnist.traces | not drawn | no such axis |' in text
  assert 'cannot be drawn: no such axis' in (tmp_path / 'out' / 'report.html').read_text()


def test_odd_figures_and_names_are_drawn(tmp_path):
  long = 'n' * 300
  path = write_run(tmp_path / 'runs' / ('x' * 255), method=long)
  edit(path / 'config.json', model={'name': f'$x$ {long}', 'width': 8})
  counts = {long: {'weights': 800, 'active_weights': 40, 'units': 20, 'active_units': 5}}
  edit(path / 'summary.json', layers=counts, active_fraction=1e-44, validation_accuracy=1e-45)
  tiny = [
    {'epoch': 3e38, 'validation_accuracy': 1e-45, 'validation_loss': 3e38, 'active_fraction': 1e-44}
  ]
  write_run(tmp_path / 'runs' / 'tiny', metrics=[{'epoch': 0, 'validation_loss': 1e-45}, *tiny])
  rows = reported(tmp_path)
  assert {row['problems'] for row in rows.values()} == {''}
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert 'not drawn' not in text
  assert len(list((tmp_path / 'out').glob('*.traces.png'))) == 2


def test_figures_that_can_not_be_are_named(tmp_path, without_figures):
  edit(write_run(tmp_path / 'runs' / 'a') / 'summary.json', active_fraction=1e-320)
  edit(write_run(tmp_path / 'runs' / 'b') / 'summary.json', weights=10**400)
  edit(write_run(tmp_path / 'runs' / 'c') / 'config.json', seed=[0])
  write_run(tmp_path / 'runs' / 'd', environment=[], config='null', summary=None)
  problems = {name: row['problems'] for name, row in reported(tmp_path).items()}
  assert problems == {
    'a': 'summary.json has no active_fraction that is a number from 0 to 1: 1e-320',
    'b': 'summary.json has no weights that is a number of 0 or more: an integer of 401 digits',
    'c': 'config.json has no seed that is a whole number',
    'd': 'config.json holds no dict',
  }


# Links.


def test_a_linked_run_is_one_of_the_folder_that_has_the_link(tmp_path):
  there = write_run(tmp_path / 'elsewhere' / 'run')
  write_run(tmp_path / 'runs' / 'own', density=0.2)
  (tmp_path / 'runs' / 'linked').symlink_to(there)
  rows = reported(tmp_path)
  assert {name: row['problems'] for name, row in rows.items()} == {'linked': '', 'own': ''}
  assert (tmp_path / 'out' / rows['linked']['path'] / 'summary.json').exists()


def test_links_that_lead_back_and_twice_to_one_run_are_followed_once(tmp_path):
  runs = tmp_path / 'runs'
  write_run(runs / 'z')
  write_run(tmp_path / 'elsewhere' / 'deep' / 'y', density=0.2)
  (tmp_path / 'elsewhere' / 'deep' / 'back').symlink_to(runs)
  (runs / 'a').symlink_to(runs / 'z')
  (runs / 'b').symlink_to(runs)
  (runs / 'c').symlink_to(tmp_path / 'elsewhere')
  (runs / 'd').symlink_to(tmp_path / 'elsewhere')
  found = collect.collect([runs])
  assert [run.path for run in found] == [runs / 'c' / 'deep' / 'y', runs / 'z']
  assert collect.collect([runs, tmp_path / 'elsewhere'])[0].path == (
    tmp_path / 'elsewhere' / 'deep' / 'y'
  )


def test_a_linked_search_is_a_search(tmp_path):
  write_run(tmp_path / 'elsewhere' / 'runs' / 'b0-000')
  write_sweep(tmp_path / 'elsewhere', 'none')
  (tmp_path / 'linked').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'some').mkdir()
  (tmp_path / 'some' / 'search').symlink_to(tmp_path / 'elsewhere')
  for folder in ('linked', 'some'):
    (run,) = collect.collect([tmp_path / folder])
    assert run.search is not None


def test_a_link_to_nothing_and_one_to_itself_say_so(tmp_path, without_figures):
  write_run(tmp_path / 'runs' / 'a')
  (tmp_path / 'runs' / 'gone').symlink_to(tmp_path / 'nowhere')
  (tmp_path / 'runs' / 'itself').symlink_to('itself')
  (tmp_path / 'runs' / 'a' / 'latest').symlink_to('nothing')  # a run's own affair
  rows = reported(tmp_path)
  assert set(rows) == {'a', 'gone', 'itself'}
  assert rows['gone']['state'] == 'broken'
  assert rows['gone']['problems'] == (
    f'it is a link to {tmp_path}/nowhere: No such file or directory'
  )
  assert rows['itself']['problems'] == ('it is a link to itself: Too many levels of symbolic links')


# Letters that do something.

NAUGHTY = 'red\x1b[31m\x07\x9b2J\nfake | row\r\u202e\u2028\x7f\udc80'


def test_no_control_reaches_any_file(tmp_path, without_figures):
  write_run(tmp_path / 'runs' / 'a\x1b[31m\nb', method=NAUGHTY, hash=NAUGHTY)
  path = write_run(tmp_path / 'runs' / os.fsdecode(b'\xff\x1b'), density=0.2)
  edit(path / 'config.json', **{NAUGHTY: NAUGHTY}, model={'name': NAUGHTY})
  edit(path / 'summary.json', layers={NAUGHTY: {'weights': 5, 'active_weights': 2}})
  write_run(tmp_path / 'runs' / 'failed', summary=None)
  (tmp_path / 'runs' / 'failed' / 'traceback.txt').write_bytes(b'Error: \x1b[2J\xff')
  reported(tmp_path)
  for name in ('runs.csv', 'report.md', 'report.html'):
    text = (tmp_path / 'out' / name).read_bytes().decode()
    text = text.partition('</head>')[2] or text  # before it is what others wrote
    assert not [letter for letter in text if printable(letter) != letter and letter != '\n']
  rows = read_csv(tmp_path / 'out')
  assert len(rows) == 3
  assert rows['failed']['problems'].startswith('Error: \\x1b[2J')


@pytest.mark.parametrize('begin', ['=', '+', '-', '@', '\t', '\r'])
def test_no_cell_begins_a_formula(tmp_path, without_figures, begin):
  path = write_run(tmp_path / 'runs' / f'{begin}cmd', method=f'{begin}1+1')
  edit(path / 'config.json', **{begin: 1}, note=f'{begin}cmd|calc', offset=-0.5, least='-1e-3')
  reported(tmp_path)
  with (tmp_path / 'out' / 'runs.csv').open(newline='') as file:
    head, row = csv.reader(file)
  assert not [cell for cell in head if cell.startswith(('=', '+', '-', '@', '\t', '\r'))]
  numbers = {'-0.5', '-1e-3'}
  assert not [
    cell for cell in {*row} - numbers if cell.startswith(('=', '+', '-', '@', '\t', '\r'))
  ]
  assert numbers <= {*row}


# Size.


def test_of_long_metrics_the_ends_and_the_extremes_of_a_bounded_curve_are_kept(tmp_path):
  values = [0.5 + 0.3 * math.sin(n / 7) for n in range(20_000)]
  values[12_345], values[777] = 0.01, 0.99
  lines = [{'epoch': n / 10, 'validation_accuracy': value} for n, value in enumerate(values)]
  path = tmp_path / 'metrics.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  problems = []
  found = curves.read(path, problems)
  epochs, kept = found.curves['validation_accuracy']
  assert not problems
  assert len(kept) <= curves.MOST
  assert (epochs[0], epochs[-1]) == (0.0, 1999.9)
  assert (kept[0], kept[-1]) == (values[0], values[-1])
  assert {0.01, 0.99} <= set(kept)
  assert all(value == values[round(10 * epoch)] for epoch, value in zip(epochs, kept, strict=True))
  assert list(epochs) == sorted(epochs)
  assert found.last == lines[-1]


def test_thinning_by_hand():
  points = np.array([(n, value) for n, value in enumerate([3, 1, 2, 5, 4, 4, 0, 6])], float)
  assert curves.thinned(points, most=8).tolist() == points.tolist()
  # Two stretches of four: of the first 1 and 5, of the second 0 and 6; the ends are 3 and 6.
  assert curves.thinned(points, most=6)[:, 1].tolist() == [3, 1, 5, 0, 6]


def test_a_line_without_an_end_and_a_file_without_one_are_not_held(tmp_path, monkeypatch):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'{"epoch": 1.0}\n' + b'x' * (3 << 20) + b'\n{"epoch": 2.0}\n')
  problems = []
  assert curves.read(path, problems).last == {'epoch': 2.0}
  assert problems == ['metrics.jsonl, line 2, is cut off or not a line of metrics']
  monkeypatch.setattr(reading, 'MOST_BYTES', 10)
  path.write_text('[' + '1,' * 10 + '1]')
  with pytest.raises(reading.ReadingError, match='23 bytes; at most 10 are read'):
    reading.read(path)


@pytest.mark.parametrize(
  ('kept', 'what'),
  [
    (lambda copy: '', 'lacks lines that were'),
    (lambda copy: copy[: copy.index('\n') + 1], 'lacks lines that were'),
    (lambda copy: copy.replace('1.0', '1.5', 1), 'does not begin with the lines'),
    (lambda copy: '{"epoch": 1.0}\n' * 100, 'does not begin with the lines'),  # another run's
  ],
)
def test_an_unfinished_run_whose_metrics_are_not_those_saved_says_so(
  tmp_path, without_figures, kept, what
):
  run = tmp_path / 'runs' / 'unfinished'
  write_run(run, summary=None)
  (run / 'checkpoints' / '000000020').mkdir(parents=True)
  copy = (run / 'metrics.jsonl').read_text() * 2 + '{"epoch": 1.0}\n' * 2
  (run / 'checkpoints' / '000000020' / 'metrics.jsonl').write_text(copy)
  (run / 'metrics.jsonl').write_text(kept(copy))
  said = f'metrics.jsonl {what} there at step 20, when it was saved'
  assert reported(tmp_path)['unfinished']['problems'] == said
  (run / 'metrics.jsonl').write_text(copy + '{"epoch": 2.0}\n')
  assert reported(tmp_path)['unfinished']['problems'] == ''


def test_a_finished_run_that_lost_its_environment_says_so(tmp_path, without_figures):
  write_run(tmp_path / 'runs' / 'finished', environment=None)
  write_run(tmp_path / 'runs' / 'unfinished', environment=None, summary=None, seed=1)
  rows = reported(tmp_path)
  assert rows['finished']['problems'] == 'environment.json is missing'
  assert rows['finished']['state'] == 'finished'
  assert rows['unfinished']['problems'] == 'environment.json is missing'
