"""One worker of a search: takes a slot, trains it in its run directory, records how it ended.

Trials are trained in this process, one after the other, so that the imports are paid for once. A
trial that cannot be trained is failed; if the process is killed, the supervisor notices.
"""

import contextlib
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import optuna

from sparsejax.experiment.config.identity import hashed_settings
from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import checkpoint, metrics
from sparsejax.experiment.terminal.errors import (
  BusyError,
  NonFiniteLossError,
  PausedError,
  TerminatedError,
  UnreadableError,
  UsageError,
  in_one_line,
)
from sparsejax.experiment.terminal.say import say
from sparsejax.search import search_folder
from sparsejax.search.plan import settings
from sparsejax.search.study import Claim, Study

PAUSE = 0.5  # seconds between two looks for something to do
RENEWAL = 5.0  # least seconds between two records of a trial's epoch
BEAT = 30.0  # seconds between two signs of life, since an epoch can take hours


class Worker:
  """The loop of one worker.

  Args:
    study: the study whose slots it takes.
    folder: the folder of the search.
    resolve: loads configs.
    defaults: maps a trial's settings to the defaults that its directory is named after, and their
      version.
  """

  def __init__(
    self,
    study: Study,
    folder: pathlib.Path,
    resolve: settings.Resolve,
    defaults: Callable[[dict[str, Any]], tuple[dict[str, Any], int]],
  ):
    self.study, self.folder, self.resolve, self.defaults = study, folder, resolve, defaults
    self.sweep = study.sweep
    self._parent = os.getppid()

  def run(self) -> None:
    """Works until every slot is done, or the supervisor is gone."""
    while os.getppid() == self._parent:
      claim = self.study.claim()
      if claim is not None:
        self.train(claim)
      elif self.study.is_over:
        return
      else:
        time.sleep(PAUSE)

  def train(self, claim: Claim) -> None:
    """Trains a slot from the last state in its run directory to the slot's last epoch."""
    path = self.folder / search_folder.RUNS / claim.directory
    say(f'trial {claim.number}: {path}, to epoch {claim.slot.epochs}: {claim.values}')
    try:
      with self._beating(claim):
        figures, epoch, stopped = self._train_alone(claim, path)
      broken = [name for name, value in figures.items() if not math.isfinite(value)]
      if broken:
        self.study.fail(claim, f'{broken[0]} is not finite at epoch {epoch:g}')
      else:
        self.study.finish(claim, figures, epoch=epoch, stopped=stopped)
    except (BusyError, TerminatedError):
      self._release(claim)
      raise
    except optuna.exceptions.UpdateFinishedTrialError:
      # This process gave no sign of life for longer than a lease, and another has the slot.
      say(f'trial {claim.number}: it was given up as lost, and another worker has taken it')
    except Exception as error:
      if is_disk_error(error) or isinstance(error, optuna.exceptions.StorageInternalError):
        self._release(claim)
        raise
      if isinstance(error, (UsageError, NonFiniteLossError, ValueError)):
        self._fail(claim, str(error))
        return
      # The fault may be the trial's or this process's: after a lost device everything fails here.
      reason = f'{type(error).__name__}: {in_one_line(error)[:300]}'
      self.study.release(self.study.study.trials[claim.number], died=True, error=reason)
      raise

  def _fail(self, claim: Claim, reason: str) -> None:
    # The trial may have been given up meanwhile, and another worker may have the slot.
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
      self.study.fail(claim, reason)

  def _release(self, claim: Claim) -> None:
    self.study.release(self.study.study.trials[claim.number], died=False)

  @contextlib.contextmanager
  def _beating(self, claim: Claim) -> Generator[None]:
    """Renews the trial's lease during its training, which may report nothing for hours."""
    is_over = threading.Event()

    def beat():
      while not is_over.wait(BEAT):
        try:
          self.study.renew(claim)
        except Exception as error:  # the lease outlasts a short absence of the database
          say(f'trial {claim.number}: {in_one_line(error)}')

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
      yield
    finally:
      is_over.set()
      thread.join()

  def _train_alone(self, claim: Claim, path: pathlib.Path) -> tuple[dict[str, float], float, bool]:
    """Trains once no other process trains in the directory, such as that of an equal trial."""
    while True:
      try:
        return self._train(claim, path)
      except BusyError as error:
        if os.getppid() != self._parent:
          raise
        say(f'trial {claim.number}: {error}; waiting for its end')
        time.sleep(RENEWAL)

  def _train(self, claim: Claim, path: pathlib.Path) -> tuple[dict[str, float], float, bool]:
    """Returns the trial's figures, their epoch, and whether it stopped before its run's end."""
    from sparsejax.experiment.run import run

    watch = _Watch(self.study, claim)
    trial = settings.resolved(self.sweep.settings, claim.values, self.resolve)
    # All its evaluations may exist already: the process may have died before it could say so, or an
    # equal trial may have come this far or further.
    is_done = claim.slot.is_last and (path / files.SUMMARY).exists()
    if not is_done and _holds_trial(path, trial):
      for line in read_lines(path):
        if 'validation_loss' in line and watch(line):
          return self._figures(line), line['epoch'], True
    defaults, version = self.defaults(trial)
    try:
      summary = run(trial, defaults, version=version, workdir=path, watch=watch)
    except PausedError:
      return self._figures(watch.last), watch.last['epoch'], True
    return self._figures(summary), summary['epochs'], False

  def _figures(self, found: Mapping[str, Any]) -> dict[str, float]:
    goals = (*self.sweep.settings['objectives'], *self.sweep.settings['constraints'])
    names = {*(goal['metric'] for goal in goals), 'validation_loss', 'validation_accuracy'}
    names |= {'active_fraction'} & set(found)
    if missing := sorted(names - set(found)):
      raise ValueError(f"metric '{missing[0]}' must be one of this run's, such as validation_loss")
    return {name: _number(found[name]) for name in sorted(names)}


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns a run's lines of metrics; if the file is damaged, those in its newest checkpoint."""
  try:
    return metrics.read(path / files.METRICS)
  except ValueError:
    saved = checkpoint.committed(path / files.CHECKPOINTS)
    return metrics.read(saved[-1] / files.METRICS) if saved else []


