"""What one worker does with a trial, whatever happens to its training, its study or its slot.

Training is a stand-in that writes what a run would; the study is a real one in memory.
"""

import errno
import json
import os
import signal
import sys

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from sparsejax import sweep_worker
from sparsejax.experiment import run as run_module
from sparsejax.experiment.machine import allocator, compilation, threads
from sparsejax.experiment.terminal import errors
from sparsejax.search import search_folder, storage, study, supervisor, view, worker
from sparsejax.search.plan import base, settings
from sparsejax.search.study import Study, worker_name

CONFIG = {'epochs': 9.0, 'seed': 0, 'rate': 0.1, 'evaluation': {'every_epochs': 1.0}}
RATE = {'key': 'rate', 'kind': 'log_uniform', 'low': 0.01, 'high': 1.0}


def resolve(name):
  del name
  return CONFIG


@pytest.fixture
def crew(tmp_path):
  """A worker, whose study has a search by Optuna's pruner or by brackets."""

  def make(**changes):
    config = base.get_config().to_dict() | {'space': (RATE,)}
    config['scheduler'] = config['scheduler'] | changes.pop('scheduler', {})
    study = Study(settings.check(config | changes, resolve), InMemoryStorage(), 'test')
    study.plan()
    return worker.Worker(study, tmp_path, resolve, lambda trial: (trial, 1))

  return make


