"""metrics.jsonl: lines that a kill keeps, and none that tells of the restart."""

import json

import pytest

from sparsejax.experiment import files, metrics

LINES = [{'step': step, 'train_loss': 1 / (step + 3)} for step in (0, 10, 20, 30)]


def write(path, lines, rest=''):
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines) + rest)


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'metrics.jsonl'


def opened(path, step):
  file = metrics.MetricsFile(path, step)
  file.close()
  return file.lines


def test_a_new_file_gets_a_line_for_each_append_at_once(path):
  file = metrics.MetricsFile(path, 0)
  assert path.read_text() == ''
  for n, line in enumerate(LINES, start=1):
    file.append(line)
    assert metrics.read(path) == LINES[:n]  # though the file is open still: a kill keeps it
  file.sync()
  file.close()
  assert path.read_text().endswith('\n')
  assert file.lines == LINES


def test_figures_come_back_to_the_bit(path):
  file = metrics.MetricsFile(path, 0)
  line = {'step': 3, 'a': 0.1 + 0.2, 'b': 5e-324, 'c': 1e308, 'd': 2**53 + 1}
  file.append(line)
  file.close()
  assert opened(path, 3) == [line]


def test_what_is_no_finite_number_is_null(path):
  file = metrics.MetricsFile(path, 0)
  file.append({'step': 3, 'loss': float('nan'), 'ratio': float('inf')})
  file.close()
  assert opened(path, 3) == [{'step': 3, 'loss': None, 'ratio': None}]


@pytest.mark.parametrize(('step', 'kept'), [(30, 4), (29, 3), (20, 3), (0, 1), (-1, 0), (99, 4)])
def test_lines_after_the_restored_step_are_cut(path, step, kept):
  write(path, LINES)
  assert opened(path, step) == LINES[:kept]
  assert metrics.read(path) == LINES[:kept]


@pytest.mark.parametrize('rest', ['{"step": 4', '{"step": 40, "train_loss": 0.5}', '{'])
def test_a_last_line_without_its_end_is_no_line(path, rest):
  write(path, LINES, rest)
  assert metrics.read(path) == LINES
  file = metrics.MetricsFile(path, 99)
  file.append({'step': 40})
  file.close()
  assert metrics.read(path) == [*LINES, {'step': 40}]


def test_going_on_adds_behind_what_was_kept(path):
  write(path, LINES)
  file = metrics.MetricsFile(path, 10)
  file.append({'step': 20, 'train_loss': 0.5})
  file.close()
  expected = [*LINES[:2], {'step': 20, 'train_loss': 0.5}]
  assert metrics.read(path) == expected
  assert file.lines == expected


def test_nothing_to_cut_leaves_the_file_untouched(path, monkeypatch):
  write(path, LINES)
  before = path.stat()
  monkeypatch.setattr(files, 'write_atomically', lambda *_: pytest.fail('rewritten'))
  opened(path, 30)
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
    metrics.MetricsFile(path, 10)
  assert path.read_bytes() == before
  assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_no_file_has_no_lines(path):
  assert metrics.read(path) == []
