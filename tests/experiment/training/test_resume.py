"""A run that is killed and started again is, to the bit, the run that was left alone.

The slow ones of these tests kill processes. In the others the run ends in this one, between two
lines of its metrics and with nothing saved.
"""

import json
import logging
import random
import signal
import time
from unittest import mock

import commands
import pytest

from sparsejax.experiment.training.writers import Writers

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

DIGITS = (
  '--config=configs/quickstart.py',
  '--config.epochs=100.0',
  '--config.prune.schedule=cubic',
  '--config.prune.end_epochs=60.0',
  '--config.log.every_steps=10',
  '--config.log.checkpoint_every_epochs=5.0',
)


def small_network(tmp_path):
  """BatchNorm, augmentation, dropout and a one-shot cut, one call a step."""
  data = commands.write_npz(tmp_path / 'data.npz')
  return (
    '--config=configs/allconv_dc.py:0.1',
    '--config.model.width=4',
    '--config.model.dropout=0.2',
    f'--config.data.name={data}',
    '--config.data.validation=32',
    '--config.batch_size=16',
    '--config.epochs=20.0',
    '--config.prune.begin_epochs=8.0',
    '--config.evaluation.batch_size=32',
    '--config.log.every_steps=3',
    '--config.log.checkpoint_every_epochs=1.5',
  )


def lines_written(workdir):
  file = workdir / 'metrics.jsonl'
  return file.read_text().count('\n') if file.exists() else 0


def stop_midway(workdir, arguments, lines, how, delay=0.0):
  """Starts the run, waits until it wrote a number of lines, stops it; returns the dead process."""
  process = commands.start(*arguments, f'--workdir={workdir}')
  while lines_written(workdir) < lines:
    assert process.poll() is None, process.communicate()
    time.sleep(0.005)
  time.sleep(delay)
  process.send_signal(how)
  process.communicate()
  assert not (workdir / 'summary.json').exists(), 'the run had ended before it was stopped'
  return process


def finish(workdir, arguments, launch=commands.launch):
  status, stdout, stderr = launch(*arguments, f'--workdir={workdir}')
  assert status == 0, stderr
  return stdout


class Killed(BaseException):
  """As a process that is killed, it lets nobody save anything."""


def kill_here(workdir, arguments, lines):
  """Starts the run in this process and ends it where it would write one line more."""
  append = Writers.append

  def append_or_end(self, line):
    if len(self.lines) == lines:
      raise Killed
    append(self, line)

  with mock.patch.object(Writers, 'append', append_or_end), pytest.raises(Killed):
    commands.launch(*arguments, f'--workdir={workdir}')
  assert not (workdir / 'summary.json').exists()


def assert_same_run(one, other):
  assert commands.metrics(one) == commands.metrics(other)
  assert commands.summary(one) == commands.summary(other)


@pytest.mark.slow
def test_five_sigkills_leave_no_trace_in_the_results(tmp_path):
  alone, killed = tmp_path / 'alone', tmp_path / 'killed'
  finish(alone, DIGITS, commands.launch_apart)
  total = len(commands.metrics(alone))
  moments = random.Random(0)
  for share in range(1, 6):
    lines = total * share // 7
    delay = moments.uniform(0, 0.1)
    process = stop_midway(killed, DIGITS, lines, signal.SIGKILL, delay)
    assert process.returncode == -signal.SIGKILL
  finish(killed, DIGITS, commands.launch_apart)
  assert_same_run(alone, killed)
  starts = json.loads((killed / 'environment.json').read_text())
  assert len(starts) == 6


@pytest.mark.slow
def test_stops_between_the_calls_of_a_convolutional_network(tmp_path):
  arguments = small_network(tmp_path)
  alone, stopped = tmp_path / 'alone', tmp_path / 'stopped'
  finish(alone, arguments, commands.launch_apart)
  total = len(commands.metrics(alone))
  killed = stop_midway(stopped, arguments, total // 4, signal.SIGKILL)
  assert killed.returncode == -signal.SIGKILL
  terminated = stop_midway(stopped, arguments, total // 2, signal.SIGTERM)
  assert terminated.returncode == 143
  finish(stopped, arguments, commands.launch_apart)
  assert_same_run(alone, stopped)


def test_a_run_with_posteriors_draws_the_same_noise_after_a_kill(tmp_path):
  arguments = (
    '--config=configs/quickstart.py',
    "--config.chain=('add_kl_gradients', 'adam')",
    '--config.adam.learning_rate=0.003',
    '--config.layers=group_normal_jeffreys',
    '--config.model.width=16',
    '--config.epochs=12.0',
    '--config.log.every_steps=10',
    '--config.log.checkpoint_every_epochs=2.0',
  )
  alone, killed = tmp_path / 'alone', tmp_path / 'killed'
  finish(alone, arguments)
  kill_here(killed, arguments, len(commands.metrics(alone)) // 2)
  assert 'going on from step' in finish(killed, arguments)
  assert_same_run(alone, killed)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(tmp_path, caplog):
  alone, damaged = tmp_path / 'alone', tmp_path / 'damaged'
  arguments = ('--config=configs/quickstart.py', '--config.epochs=22.0')
  arguments += ('--config.log.checkpoint_every_epochs=5.0',)
  finish(alone, arguments)
  kill_here(damaged, arguments, len(commands.metrics(alone)) // 2)
  newest = sorted((damaged / 'checkpoints').glob('0*'))[-1]
  largest = max((f for f in newest.rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)
  with largest.open('r+b') as file:
    file.truncate(largest.stat().st_size // 2)
  with caplog.at_level(logging.WARNING, 'absl'):
    finish(damaged, arguments)
  assert f'{newest.name} is damaged' in caplog.text
  assert_same_run(alone, damaged)


def test_a_finished_run_trains_nothing(tmp_path):
  arguments = ('--config=configs/quickstart.py', '--config.epochs=22.0')
  finish(tmp_path / 'run', arguments)
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'run').rglob('*')}
  assert 'finished' in finish(tmp_path / 'run', arguments)
  after = {path: path.stat().st_mtime_ns for path in (tmp_path / 'run').rglob('*')}
  assert {p: t for p, t in after.items() if p.name != '.lock'} == {
    p: t for p, t in before.items() if p.name != '.lock'
  }