def is_disk_error(error: BaseException | None) -> bool:
  """Returns whether an error or its cause is the disk's, which says nothing about the trial."""
  while error is not None:
    if files.is_system_error(error) or isinstance(error, UnreadableError):
      return True
    error = error.__cause__
  return False


def _number(value: float | None) -> float:
  """Returns a figure of the metrics, where null stands for one that was not finite."""
  return math.nan if value is None else float(value)


def _holds_trial(path: pathlib.Path, trial: Mapping[str, Any]) -> bool:
  """Returns whether a run directory holds this trial, rather than one of another search."""
  try:
    held = files.read_json(path / files.CONFIG)
    del held['hash']
    return held['seed'] == trial['seed'] and hashed_settings(held) == hashed_settings(trial)
  except (OSError, ValueError, KeyError, TypeError):
    return False  # training there will find out and say so


class _Watch:
  """Decides after every evaluation of a run whether it stops there."""

  def __init__(self, study: Study, claim: Claim):
    self.study, self.claim = study, claim
    self.last: dict[str, Any] = {}
    self._renewed = 0.0
    scheduler = study.sweep.settings['scheduler']['name']
    self._asks_pruner = scheduler == 'optuna_hyperband'

  def __call__(self, line: Mapping[str, Any]) -> bool:
    self.last = dict(line)
    if time.monotonic() - self._renewed > RENEWAL:
      self._renewed = time.monotonic()
      self.study.note_epoch(self.claim, line['epoch'])
    if self._asks_pruner:
      return self._is_pruned(line)
    return not self.claim.slot.is_last and line['epoch'] >= self.claim.slot.epochs

  def _is_pruned(self, line: Mapping[str, Any]) -> bool:
    """Asks Optuna's pruner, whose steps are epochs; evaluations between epochs are not its own."""
    value = _number(line[self.study.sweep.objectives[0]['metric']])
    epoch = round(line['epoch'])
    if not math.isfinite(value):
      return True
    if epoch < 1 or not math.isclose(line['epoch'], epoch):
      return False
    self.claim.trial.report(value, epoch)
    return self.claim.trial.should_prune()
