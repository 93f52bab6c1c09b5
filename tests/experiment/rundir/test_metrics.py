"""metrics.jsonl: lines that a kill keeps, and none that tells of the restart."""

import json

import pytest

from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import metrics

LINES = [{'step': step, 'train_loss': 1 / (step + 3)} for step in (0, 10, 20, 30)]


def text_of(lines):
  return ''.join(json.dumps(line) + '\n' for line in lines)


def write(path, lines, rest=''):
  path.write_text(text_of(lines) + rest)


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'metrics.jsonl'


def opened(path, saved):
  file = metrics.MetricsFile(path, text_of(saved))
  file.close()
  assert path.read_text() == file.text == text_of(saved)
  return file.lines


def test_a_new_file_gets_a_line_for_each_append_at_once(path):
  file = metrics.MetricsFile(path)
  assert path.read_text() == ''
  for n, line in enumerate(LINES, start=1):
    file.append(line)
    assert metrics.read(path) == LINES[:n]  # though the file is open still: a kill keeps it
  file.sync()
  file.close()
  assert path.read_text().endswith('\n')
  assert file.lines == LINES


def test_figures_come_back_to_the_bit(path):
  file = metrics.MetricsFile(path)
  line = {'step': 3, 'a': 0.1 + 0.2, 'b': 5e-324, 'c': 1e308, 'd': 2**53 + 1}
  file.append(line)
  file.close()
  assert opened(path, [line]) == [line]


def test_what_is_no_finite_number_is_null(path):
  file = metrics.MetricsFile(path)
  file.append({'step': 3, 'loss': float('nan'), 'ratio': float('inf')})
  file.close()
  assert metrics.read(path) == [{'step': 3, 'loss': None, 'ratio': None}]


@pytest.mark.parametrize('kept', range(5))
def test_lines_after_what_was_saved_are_cut(path, kept):
  write(path, LINES)
  assert opened(path, LINES[:kept]) == LINES[:kept]
  assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('saved', [LINES, LINES[:2]])
@pytest.mark.parametrize(
  'there',
  [
    '',
    text_of(LINES[:1]),
    text_of(LINES[1:]),
    text_of(LINES)[1:],
    text_of(LINES).replace('10', '11'),
    '\0' * 99,
  ],
)
def test_a_file_that_lost_its_beginning_gets_it_back_and_is_kept(path, there, saved, caplog):
  path.write_text(there)
  assert opened(path, saved) == saved
  kept = path.with_name(f'damaged-{path.name}')
  assert kept.read_text() == there
  (record,) = caplog.records
  assert f'{path} is not what this run wrote; it is now {kept.name}' in record.getMessage()


def test_a_missing_file_is_put_back_and_told(path, caplog):
  assert opened(path, LINES) == LINES
  assert f'{path} is missing, and its lines were put back' in caplog.text
  assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('rest', ['{"step": 4', '{"step": 40, "train_loss": 0.5}', '{'])
def test_a_last_line_without_its_end_is_no_line(path, rest):
  write(path, LINES, rest)
  assert metrics.read(path) == LINES
  file = metrics.MetricsFile(path, text_of(LINES))
  file.append({'step': 40})
  file.close()
  assert metrics.read(path) == [*LINES, {'step': 40}]


def test_going_on_adds_behind_what_was_kept(path):
  write(path, LINES)
  file = metrics.MetricsFile(path, text_of(LINES[:2]))
  file.append({'step': 20, 'train_loss': 0.5})
  file.close()
  expected = [*LINES[:2], {'step': 20, 'train_loss': 0.5}]
  assert metrics.read(path) == expected
  assert file.lines == expected


def test_nothing_to_cut_leaves_the_file_untouched(path, monkeypatch):
  write(path, LINES)
  before = path.stat()
  monkeypatch.setattr(files, 'write_atomically', lambda *_: pytest.fail('rewritten'))
  opened(path, LINES)
  after = path.stat()
  assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_cutting_is_one_replacement(path, monkeypatch):
  """A kill in the middle of the cut finds the old file whole."""
  write(path, LINES)
  before = path.read_bytes()

  def killed(*_):
    assert path.read_bytes() == before
    raise KeyboardInterrupt

  monkeypatch.setattr(files.os, 'replace', killed)
  with pytest.raises(KeyboardInterrupt):
    metrics.MetricsFile(path, text_of(LINES[:2]))
  assert path.read_bytes() == before
  assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_no_file_has_no_lines(path):
  assert metrics.read(path) == []
