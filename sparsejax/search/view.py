"""What a search looks like from outside: how far it is, what is best, when it ends."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparsejax.experiment.display import duration
from sparsejax.experiment.runs import short_name, short_value
from sparsejax.search import layout
from sparsejax.search.brackets import Slot
from sparsejax.search.study import OPEN, Study

BEST = 5  # trials shown in the end
STATES = {
  TrialState.COMPLETE: layout.FINISHED,
  TrialState.PRUNED: layout.STOPPED,
  TrialState.FAIL: layout.FAILED,
  TrialState.RUNNING: layout.RUNNING,
  TrialState.WAITING: layout.WAITING,
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
    seconds_left: at most, were nothing stopped by a pruner; None where it can't be told yet.
    best: the trials that none is better than: one, or with several objectives a front.
  """

  finished: int
  stopped: int
  failed: int
  lost: int
  running: list[tuple[Slot, FrozenTrial]]
  waiting: int
  seconds_left: float | None
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
  done: list[tuple[float, float]] = []
  left: list[tuple[float, float]] = []
  for slot in study.sweep.slots:
    if (trial := trials.get(slot.key)) is None:
      continue
    by_state.setdefault(trial.state, []).append((slot, trial))
    own = slot.epochs - _epochs_before(study, slot)
    trained = min(max(trial.user_attrs.get('epoch', 0.0) - _epochs_before(study, slot), 0.0), own)
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
      done.append((trained, trial.duration.total_seconds()))
    elif trial.state in OPEN:
      left.append((own, own - trained))
  lost = [trial for trial in study.study.get_trials(deepcopy=False) if 'lost' in trial.user_attrs]
  return Status(
    finished=len(by_state.get(TrialState.COMPLETE, [])),
    stopped=len(by_state.get(TrialState.PRUNED, [])),
    failed=len(by_state.get(TrialState.FAIL, [])),
    lost=sum(trial.user_attrs['lost'] == 'died' for trial in lost),
    running=by_state.get(TrialState.RUNNING, []),
    waiting=len(by_state.get(TrialState.WAITING, [])),
    seconds_left=seconds_left(done, left, len(by_state.get(TrialState.RUNNING, []))),
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


def _values(trial: FrozenTrial) -> str:
  return ', '.join(f'{short_name(key)} {short_value(v)}' for key, v in trial.params.items())


def describe(study: Study, trial: FrozenTrial) -> str:
  """A trial's figures and values in one line, and whether it breaks a constraint."""
  figures = ', '.join(
    f'{name} {short_value(value)}' for name, value in trial.user_attrs.get('metrics', {}).items()
  )
  broken = ', breaks a constraint' if study.score(trial)[0] == 1 else ''
  return f'{trial.user_attrs["directory"]}: {figures}{broken} ({_values(trial)})'


def seconds_left(
  done: Sequence[tuple[float, float]], left: Sequence[tuple[float, float]], at_once: int
) -> float | None:
  """Returns the time left, as a trial takes so long to begin and so long for every epoch.

  Args:
    done: (epochs, seconds) of each trial that ended.
    left: (epochs, those that are left) of each other.
    at_once: trials that are trained beside each other.
  """
  lengths = {epochs for epochs, _ in done}
  # From trials of one length nothing follows for those of another.
  if not done or (len(lengths) == 1 and {epochs for epochs, _ in left} != lengths):
    return None if left else 0.0
  epochs, seconds = np.array(done).T
  begin, each = scipy.optimize.nnls(np.stack([np.ones_like(epochs), epochs], axis=1), seconds)[0]
  total = sum(each * rest + (begin if rest == own else 0.0) for own, rest in left)
  return float(total) / max(at_once, 1)


def best_line(study: Study, now: Status) -> str:
  """Returns what a log has of the best so far; '' where nothing is measured yet."""
  if len(now.best) > 1:
    return f'{len(now.best)} trials on the front'
  return ''.join(f'best so far: {describe(study, trial)}' for trial in now.best)


def records(study: Study) -> list[dict[str, Any]]:
  """Returns how every trial stands, for those who have the runs and not the study."""
  trials = study.by_slot()
  states = {key: STATES[trial.state] for key, trial in trials.items()}
  for key, trial in trials.items():
    # One that stopped at its rung waits until it is known who goes on.
    if trial.state == TrialState.PRUNED and study.may_go_on(study.slots[key], trials):
      states[key] = layout.WAITING
  return [
    {
      'trial': trial.number,
      'directory': trial.user_attrs.get('directory'),
      'bracket': study.slots[key].bracket,
      'rung': study.slots[key].rung,
      'epoch': trial.user_attrs.get('epoch', 0.0),
      'state': states[key],
      'values': dict(trial.params),
      'metrics': trial.user_attrs.get('metrics'),
      'error': trial.user_attrs.get('error'),
    }
    for key, trial in trials.items()
  ]


def picture(study: Study, now: Status, notes: Sequence[str]) -> Group:
  """Returns the live view for a terminal."""
  table = Table(box=None, pad_edge=False)
  for column in ('running', 'epoch', 'of', 'worker', 'values'):
    table.add_column(
      column, justify='left' if column in ('running', 'worker', 'values') else 'right'
    )
  for slot, trial in now.running:
    attributes = trial.user_attrs
    epoch = f'{attributes.get("epoch", 0.0):g}'
    worker = str(attributes.get('worker', '')).rpartition(':')[2]
    table.add_row(str(attributes.get('directory')), epoch, str(slot.epochs), worker, _values(trial))
  parts = [Text(f'{now.line}; time left {duration(now.seconds_left)}'), table]
  parts += [Text(f'best so far: {describe(study, trial)}') for trial in now.best[:BEST]]
  return Group(*parts, *(Text(note) for note in notes[-5:]))