class Training:
  """Stands for `run`: evaluates at given epochs; what it was called with is counted."""

  def __init__(self, *epochs, raises=()):
    self.epochs, self.raises, self.calls = epochs, list(raises), 0

  def __call__(self, trial, defaults, *, version, workdir, watch):
    self.calls += 1
    if self.raises:
      raise self.raises.pop(0)
    lines = []
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'config.json').write_text(json.dumps({'hash': 'abc'} | trial))
    for epoch in self.epochs:
      line = {'epoch': epoch, 'validation_loss': 1 / (1 + epoch), 'validation_accuracy': 0.5}
      lines.append(line)
      (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
      if watch(line):
        raise errors.PausedError
    return lines[-1] | {'epochs': lines[-1]['epoch']}


@pytest.fixture
def training(monkeypatch):
  def use(*epochs, raises=()):
    stand_in = Training(*epochs, raises=raises)
    monkeypatch.setattr(run_module, 'run', stand_in)
    return stand_in

  return use


def state_of(one, claim):
  return one.study.study.trials[claim.number].state


def test_a_trial_stops_at_its_rung_with_the_figures_of_there(crew, training):
  training(0.5, 1.0, 2.0)
  one = crew()
  claim = one.study.claim()
  one.train(claim)
  trial = one.study.study.trials[claim.number]
  assert trial.state == TrialState.PRUNED
  assert trial.user_attrs['metrics'] == {'validation_accuracy': 0.5, 'validation_loss': 0.5}


def test_what_another_process_trained_but_could_not_tell_is_told_and_not_trained(crew, training):
  stand_in = training(1.0)
  one = crew()
  claim = one.study.claim()
  tell, one.study.finish = one.study.finish, lambda *_, **__: 1 / 0
  with pytest.raises(ZeroDivisionError):
    one.train(claim)
  assert state_of(one, claim) == TrialState.FAIL
  one.study.finish = tell
  again = claim._replace(number=one.study.claim().number)
  again = again._replace(trial=again.trial.__class__(one.study.study, again.number))
  one.train(again)
  assert stand_in.calls == 1
  assert state_of(one, again) == TrialState.PRUNED


def test_lines_that_were_damaged_are_those_of_the_newest_checkpoint(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"epoch": 1.0}\n{"epo\n')
  assert worker.read_lines(tmp_path) == []
  for step in (1, 2):
    saved = tmp_path / 'checkpoints' / f'{step:09d}'
    saved.mkdir(parents=True)
    (saved / 'manifest.json').touch()
    (saved / 'metrics.jsonl').write_text(f'{{"epoch": {step}}}\n')
  assert worker.read_lines(tmp_path) == [{'epoch': 2}]


def test_an_equal_trial_takes_the_figures_of_its_rung_from_a_run_that_went_further(crew, training):
  stand_in = training(1.0, 2.0, 9.0)
  one = crew(space=({'key': 'rate', 'kind': 'choices', 'choices': (0.1, 0.2)},))
  longest = next(slot for slot in one.sweep.slots if slot.rung == 0 and slot.is_last)
  first = one.study.claim()
  one.train(first._replace(slot=longest))
  (one.folder / 'runs' / first.directory / 'summary.json').write_text('{}')
  equal = one.study.claim()
  while equal.values != first.values:
    equal = one.study.claim()
  assert equal.directory == first.directory
  one.train(equal)
  assert stand_in.calls == 1
  figures = one.study.study.trials[equal.number].user_attrs['metrics']
  assert figures == {'validation_accuracy': 0.5, 'validation_loss': 0.5}  # of epoch 1


def test_the_metrics_of_another_experiment_are_not_taken_for_its_own(crew, training, tmp_path):
  """A folder whose study was deleted, and its runs were not."""
  stand_in = training(raises=[errors.UsageError('it holds a run with hash 1, this one has 2')])
  one = crew()
  claim = one.study.claim()
  left = tmp_path / 'runs' / claim.directory
  left.mkdir(parents=True)
  (left / 'config.json').write_text(json.dumps(CONFIG | {'hash': '1', 'rate': 5.0}))
  (left / 'metrics.jsonl').write_text('{"epoch": 1.0, "validation_loss": 0.0}\n')
  one.train(claim)
  assert stand_in.calls == 1
  assert 'it holds a run' in one.study.study.trials[claim.number].user_attrs['error']


def test_a_trial_that_is_still_trained_by_another_is_waited_for(crew, training, monkeypatch):
  monkeypatch.setattr(worker.time, 'sleep', lambda seconds: None)
  stand_in = training(1.0, raises=[errors.BusyError('another process is training there')] * 2)
  one = crew()
  count = len(one.study.study.trials)
  claim = one.study.claim()
  one.train(claim)
  assert stand_in.calls == 3
  assert state_of(one, claim) == TrialState.PRUNED
  assert len(one.study.study.trials) == count


def test_a_trial_that_was_given_up_meanwhile_is_left_to_another(crew, training, capsys):
  training(0.5, 1.0)
  one = crew()
  claim = one.study.claim()
  one.study.release(one.study.study.trials[claim.number], died=True)
  one.train(claim)
  assert 'given up as lost' in capsys.readouterr().out
  trials = one.study.study.get_trials(states=(TrialState.WAITING,))
  assert claim.slot.key in [trial.user_attrs['slot'] for trial in trials]
  assert 'error' not in one.study.study.trials[claim.number].user_attrs


def test_optunas_pruner_hears_of_whole_epochs_only(crew, training):
  training(0.0, 0.5, 1.0, 1.5, 2.0, 9.0)
  one = crew(scheduler={'name': 'optuna_hyperband'}, trials=1)
  claim = one.study.claim()
  one.train(claim)
  values = one.study.study.trials[claim.number].intermediate_values
  assert values == {1: 1 / 2, 2: 1 / 3, 9: 1 / 10}


# The command's own process.


class Idle(supervisor.Supervisor):
  """Has no workers."""

  def _look_after_workers(self):
    pass


def supervise(one, monkeypatch):
  monkeypatch.setattr(supervisor.time, 'sleep', lambda seconds: None)
  monkeypatch.setattr(supervisor.signal, 'signal', lambda *_: None)
  return Idle(one.study, one.folder, (), workers=1).run()


def test_a_database_that_is_away_for_a_while_does_not_end_a_search(crew, monkeypatch, capsys):
  one = crew(scheduler={'name': 'none'}, trials=1)
  one.study.finish(one.study.claim(), {'validation_loss': 0.5}, epoch=9, stopped=False)
  read, failures = view.status, [StorageInternalError('gone')] * 3

  def status(study):
    if failures:
      raise failures.pop()
    return read(study)

  monkeypatch.setattr(view, 'status', status)
  assert supervise(one, monkeypatch) == 0
  output = capsys.readouterr().out
  assert output.count('the study cannot be reached: gone') == 1
  assert 'best so far: b0-000: trained for 9 epochs, validation_loss 0.5 (rate' in output


def test_a_search_without_one_trial_that_trains_has_failed(crew, monkeypatch, capsys, tmp_path):
  one = crew(scheduler={'eta': 9})
  while (claim := one.study.claim()) is not None or not one.study.is_over:
    if claim is not None:
      one.study.fail(claim, 'the loss of step 3 is not finite')
  assert supervise(one, monkeypatch) == 1
  captured = capsys.readouterr()
  assert 'no trial could be trained' in captured.err
  assert 'failed: b0-001: the loss of step 3' in captured.out
  assert 'failed: a place in a later rung: too few trials are left to go on' in captured.out
  kept = json.loads((tmp_path / 'trials.json').read_text())
  assert {trial['state'] for trial in kept} == {'failed'}


def test_of_two_objectives_the_front_is_best(crew, monkeypatch, capsys):
  goals = tuple(
    {'metric': name, 'direction': 'minimize'} for name in ('validation_loss', 'active_fraction')
  )
  one = crew(scheduler={'name': 'none'}, trials=3, objectives=goals)
  for loss, fraction in ((0.1, 0.5), (0.2, 0.1), (0.3, 0.2)):
    claim = one.study.claim()
    one.study.finish(
      claim, {'validation_loss': loss, 'active_fraction': fraction}, epoch=9, stopped=False
    )
  assert supervise(one, monkeypatch) == 0
  output = capsys.readouterr().out
  assert '2 trials on the front' in output
  assert 'validation_loss 0.1' in output
  assert 'validation_loss 0.3' not in output


def test_an_error_is_tried_once_more_in_a_new_process_and_then_fails_its_trial(crew, training):
  training(raises=[FileNotFoundError('data.npz')] * 2)
  one = crew()
  for _ in range(2):
    claim = one.study.claim()
    assert claim.slot.key == '0.0.0'
    with pytest.raises(FileNotFoundError):  # which ends the process
      one.train(claim)
  assert one.study.claim().slot.key == '0.0.1'
  assert one.study.trials_by_slot()['0.0.0'].user_attrs['error'] == 'FileNotFoundError: data.npz'


def caused(error, cause):
  error.__cause__ = cause
  return error


@pytest.mark.parametrize(
  'error',
  [
    errors.UnreadableError('checkpoint 7 could not be read: Input/output error'),
    *(OSError(number, os.strerror(number)) for number in (errno.EIO, errno.ESTALE, errno.EMFILE)),
    PermissionError(errno.EACCES, 'Permission denied'),
    OSError(errno.ENOSPC, 'No space left on device'),
    caused(errors.UsageError('workdir=x: Input/output error'), OSError(errno.EIO, 'bad')),
  ],
)
def test_an_error_of_the_disk_is_no_death_of_the_trial(crew, training, error):
  training(raises=[error] * 5)
  one = crew(deaths=1)
  for _ in range(5):
    claim = one.study.claim()
    assert claim.slot.key == '0.0.0'
    with pytest.raises(type(error)):
      one.train(claim)
  assert one.study.trials_by_slot()['0.0.0'].state == TrialState.WAITING


class FailsByTheDisk(supervisor.Supervisor):
  """Each of its workers takes a trial, reaches an epoch of `epochs`, and ends by the disk."""

  started, epochs = 0, ()

  def _start(self, index):
    self.started += 1
    claim = claimed_by(self, self.started)
    if self.started <= len(self.epochs):
      self.study.note_epoch(claim, self.epochs[self.started - 1])
    self.study.release(self.study.study.trials[claim.number], died=False)
    self._log(index).write_text('sweep: /disk could not be read: Input/output error\n')
    return Process(self.started, search_folder.DISK_FAILED)

  def _end_workers(self):
    pass


@pytest.mark.parametrize(('epochs', 'started'), [((), 3), ((1.0, 1.0, 2.0), 6)])
def test_a_disk_that_fails_again_and_again_ends_the_search_in_one_line(
  crew, monkeypatch, capsys, epochs, started
):
  monkeypatch.setattr(supervisor.time, 'sleep', lambda seconds: None)
  monkeypatch.setattr(supervisor.signal, 'signal', lambda *_: None)
  one = crew()
  watcher = FailsByTheDisk(one.study, one.folder, (), workers=1)
  watcher.epochs = epochs
  assert watcher.run() == 1
  assert watcher.started == started + 1  # which never gets to anything
  line = capsys.readouterr().err.strip()
  reason = '/disk could not be read: Input/output error'
  assert line == f'sweep: worker 0 gets no further: {reason}; {watcher._log(0)}'
  assert one.study.trials_by_slot()['0.0.0'].state == TrialState.WAITING


def test_a_stop_that_was_asked_for_is_no_death(crew):
  one = crew(deaths=1)
  for _ in range(4):
    claim = one.study.claim()
    assert claim.slot.key == '0.0.0'
    one.study.release_dead(stopped=[claim.trial.user_attrs['worker']])


def test_a_pruned_trial_has_the_epoch_that_it_reached(crew, training):
  training(1.0, 2.0, 3.0)
  one = crew(scheduler={'name': 'optuna_hyperband'}, trials=1)
  claim = one.study.claim()
  one.study.study.pruner.prune = lambda study, trial: trial.last_step == 2
  one.train(claim)
  (record,) = view.records(one.study)
  assert (record['state'], record['epoch']) == ('stopped', 2.0)


class Process:
  """Stands for a worker's: alive until it has a return code."""

  def __init__(self, pid, returncode=None):
    self.pid, self.returncode = pid, returncode

  def poll(self):
    return self.returncode


def supervisor_of(one, workers=1):
  (one.folder / 'workers').mkdir(exist_ok=True)
  return supervisor.Supervisor(one.study, one.folder, (), workers=workers)


def claimed_by(one, pid):
  claim = one.study.claim()
  claim.trial.set_user_attr('worker', worker_name(pid))
  return claim


def test_the_end_of_a_worker_is_told_and_its_trial_goes_on(crew, capsys):
  one = crew()
  claim = claimed_by(one, 7)
  watcher = supervisor_of(one)
  watcher._note_end(0, Process(7, -signal.SIGKILL))
  output = capsys.readouterr().out
  assert 'worker 0 ended by SIGKILL; b0-000 goes on; another starts' in output
  assert watcher._in_vain == [0]
  assert one.study.claim().slot == claim.slot


def test_the_end_of_a_worker_that_was_done_is_not_told(crew, capsys):
  watcher = supervisor_of(crew())
  watcher._note_end(0, Process(7, 0))
  assert capsys.readouterr().out == ''
  assert watcher._in_vain == [0]


def test_a_worker_that_never_had_a_trial_ended_in_vain(crew, capsys):
  one = crew()
  watcher = supervisor_of(one)
  for count in (1, 2):
    watcher._note_end(0, Process(7, 1))
    assert watcher._in_vain == [count]
  assert 'worker 0 ended by status 1; another starts' in capsys.readouterr().out
  claimed_by(one, 8)
  watcher._note_end(0, Process(8, 1))
  assert watcher._in_vain == [0]


def test_of_the_last_trial_no_worker_is_waited_for(crew, capsys):
  one = crew(scheduler={'name': 'none'}, trials=1)
  one.study.finish(claimed_by(one, 7), {'validation_loss': 0.5}, epoch=9, stopped=False)
  supervisor_of(one)._note_end(0, Process(7, -signal.SIGKILL))
  assert capsys.readouterr().out == 'worker 0 ended by SIGKILL\n'


class Starts(supervisor.Supervisor):
  """Its workers are made here, and end at once with status 1 unless they are to live."""

  living, started = (), 0

  def _start(self, index):
    self.started += 1
    return Process(100 + self.started, None if index in self.living else 1)

  def _end_workers(self):
    pass


def test_workers_that_can_not_start_end_the_search_with_the_last_line_of_their_log(
  crew, monkeypatch, capsys
):
  monkeypatch.setattr(supervisor.time, 'sleep', lambda seconds: None)
  monkeypatch.setattr(supervisor.signal, 'signal', lambda *_: None)
  one = crew()
  watcher = Starts(one.study, one.folder, (), workers=1)
  (one.folder / 'workers').mkdir()
  watcher._log(0).write_text('Traceback:\nImportError: no jax\n')
  assert watcher.run() == 1
  assert watcher.started == supervisor.ATTEMPTS + 1
  line = capsys.readouterr().err.strip()
  assert line == f'sweep: worker 0 gets no further: ImportError: no jax; {watcher._log(0)}'


def test_a_worker_without_a_log_can_not_start_either(crew, capsys):
  watcher = supervisor_of(crew())
  assert watcher._give_up(0) == 1
  assert 'worker 0 gets no further: ; ' in capsys.readouterr().err


def test_one_that_can_not_start_is_tried_on_while_another_works(crew, monkeypatch):
  """One that waits for the end of a rung may be killed again and again, and never had a trial."""
  one = crew()
  watcher = Starts(one.study, one.folder, (), workers=2)
  watcher.living = (0,)
  monkeypatch.setattr(supervisor.signal, 'signal', lambda *_: None)

  def wait(seconds):
    del seconds
    if watcher.started == 2:
      claimed_by(one, watcher._workers[0].pid)
    if watcher.started > 3 * supervisor.ATTEMPTS:
      watcher._signal = signal.SIGTERM

  monkeypatch.setattr(supervisor.time, 'sleep', wait)
  assert watcher.run() == 128 + signal.SIGTERM
  assert watcher.started > 3 * supervisor.ATTEMPTS


def test_a_search_in_which_nothing_keeps_to_a_constraint_says_so(crew, monkeypatch, capsys):
  bound = {'metric': 'validation_loss', 'at_most': 0.1}
  one = crew(scheduler={'name': 'none'}, trials=2, constraints=(bound,))
  for loss in (0.4, 0.2):
    one.study.finish(one.study.claim(), {'validation_loss': loss}, epoch=9, stopped=False)
  assert supervise(one, monkeypatch) == 0
  last = capsys.readouterr().out.splitlines()[-3:]
  broken = 'trained for 9 epochs, validation_loss 0.2, breaks validation_loss <= 0.1 by 0.1 ('
  assert f'b0-001: {broken}' in last[0]
  assert last[2] == 'no finished trial satisfies validation_loss <= 0.1: the nearest comes first'


def test_the_figures_of_a_trial_have_the_active_fraction_where_its_run_tells_it(crew):
  one = crew()
  found = {'validation_loss': 0.1, 'validation_accuracy': 0.9, 'active_fraction': 0.05}
  assert one._figures(found | {'epoch': 1}) == found


@pytest.mark.parametrize(
  ('error', 'status', 'said'),
  [
    (errors.TerminatedError('SIGTERM: saved at step 3', signal.SIGTERM), 143, ''),
    (OSError(errno.EIO, 'bad'), search_folder.DISK_FAILED, 'sweep: [Errno 5] bad\n'),
  ],
)
def test_a_worker_says_by_its_status_what_ended_it(
  tmp_path, monkeypatch, capsys, error, status, said
):
  class Ended:
    def __init__(self, *arguments):
      pass

    def run(self):
      raise error

  (tmp_path / search_folder.SWEEP).write_text('{"overrides": []}')
  monkeypatch.setattr(sys, 'argv', ['sweep_worker', str(tmp_path), 'test'])
  monkeypatch.setattr(worker, 'Worker', Ended)
  for module, name in (
    (allocator, 'keep_freed_memory'),
    (threads, 'serve_devices'),
    (settings, 'check'),
    (compilation, 'use_cache'),
    (storage, 'open_storage'),
    (storage, 'identity'),
    (study, 'Study'),
  ):
    monkeypatch.setattr(module, name, lambda *_: None)
  with pytest.raises(SystemExit) as ended:
    sweep_worker.main()
  assert ended.value.code == status
  assert capsys.readouterr().err == said
