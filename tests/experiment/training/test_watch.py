"""A watcher can stop a run after an evaluation, and the run goes on as if it had not stopped."""

import os
import signal

import commands
import pytest

from configs import quickstart
from sparsejax.experiment.config import base
from sparsejax.experiment.run import run
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.show import display
from sparsejax.experiment.terminal.errors import PausedError, TerminatedError

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')

EPOCHS = 4


def train(path, watch=None, **changes):
  config = quickstart.get_config()
  config.epochs = float(EPOCHS)
  config.prune.begin_epochs = 2.0
  config.update_from_flattened_dict(changes)
  config.log.checkpoint_every_epochs = 4.0
  config = base.complete(config).to_dict() | {'name': 'quickstart'}
  return run(config, base.defaults(config), version=base.VERSION, workdir=path, watch=watch)


def test_a_run_that_was_stopped_goes_on_to_the_same_figures(tmp_path):
  train(tmp_path / 'whole')
  seen = []

  def watch(line):
    seen.append(line['epoch'])
    return line['epoch'] in (1, 2)

  for _ in range(2):
    with pytest.raises(PausedError):
      train(tmp_path / 'parts', watch)
    assert not (tmp_path / 'parts' / 'summary.json').exists()
  train(tmp_path / 'parts', watch)
  assert [epoch for epoch in seen if epoch == int(epoch)] == [1, 2, 3, 4]  # and one just cut
  assert commands.metrics(tmp_path / 'parts') == commands.metrics(tmp_path / 'whole')
  assert commands.summary(tmp_path / 'parts') == commands.summary(tmp_path / 'whole')


def test_the_last_evaluation_can_not_stop_what_is_over(tmp_path):
  summary = train(tmp_path / 'run', lambda line: line['epoch'] == EPOCHS)
  assert summary['best_step'] > summary['steps'] / 2  # the cut, behind which the network counts
  assert (tmp_path / 'run' / 'summary.json').exists()


def test_a_signal_comes_before_a_stop(tmp_path):
  def watch(line):
    os.kill(os.getpid(), signal.SIGTERM)
    return line['epoch'] == 1

  with pytest.raises(TerminatedError) as caught:
    train(tmp_path / 'run', watch)
  assert caught.value.signal == signal.SIGTERM


def test_a_signal_while_what_is_stopped_is_saved_is_not_lost(tmp_path, monkeypatch):
  save = checkpoint.save

  def signalled(*arguments, **options):
    monkeypatch.setattr(checkpoint, 'save', save)
    save(*arguments, **options)
    os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(checkpoint, 'save', signalled)
  with pytest.raises(TerminatedError):
    train(tmp_path / 'run', lambda line: line['epoch'] == 1)


def test_a_signal_is_heeded_after_an_epoch_where_nothing_is_logged(tmp_path, monkeypatch):
  trained = []

  def signalled(progress, step):
    if not trained:
      os.kill(os.getpid(), signal.SIGTERM)
    trained.append(step)

  monkeypatch.setattr(display.Progress, 'update', signalled)
  with pytest.raises(TerminatedError, match='SIGTERM: saved at step') as caught:
    train(tmp_path / 'run', **{'log.every_steps': 1000, 'evaluation.every_epochs': 4.0})
  (step,) = trained
  assert str(caught.value).endswith(f' {step}')
