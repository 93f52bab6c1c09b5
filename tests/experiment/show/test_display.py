"""The terminal: plain text worked by hand, and that nothing written can end a run."""

import io
import math
import os
import re

import numpy as np
import pytest

from sparsejax.experiment.show import display
from sparsejax.experiment.terminal import numbers

LINE = {
  'step': 1200,
  'epoch': 3.84,
  'examples': 153600,
  'train_loss': 0.4117,
  'train_accuracy': 0.8714,
  'active_fraction': 1.0,
  'examples_per_second': 2800.0,
}

SUMMARY = {
  'test_accuracy': 0.9873,
  'weights': 266200,
  'active_weights': 26620,
  'compression': 10.0,
  'theoretical_speedup': 8.12,
  'seconds': 1234.4,
  'phases': {
    'dense': {'step': 9380, 'validation_accuracy': 0.984, 'active_weights': 266200},
    'pruned': {'step': 9380, 'validation_accuracy': 0.421, 'active_weights': 26620},
  },
  'layers': {
    'Dense_0': {'weights': 235200, 'active_weights': 18000, 'units': 784, 'active_units': 400},
    'Dense_1': {'weights': 1000, 'active_weights': 600},
  },
}


class Terminal(io.StringIO):
  """A stream that calls itself a terminal."""

  def isatty(self):
    return True


@pytest.fixture
def terminal(monkeypatch):
  """A terminal of 200 columns."""
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '200')
  return Terminal()


def visible(stream):
  """What was written, without the escape codes."""
  return re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', stream.getvalue())


def printed(show, *args):
  stream = io.StringIO()
  show(*args, stream=stream)
  return stream.getvalue()


# Numbers.


def test_small_numbers_keep_their_digits():
  assert numbers.percent(0.00051) == '0.051 %'
  assert display.format_metrics({'train_loss': 0.00042, 'active_fraction': 0.000512}) == [
    'loss 4.20e-04',
    'active 0.000512',
  ]


def test_what_is_no_number_is_a_dash():
  for write in (numbers.percent, numbers.times, numbers.count, numbers.duration):
    assert write(None) == numbers.MISSING
    assert write('none') == numbers.MISSING


def test_time_left_needs_a_rate():
  # (17160 - 1200) steps of 128 examples at 2800 a second: 729.6 s
  assert display.time_left(LINE, 17160) == pytest.approx(729.6)
  assert display.time_left({**LINE, 'step': 20000, 'examples': 2560000}, 17160) == 0
  assert display.time_left({**LINE, 'examples_per_second': 0.0}, 17160) is None
  assert display.time_left({'step': 3}, 10) is None


# Settings.


def test_settings_in_a_file_put_the_changed_first():
  config = {'seed': 0, 'model': {'name': 'resnet50', 'width': 1.0}, 'note': '', 'new': [1]}
  defaults = {'seed': 0, 'model': {'name': 'lenet5', 'width': 1.0}, 'note': ''}
  assert printed(display.settings_table, config, defaults) == (
    '* model.name  = resnet50  (default lenet5)\n'
    '* new         = [1]  (default -)\n'
    '  seed        = 0\n'
    '  model.width = 1.0\n'
    "  note        = ''\n"
  )


def test_settings_without_defaults_mark_nothing():
  assert printed(display.settings_table, {'b': 1, 'a': (1, 2)}) == '  b = 1\n  a = (1, 2)\n'
  assert printed(display.settings_table, {}) == ''


def test_settings_show_arrays_by_shape():
  config = {'data': {'images': np.zeros((3, 2), 'uint8')}, 'k': 1}
  assert printed(display.settings_table, config) == (
    '  data.images = array (3, 2) uint8\n  k           = 1\n'
  )


def test_long_settings_are_not_wrapped_in_a_file():
  chain = tuple(f'link_{n}' for n in range(100))
  assert printed(display.settings_table, {'chain': chain}) == f'  chain = {chain}\n'


