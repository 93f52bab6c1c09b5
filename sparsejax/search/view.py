"""What a search looks like from outside: how far it is, what is best, when it ends."""

import time
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparsejax.experiment.display import duration
from sparsejax.experiment.runs import short_name, short_value
from sparsejax.search.brackets import Slot
from sparsejax.search.study import Study

BEST = 5  # trials shown in the end
STATES = {
  TrialState.COMPLETE: 'finished',
  TrialState.PRUNED: 'stopped',
  TrialState.FAIL: 'failed',
  TrialState.RUNNING: 'running',
  TrialState.WAITING: 'waiting',
}


class Status(NamedTuple):
  """A search at one moment.

  Attributes:
    finished: trials that ended with a finished run.
    stopped: trials that ended before, as their rung or the pruner has it.
    failed: trials that could not be trained.
    lost: trials whose process died; each has another in its place.
    running: with their slots.
    waiting: slots that nobody has yet.
    epochs_done: of all trials together.
    epochs_left: at most, were nothing stopped by a pruner.
    best: the trials that none is better than: one, or with several objectives a front.
  """

  finished: int
  stopped: int
  failed: int
  lost: int
  running: list[tuple[Slot, FrozenTrial]]
  waiting: int
  epochs_done: float
  epochs_left: float
  best: list[FrozenTrial]

  @property
  def line(self) -> str:
    """The counts in one line."""
    text = (
      f'{self.finished} finished, {self.stopped} stopped early, {len(self.running)} running, '
      f'{self.waiting} waiting'
    )
    text += f', {self.failed} failed' if self.failed else ''
    return text + (f', {self.lost} went on after their process died' if self.lost else '')


def status(study: Study) -> Status:
  """Returns how far a search is."""
  trials = study.by_slot()
  by_state: dict[TrialState, list[tuple[Slot, FrozenTrial]]] = {}
  done = left = 0.0
  for slot in study.sweep.slots:
    if (trial := trials.get(slot.key)) is None:
      continue
    by_state.setdefault(trial.state, []).append((slot, trial))
    own = slot.epochs - _epochs_before(study, slot)
    trained = min(max(trial.user_attrs.get('epoch', 0.0) - _epochs_before(study, slot), 0.0), own)
    done += own if trial.state == TrialState.COMPLETE else trained
    left += own - trained if trial.state in (TrialState.WAITING, TrialState.RUNNING) else 0.0
  lost = [trial for trial in study.study.get_trials(deepcopy=False) if 'lost' in trial.user_attrs]
  return Status(
    finished=len(by_state.get(TrialState.COMPLETE, [])),
    stopped=len(by_state.get(TrialState.PRUNED, [])),
    failed=len(by_state.get(TrialState.FAIL, [])),
    lost=sum(trial.user_attrs['lost'] == 'died' for trial in lost),
    running=by_state.get(TrialState.RUNNING, []),
    waiting=len(by_state.get(TrialState.WAITING, [])),
    epochs_done=done,
    epochs_left=left,
    best=best(study),
  )


def _epochs_before(study: Study, slot: Slot) -> int:
  """Of the configuration that a slot goes on with."""
  if slot.rung == 0:
    return 0
  return next(
    s.epochs for s in study.sweep.slots if (s.bracket, s.rung) == (slot.bracket, slot.rung - 1)
  )


def best(study: Study) -> list[FrozenTrial]:
  """Returns the best trial so far, or with several objectives those that none beats in all."""
  if len(study.sweep.objectives) == 1:
    return ranking(study)[:1]
  numbers = {trial.number for trial in study.by_slot().values()}
  front = [trial for trial in study.study.best_trials if trial.number in numbers]
  return front or ranking(study)[:1]  # none where every trial breaks a constraint


def ranking(study: Study) -> list[FrozenTrial]:
  """Returns each configuration's last trial with figures: finished runs first, the best of all."""
  latest: dict[str, tuple[Slot, FrozenTrial]] = {}
  for key, trial in study.by_slot().items():
    slot, directory = study.slots[key], trial.user_attrs.get('directory')
    if 'metrics' in trial.user_attrs:
      known = latest.get(directory)
      if known is None or known[0].rung < slot.rung:
        latest[directory] = slot, trial
  return sorted(
    (trial for _, trial in latest.values()),
    key=lambda t: (t.state != TrialState.COMPLETE, *study.score(t)),
  )


def describe(study: Study, trial: FrozenTrial) -> str:
  """A trial's figures and values in one line, and whether it breaks a constraint."""
  values = ', '.join(
    f'{short_name(key)} {short_value(value)}' for key, value in trial.params.items()
  )
  figures = ', '.join(
    f'{name} {short_value(value)}' for name, value in trial.user_attrs.get('metrics', {}).items()
  )
  broken = ', breaks a constraint' if study.score(trial)[0] == 1 else ''
  return f'{trial.user_attrs["directory"]}: {figures}{broken} ({values})'


class Pace:
  """The epochs a second since this command began, and so the time left."""

  def __init__(self):
    self._begun: float | None = None
    self._from = 0.0

  def left(self, now: Status) -> float | None:
    """Returns the seconds left, or None as long as there is nothing to tell them from."""
    if self._begun is None:
      self._begun, self._from = time.monotonic(), now.epochs_done
      return None
    trained = now.epochs_done - self._from
    if trained <= 0:
      return None
    return now.epochs_left * (time.monotonic() - self._begun) / trained


def line(study: Study, now: Status, left: float | None) -> str:
  """Returns what a log has of a search: the counts, the time left, the best."""
  text = f'{now.line}; time left {duration(left)}'
  if len(now.best) > 1:
    return f'{text}; {len(now.best)} on the front'
  return text + ''.join(f'; best so far: {describe(study, trial)}' for trial in now.best)


def records(study: Study) -> list[dict[str, Any]]:
  """Returns how every trial stands, for those who have the runs and not the study."""
  return [
    {
      'trial': trial.number,
      'directory': trial.user_attrs.get('directory'),
      'bracket': study.slots[key].bracket,
      'epochs': study.slots[key].epochs,
      'state': STATES[trial.state],
      'values': dict(trial.params),
      'metrics': trial.user_attrs.get('metrics'),
      'error': trial.user_attrs.get('error'),
    }
    for key, trial in study.by_slot().items()
  ]


def picture(study: Study, now: Status, left: float | None, notes: list[str]) -> Group:
  """Returns the live view for a terminal."""
  table = Table(box=None, pad_edge=False)
  for column in ('running', 'epoch', 'of', 'worker', 'values'):
    table.add_column(
      column, justify='left' if column in ('running', 'worker', 'values') else 'right'
    )
  for slot, trial in now.running:
    values = ', '.join(
      f'{short_name(key)} {short_value(value)}' for key, value in trial.params.items()
    )
    attributes = trial.user_attrs
    epoch = f'{attributes.get("epoch", 0.0):g}'
    worker = str(attributes.get('worker', '')).rpartition(':')[2]
    table.add_row(str(attributes.get('directory')), epoch, str(slot.epochs), worker, values)
  parts = [Text(f'{now.line}; time left {duration(left)}'), table]
  parts += [Text(f'best so far: {describe(study, trial)}') for trial in now.best[:BEST]]
  return Group(*parts, *(Text(note) for note in notes[-5:]))
