"""A signal at any time: training saves; all else ends in one line with 128 plus its number."""

import os
import pty
import signal
import subprocess
import sys
import time

import commands
import pytest

from sparsejax.experiment.rundir import checkpoint
from sparsejax.internal import signals

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUICK = ('--config=configs/quickstart.py', '--config.epochs=5000.0')
NEVER_SAVES = '--config.log.checkpoint_every_epochs=5000.0'  # but at its end


def test_noted_calls_once_and_then_leaves_the_signal_as_it_was():
  before, seen = {n: signal.getsignal(n) for n in ENDING}, []
  with signals.noted(seen.append):
    signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)  # of a terminal that closes one comes from its shell too
  assert seen == [signal.SIGTERM, signal.SIGHUP]
  assert {n: signal.getsignal(n) for n in ENDING} == before


def test_sighup_is_left_alone_where_it_is_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    assert signals.heeded() == [signal.SIGINT, signal.SIGTERM]
    with signals.noted(print):
      signal.raise_signal(signal.SIGHUP)
      assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
  ('script', 'argv', 'command'),
  [
    (None, ['python', '-m', 'sparsejax.launch', '--config=x'], 'launch.py'),
    (None, ['python', '-X', 'dev', '-m', 'sparsejax.report'], 'report'),
    (None, ['python', '-m', 'pytest', '-m', 'sparsejax.report'], ''),
    (None, ['python', '-c', 'import sparsejax'], ''),
    (None, ['python'], ''),
    (commands.ROOT / 'launch.py', [], 'launch.py'),
    (commands.ROOT / 'tools' / 'reproduce.py', [], 'reproduce.py'),
    (commands.ROOT / 'tools' / 'costs' / 'scaling.py', [], ''),
    ('launch.py/mine.py', [], ''),
  ],
)
def test_only_commands_of_this_package_have_their_signals_taken(script, argv, command):
  assert signals.command_name(script and str(script), argv) == command


COMMANDS = {
  'launch.py': ['launch.py', *QUICK],
  'sweep': ['-m', 'sparsejax.sweep', '--config=configs/sweeps/quickstart.py', '--workdir=DIR'],
  'deploy': ['-m', 'sparsejax.deploy', '--run=DIR'],
  'ship': ['-m', 'sparsejax.ship', '--run=DIR', '--out=DIR/shipped'],
  'report': ['-m', 'sparsejax.report', 'DIR', '--out=DIR/report'],
  'benchmark': ['-m', 'sparsejax.benchmark', '--config=configs/quickstart.py'],
  'sweep_worker': ['-m', 'sparsejax.sweep_worker', 'DIR', 'sweep'],
  'reproduce.py': ['-m', 'tools.reproduce', 'mnist_lobs', '--runs=DIR', '--only=lenet300_dense'],
}
# Sends itself the signal while the package is being imported, at the second module of Optax.
SIGNAL_IN_IMPORT = """
import os, signal, sys

class Finder:
  def find_spec(self, name, path=None, target=None):
    if name.startswith('optax.'):
      os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.slow
@pytest.mark.parametrize('number', ENDING)
@pytest.mark.parametrize('command', COMMANDS)
def test_a_signal_while_a_command_imports_is_one_line(command, number, tmp_path):
  if number != signal.SIGINT and command != 'launch.py':
    pytest.skip('one command stands for all')
  (tmp_path / 'sitecustomize.py').write_text(SIGNAL_IN_IMPORT.format(number=int(number)))
  argv = [argument.replace('DIR', str(tmp_path)) for argument in COMMANDS[command]]
  done = subprocess.run(
    [sys.executable, *argv],
    cwd=commands.ROOT,
    env=commands.environment() | {'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 128 + number, done.stderr
  assert done.stderr == f'{command}: {number.name}; what was saved before is kept\n'
  assert done.stdout == ''


def test_a_library_user_gets_the_exception_as_ever():
  program = 'import sparsejax, signal; signal.raise_signal(signal.SIGINT)'
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=False
  )
  assert done.stderr.splitlines()[-1] == 'KeyboardInterrupt'


def lines_of_metrics(workdir):
  path = workdir / 'metrics.jsonl'
  return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for_lines(workdir, lines, process):
  while lines_of_metrics(workdir) < lines:
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)


@pytest.mark.slow
def test_a_terminal_that_closes_saves_first(tmp_path):
  """Its shell sends SIGHUP, so does the kernel, and nothing can be written to it any more."""
  workdir = tmp_path / 'run'
  terminal, end = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, 'launch.py', *QUICK, NEVER_SAVES, f'--workdir={workdir}'],
    cwd=commands.ROOT,
    env=commands.environment(),
    stdin=end,
    stdout=end,
    stderr=end,
    start_new_session=True,
  )
  os.close(end)
  os.set_blocking(terminal, False)
  while lines_of_metrics(workdir) < 5:
    assert process.poll() is None
    time.sleep(0.05)
    try:
      os.read(terminal, 2**20)
    except BlockingIOError:
      continue
  assert checkpoint.committed(workdir / 'checkpoints') == []
  os.close(terminal)
  for _ in range(2):
    process.send_signal(signal.SIGHUP)
  assert process.wait() == 128 + signal.SIGHUP
  assert len(checkpoint.committed(workdir / 'checkpoints')) == 1


@pytest.mark.slow
def test_nohup_keeps_training(tmp_path):
  workdir = tmp_path / 'run'
  process = subprocess.Popen(
    ['nohup', sys.executable, 'launch.py', *QUICK, f'--workdir={workdir}'],
    cwd=commands.ROOT,
    env=commands.environment(),
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for_lines(workdir, 5, process)
  process.send_signal(signal.SIGHUP)
  wait_for_lines(workdir, lines_of_metrics(workdir) + 5, process)
  process.send_signal(signal.SIGTERM)
  process.communicate()
  assert process.returncode == 128 + signal.SIGTERM