def test_settings_on_a_terminal_are_a_table_and_brackets_survive(terminal):
  display.settings_table({'chain': ('[bold]x',), 'k': 1}, {'chain': (), 'k': 1}, terminal)
  text = visible(terminal)
  assert "* chain   ('[bold]x',)" in text
  assert text.index('* chain') < text.index('  k')
  assert 'default' in text


# Progress.


def lines_of(metrics, total=17160):
  stream = io.StringIO()
  with display.Progress(total, stream) as progress:
    progress.update(1)
    progress.line(metrics)
  return stream.getvalue()


def test_a_plain_line_is_exact():
  assert lines_of(LINE) == (
    'step 1200/17160  epoch 3.8  loss 0.412  accuracy 0.871  active 1.0000'
    '  2,800 examples/s  left 0:12:10\n'
  )


def test_an_evaluation_adds_the_validation_figures():
  line = {'step': 5, 'train_loss': 0.5, 'validation_loss': 0.25, 'validation_accuracy': 0.9}
  assert lines_of(line, 5) == (
    'step 5/5  loss 0.500  validation loss 0.250  validation accuracy 0.900\n'
  )


def test_odd_lines_are_written_all_the_same():
  assert lines_of({'step': 5, 'train_loss': math.nan, 'epoch': None, 'kl': {}}, 9) == (
    'step 5/9  loss nan\n'
  )
  assert lines_of({}) == '\n'
  nan = {**LINE, 'examples_per_second': math.nan}
  assert 'left' not in lines_of(nan)


def test_a_bar_on_a_terminal(terminal):
  with display.Progress(2400, terminal) as progress:
    progress.update(600, train_loss=0.9)
    progress.line({**LINE, 'validation_accuracy': 0.86})
    progress.line({'train_loss': 0.4})
  last = visible(terminal).splitlines()[-1]
  assert ' 50 %' in last  # a line without a step leaves the bar where it is
  assert 'left 0:00:55  epoch 3.8  loss 0.400  accuracy 0.871  validation 0.860' in last


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
  monkeypatch.setenv('TERM', 'dumb')
  stream = Terminal()
  with display.Progress(10, stream) as progress:
    progress.line({'step': 1})
  assert stream.getvalue() == 'step 1/10\n'


