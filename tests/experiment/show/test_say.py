"""Whatever is printed passes through one function: nothing of anybody's moves the cursor."""

import ast
import io
import logging
import pathlib
import re
import subprocess
import sys
import unicodedata

import pytest
from absl import logging as absl_logging
from hypothesis import given
from hypothesis import strategies as st

import sparsejax
from sparsejax import launch
from sparsejax.experiment.show import display
from sparsejax.experiment.terminal import logs, say

PACKAGE = pathlib.Path(sparsejax.__file__).parent
CONTROLS = [*map(chr, (*range(32), *range(127, 160)))]
TURNING = [chr(c) for c in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
EVIL = f'{"".join(CONTROLS)}{"".join(TURNING)}\u2028\u2029\udcff'
OWN = re.compile(r'\r?\x1b\[[0-9;?]*[A-Za-z]')  # what rich writes for colours and its bar


@pytest.mark.parametrize('letter', [*CONTROLS, *TURNING, '\u2028', '\u2029', '\ud800'])
def test_what_does_something_is_written_as_its_escape(letter):
  text = say.printable(f'a{letter}b')
  assert text.isprintable()
  assert text.encode().decode('unicode_escape') == f'a{letter}b'


@given(st.text())
def test_what_is_printable_is_one_line_and_stays_what_it_is(text):
  shown = say.printable(text)
  assert not set(shown) & {*CONTROLS, *TURNING}
  assert shown.splitlines() == ([shown] if shown else [])
  assert say.printable(shown) == shown
  shown.encode()


@given(st.text(st.characters(categories=('L', 'M', 'N', 'P', 'S', 'Zs'))))
def test_letters_of_every_script_are_left(text):
  assert say.printable(text) == text


def raw(text):
  """The characters of a printed text that act on a terminal, except line ends and rich's own."""
  return [c for c in OWN.sub('', text) if c != '\n' and unicodedata.category(c) in say.NEVER]


class Terminal(io.StringIO):
  def isatty(self):
    return True


def streams(monkeypatch, columns):
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', str(columns))
  return io.StringIO(), Terminal()


@pytest.mark.parametrize('columns', [40, 200])
def test_no_setting_name_or_figure_does_anything(monkeypatch, columns):
  row = {'weights': 5, 'active_weights': 0, EVIL: EVIL}
  bits = {'architecture': [EVIL], 'bits': {EVIL: EVIL}, 'test_accuracy_with_bits': 0.5}
  summary = {'layers': {EVIL: row}, 'phases': {EVIL: {'step': EVIL}}, 'deployed_from': EVIL}
  summary |= {'compression_with_bits': 2.0} | bits
  for stream in streams(monkeypatch, columns):
    display.settings_table({EVIL: EVIL, 'a': {'b': 1}}, {EVIL: f'{EVIL}!', 'a': {'b': 1}}, stream)
    display.final_table(summary, stream)
    with display.Progress(3, stream) as progress:
      progress.line({'step': 1, 'epoch': EVIL, 'train_loss': 0.5})
    say.say(EVIL, stream)
    assert 'x1b' in stream.getvalue()
    assert not raw(stream.getvalue())


def test_a_setting_can_not_fake_a_row():
  stream = io.StringIO()
  display.settings_table({'note': 'x\n  seed = 7', 'seed': 0}, stream=stream)
  assert stream.getvalue() == '  note = x\\n  seed = 7\n  seed = 0\n'


def test_an_error_that_quotes_a_value_is_a_line(capsys):
  assert launch.main(['launch.py', '--config=configs/quickstart.py', f'--config.seed={EVIL}']) == 2
  error = capsys.readouterr().err
  assert error.startswith('launch.py: ')
  assert error.count('\n') == 1
  assert not raw(error)


def test_a_warning_that_quotes_a_value_is_a_line():
  handler = absl_logging.get_absl_handler()
  before, level = handler.formatter, absl_logging.get_verbosity()
  try:
    logs.show_warnings()
    record = logging.LogRecord('absl', logging.WARNING, 'a.py', 1, 'a %s b', (EVIL,), None)
    text = handler.format(record)
  finally:
    handler.setFormatter(before)
    absl_logging.set_verbosity(level)
  assert '\n' not in text
  assert not raw(text)


def test_a_traceback_that_quotes_a_value_does_nothing():
  program = (
    'import sys; from sparsejax.experiment import command\n'
    'def main(argv): raise RuntimeError("\\x1b[31m red \\u202e")\n'
    'command.guarded(main, sys.argv)'
  )
  command = [sys.executable, '-c', program]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert 'RuntimeError: \\x1b[31m red \\u202e\n' in done.stderr
  assert not raw(done.stderr)


def calls(path):
  """What a file prints by: (line, call) of every print, and of every write to a standard stream."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call):
      name = ast.unparse(node.func)
      if name == 'print' or name.endswith('.print') or re.search(r'sys\.(__)?std\w+\.write', name):
        yield node.lineno, name


def test_nobody_prints_but_by_the_one_function():
  others = {
    PACKAGE / 'experiment' / 'terminal' / 'console.py': 2
  }  # a line and a table, made printable there
  for path in PACKAGE.rglob('*.py'):
    if 'torch_peer' not in path.parts:  # a process of its own, which is read and not shown
      assert len(list(calls(path))) == others.get(path, 0), path


# Narrow terminals.

LAYERS = {
  f'block{n}/convolution': {
    **{
      'weights': 2_359_296,
      'active_weights': 117_965,
      'units': 512,
      'active_units': 33,
      'bits': 11,
    }
  }
  for n in range(3)
}
SUMMARY = {
  **{'test_accuracy': 0.9873, 'weights': 14_723_136, 'active_weights': 736_156},
  **{'compression': 19.9, 'theoretical_speedup': 8.12, 'seconds': 12_345.0, 'layers': LAYERS},
  'phases': {
    'dense': {'step': 93_800, 'validation_accuracy': 0.984, 'active_weights': 14_723_136},
    'pruned': {'step': 93_800, 'validation_accuracy': 0.4213, 'compression': 1_280.0},
  },
}


def figures(text):
  return re.findall(r'[\d.,]*\d(?:e-?\d+)?', OWN.sub('', text))


@pytest.mark.parametrize('columns', [20, 30, 40, 60, 80, 300])
def test_no_figure_of_a_result_is_cut_however_narrow_the_terminal(monkeypatch, columns):
  plain, narrow = streams(monkeypatch, columns)
  for stream in (plain, narrow):
    display.final_table(SUMMARY, stream)
  wanted = [n for n in figures(plain.getvalue()) if n not in ('0', '1', '2')]  # of block0
  found = figures(narrow.getvalue())
  assert {number: wanted.count(number) for number in wanted}.items() <= (
    {number: found.count(number) for number in found}.items()
  )
  assert '…' not in narrow.getvalue()
  lines = OWN.sub('', narrow.getvalue()).splitlines()
  assert max(map(len, lines)) <= columns


@pytest.mark.parametrize('columns', [30, 40, 80])
def test_no_setting_is_cut_however_narrow_the_terminal(monkeypatch, columns):
  _, narrow = streams(monkeypatch, columns)
  config = {'scale_by_learning_rate': {'learning_rate': {'value': 0.00012345678}}, 'seed': 12345}
  config |= {'chain': ('scale_by_adam', 'add_decayed_weights', 'scale_by_learning_rate', 'prune')}
  usual = {'scale_by_learning_rate': {'learning_rate': {'value': 1e-3}}, 'seed': 0, 'chain': ()}
  display.settings_table(config, usual, narrow)
  text = OWN.sub('', narrow.getvalue())
  assert {'0.00012345678', '12345', '0.001'} <= set(figures(text))
  assert '…' not in text
  assert max(map(len, text.splitlines())) <= columns + 24  # names are whole too


@pytest.mark.parametrize('columns', [20, 40, 60, 100])
def test_no_figure_of_the_progress_is_cut(monkeypatch, columns):
  _, narrow = streams(monkeypatch, columns)
  line = {'step': 1200, 'epoch': 3.84, 'examples': 153_600, 'train_loss': 0.41174}
  line |= {'train_accuracy': 0.8714, 'active_fraction': 0.0512, 'examples_per_second': 2800.0}
  with display.Progress(2400, narrow) as progress:
    progress.line(line)
  parts = ['50', '0:00:55', '3.8', '0.412', '0.871', '0.0512', '2,800']
  last = OWN.sub('', narrow.getvalue().rpartition('\r')[2])
  assert '…' not in last
  assert set(re.findall(r'[\d.,:]*\d', last)) <= {*parts}
  assert ('3.8' in last) == (columns > 45)


def test_a_compression_with_bits_says_what_it_leaves_out():
  stream = io.StringIO()
  summary = {'architecture': [3], 'bits': {'fc': 7}, 'test_accuracy_with_bits': 0.5}
  display.final_table(summary | {'compression_with_bits': 36.0}, stream)
  line = 'with 7 bits 36.0x (positions and biases not counted) at 50.00 % test error'
  assert line in stream.getvalue()
