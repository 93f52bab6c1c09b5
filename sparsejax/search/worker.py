"""One worker of a search: takes a slot, trains it in its run directory, says how it ended.

Trials are trained in this process, one after the other, so that its imports are paid for once. A
trial that can not be trained is failed; what kills the process is the supervisor's to see.
"""

import contextlib
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optuna

from sparsejax.experiment import metrics
from sparsejax.search import settings
from sparsejax.search.study import Claim, Study

SWEEP = 'sweep.json'
RUNS = 'runs'
PAUSE = 0.5  # seconds between two looks for something to do
RENEWAL = 5.0  # seconds between two notes of a trial's epoch, at least
BEAT = 30.0  # seconds between two signs of life, of which an epoch can be hours apart


class Worker:
  """The loop of one worker.

  Args:
    study: whose slots it takes.
    folder: of the search.
    resolve: loads configs.
    defaults: from a trial's settings to the defaults that its directory is named after, and their
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
    """Trains a slot from where its run directory is to the slot's last epoch."""
    from sparsejax.experiment.errors import (
      BusyError,
      NonFiniteLossError,
      TerminatedError,
      UsageError,
    )

    path = self.folder / RUNS / claim.directory
    print(f'trial {claim.number}: {path}, to epoch {claim.slot.epochs}: {claim.values}', flush=True)
    try:
      with self._beating(claim):
        figures, stopped = self._train(claim, path)
    except TerminatedError:
      self._release(claim)
      raise
    except BusyError:  # this trial was given up for lost while its process went on
      self._release(claim)
      time.sleep(BEAT)
      return
    except (UsageError, NonFiniteLossError, ValueError) as error:
      self.study.fail(claim, str(error))
      return
    except (OSError, optuna.exceptions.StorageInternalError):  # the machine, and not the trial
      self._release(claim)
      raise
    except Exception as error:  # a search outlives what goes wrong in one trial
      self.study.fail(claim, f'{type(error).__name__}: {" ".join(str(error).split())[:300]}')
      return
    broken = [name for name, value in figures.items() if not math.isfinite(value)]
    if broken:
      self.study.fail(claim, f'{broken[0]} is not finite at epoch {claim.slot.epochs}')
    else:
      self.study.finish(claim, figures, stopped=stopped)

  def _release(self, claim: Claim) -> None:
    self.study.release(self.study.study.trials[claim.number], died=False)

  @contextlib.contextmanager
  def _beating(self, claim: Claim) -> Iterator[None]:
    """Renews the trial's lease beside its training, which may say nothing for hours."""
    is_over = threading.Event()

    def beat():
      while not is_over.wait(BEAT):
        try:
          self.study.renew(claim)
        except Exception as error:  # the lease is longer than a database is away for a moment
          print(f'trial {claim.number}: {" ".join(str(error).split())}', flush=True)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
      yield
    finally:
      is_over.set()
      thread.join()

  def _train(self, claim: Claim, path: pathlib.Path) -> tuple[dict[str, float], bool]:
    """Returns the trial's figures, and whether it was stopped before the end of its run."""
    from sparsejax.experiment.errors import PausedError
    from sparsejax.experiment.run import run

    watch = _Watch(self.study, claim)
    # Its evaluations may be all there: the process died before it could say so.
    if not (path / 'summary.json').exists():
      for line in metrics.read(path / 'metrics.jsonl'):
        if 'validation_loss' in line and watch(line):
          return self._figures(line), True
    trial = settings.resolved(self.sweep.settings, claim.values, self.resolve)
    defaults, version = self.defaults(trial)
    try:
      summary = run(trial, defaults, version=version, workdir=path, watch=watch)
    except PausedError:
      return self._figures(watch.last), True
    return self._figures(summary), False

  def _figures(self, found: Mapping[str, Any]) -> dict[str, float]:
    goals = (*self.sweep.settings['objectives'], *self.sweep.settings['constraints'])
    names = {*(goal['metric'] for goal in goals), 'validation_loss', 'validation_accuracy'}
    if missing := sorted(names - set(found)):
      raise ValueError(f"metric '{missing[0]}': this run has none; it has validation_loss and more")
    return {name: float(found[name]) for name in sorted(names)}


class _Watch:
  """What is asked after every evaluation of a run: whether it stops here."""

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
      objective = self.study.sweep.objectives[0]['metric']
      if not math.isfinite(line[objective]):
        return True
      self.claim.trial.report(line[objective], max(1, round(line['epoch'])))
      return self.claim.trial.should_prune()
    return not self.claim.slot.is_last and line['epoch'] >= self.claim.slot.epochs