def test_an_error_inside_passes_through(terminal):
  with (
    pytest.raises(ZeroDivisionError),
    display.Progress(10, terminal) as progress,
  ):
    progress.update(1 // 0)


# A stream that breaks.


def use_all(stream):
  with display.Progress(3, stream) as progress:
    for step in range(3):
      progress.line({'step': step})
      progress.update(step)
  display.settings_table({'a': 1}, {'a': 2}, stream)
  display.final_table(SUMMARY, stream)


def test_a_closed_pipe_does_not_end_the_run():
  read, write = os.pipe()
  os.close(read)
  stream = os.fdopen(write, 'w')
  use_all(stream)
  with pytest.raises(BrokenPipeError):
    stream.close()  # the caller's own stream is not touched, except where it is stdout


def test_a_closed_pipe_as_stdout_leaves_nothing_to_fail_at_exit(monkeypatch):
  read, write = os.pipe()
  os.close(read)
  stream = os.fdopen(write, 'w')
  monkeypatch.setattr('sys.stdout', stream)
  use_all(None)
  print('after', file=stream)
  stream.close()


def test_a_closed_stream_and_a_full_disk_do_not_end_the_run(terminal):
  class Full(Terminal):
    def write(self, text):
      raise OSError(28, 'No space left on device')

  closed = io.StringIO()
  closed.close()
  for stream in (closed, Full()):
    use_all(stream)


def test_letters_that_the_stream_lacks_are_replaced():
  raw = io.BytesIO()
  stream = io.TextIOWrapper(raw, encoding='ascii')
  display.settings_table({'name': 'Dvořák'}, stream=stream)
  assert raw.getvalue() == b'  name = Dvo??k\n'


# The result.


@pytest.mark.parametrize('ratio', [None, math.inf])
def test_a_ratio_to_nothing_is_infinite_in_memory_and_from_a_file(ratio):
  ratios = {'compression': ratio, 'theoretical_speedup': ratio}
  told = printed(display.final_table, ratios | {'phases': {'final': {'step': 1, **ratios}}})
  assert 'compression infinite, theoretical speed-up infinite' in told
  assert told.count('infinite') == 4


def test_the_final_table_in_a_file_is_exact():
  assert printed(display.final_table, SUMMARY) == (
    'Layers\n'
    'layer    weights  active  active share  units  active units\n'
    'Dense_0  235,200  18,000        7.65 %    784           400\n'
    'Dense_1    1,000     600       60.00 %      -             -\n'
    '\n'
    'Phases\n'
    'phase    step  validation accuracy  active weights\n'
    'dense   9,380              98.40 %         266,200\n'
    'pruned  9,380              42.10 %          26,620\n'
    '\n'
    'test accuracy 98.73 %, test error 1.27 %, active weights 26,620 / 266,200 (10.00 %), '
    'compression 10.0x, theoretical speed-up 8.1x, 1,234 seconds\n'
  )


CUT, NO_CUT = ('dense', 'pruned', 'retrained'), ('before masks', 'last mask', 'final')


@pytest.mark.parametrize(
  ('before', 'after', 'names', 'said'),
  [
    ((5, 100), (5, 10), CUT, ''),
    ((0, 100), (7, 10), NO_CUT, 'cut: none: sparse from the start'),
    ((5, 10), (5, 10), NO_CUT, 'cut: none: zero before'),
    ((5, 100), (7, 100), NO_CUT, ''),
  ],
)
def test_only_of_a_cut_a_phase_is_called_dense_or_pruned(before, after, names, said):
  rows = [{'step': step, 'active_weights': n} for step, n in (before, after, (9, 10))]
  summary = {'weights': 100, 'phases': dict(zip(CUT, rows, strict=True))}
  lines = printed(display.final_table, summary).splitlines()
  cells = [re.split('  +', line) for line in lines[2:5]]
  wanted = zip(names, rows, strict=True)
  assert cells == [[name, str(row['step']), str(row['active_weights'])] for name, row in wanted]
  assert lines[5] == said


def test_a_network_that_another_run_trained_is_cut_at_step_0():
  rows = [{'step': 0, 'active_weights': n} for n in (100, 10)]
  phases = dict(zip(CUT[:2], rows, strict=True))
  text = printed(display.final_table, {'weights': 100, 'phases': phases, 'is_pretrained': True})
  assert 'dense      0' in text
  assert 'cut:' not in text
  text = printed(display.final_table, {'weights': 100, 'phases': phases, 'is_pretrained': False})
  assert 'cut: none: sparse from the start' in text


def test_layers_may_be_a_list():
  rows = [{'name': 'conv1', 'weights': 500, 'active_weights': 50}, {'weights': 10}]
  text = printed(display.final_table, {'layers': rows})
  assert 'conv1      500      50       10.00 %\n1           10       -             -\n' in text


def test_layers_of_which_nothing_is_left_are_named():
  rows = {'fc1': {'weights': 5, 'active_weights': 0}, 'fc2': {'weights': 5, 'active_weights': 1}}
  text = printed(display.final_table, {'layers': rows})
  assert 'nothing is left of fc1\n' in text
  assert 'nothing is left' not in printed(display.final_table, SUMMARY)


def test_an_empty_summary_prints_dashes():
  assert printed(display.final_table, {}) == (
    'test accuracy -, test error -, active weights - / - (-), compression -, '
    'theoretical speed-up -, - seconds\n'
  )


def test_the_final_table_on_a_terminal_says_the_same(terminal):
  display.final_table(SUMMARY, terminal)
  words = visible(terminal).split()
  assert [word for word in words if set(word) != {'─'}] == (
    printed(display.final_table, SUMMARY).split()
  )
