"""The state of a search for a person: how far it has come, what is best, when it will end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparsejax.experiment.config.identity import short_name, short_value
from sparsejax.experiment.terminal.numbers import duration, percent
from sparsejax.experiment.terminal.say import printable
from sparsejax.search import search_folder
from sparsejax.search.plan.brackets import Slot
from sparsejax.search.plan.settings import excesses
from sparsejax.search.study import OPEN, Study

BEST = 5  # trials shown at the end
STATES = {
  TrialState.COMPLETE: search_folder.FINISHED,
  TrialState.PRUNED: search_folder.STOPPED,
  TrialState.FAIL: search_folder.FAILED,
  TrialState.RUNNING: search_folder.RUNNING,
  TrialState.WAITING: search_folder.WAITING,
}


class Status(NamedTuple):
  """A search at one moment.

  A configuration is one run, and is counted once, however many rungs it has passed.

  Attributes:
    finished: configurations that ended with a finished run.
    stopped: configurations that their rung or the pruner ended earlier.
    failed: configurations that could not be trained.
    waiting: configurations that no worker has taken yet, or that may still go on.
    running: configurations in training, with their slots.
    promotions: the number of trials that went on to a later rung; None if there is no later rung.
    lost: trials whose process died; each was replaced by another.
    seconds_left: the most that can be left, as if no pruner stopped anything; None if it is not
      known yet.
    best: the trials that no other beats: one, or with several objectives a front.
  """

  finished: int
  stopped: int
  failed: int
  waiting: int
  running: list[tuple[Slot, FrozenTrial]]
  promotions: int | None
  lost: int
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
    total = self.finished + self.stopped + self.failed + self.waiting + len(self.running)
    text += f', of {total} configurations'
    text += '' if self.promotions is None else f'; {self.promotions} promotions'
    return text + (f'; {self.lost} went on after their process died' if self.lost else '')


def status(study: Study) -> Status:
  """Returns how far a search has come."""
  trials = study.trials_by_slot()
  latest = _latest(study, trials)
  running = [(slot, t) for slot, t in latest.values() if t.state == TrialState.RUNNING]
  states = _states(study, trials)
  count = Counter(states[slot.key] for slot, _ in latest.values())
  done: list[tuple[float, float]] = []
  left: list[tuple[float, float]] = []
  for slot in study.sweep.slots:
    if (trial := trials.get(slot.key)) is None:
      continue
    own = slot.epochs - _epochs_before(study, slot)
    trained = min(max(trial.user_attrs.get('epoch', 0.0) - _epochs_before(study, slot), 0.0), own)
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
      assert trial.duration is not None  # it has started and ended
      done.append((trained, trial.duration.total_seconds()))
    elif trial.state in OPEN:
      left.append((own, own - trained))
  lost = [trial for trial in study.study.get_trials(deepcopy=False) if 'lost' in trial.user_attrs]
  return Status(
    finished=count[search_folder.FINISHED],
    stopped=count[search_folder.STOPPED],
    failed=count[search_folder.FAILED],
    waiting=count[search_folder.WAITING],
    running=running,
    promotions=_promotions(study, trials),
    lost=sum(trial.user_attrs['lost'] == 'died' for trial in lost),
    seconds_left=seconds_left(done, left, len(running)),
    best=best(study),
  )


def _latest(study: Study, trials: Mapping[str, FrozenTrial]) -> dict[str, tuple[Slot, FrozenTrial]]:
  """The last slot of each configuration, by its directory."""
  begun = [slot for slot in study.sweep.slots if slot.key in trials]
  # Configurations with equal values share a directory, and one may go further than the others.
  begun.sort(key=lambda slot: (slot.epochs, slot.rung))
  placed = [(slot, trials[slot.key]) for slot in begun]
  # A place in a later rung has no directory before somebody goes on to it.
  return {t.user_attrs['directory']: (s, t) for s, t in placed if t.user_attrs['directory']}


def _states(study: Study, trials: Mapping[str, FrozenTrial]) -> dict[str, str]:
  states = {key: STATES[trial.state] for key, trial in trials.items()}
  for key, trial in trials.items():
    # A trial that stopped at its rung waits until the rung decides which trials go on.
    if trial.state == TrialState.PRUNED and study.can_continue(study.slots[key], trials):
      states[key] = search_folder.WAITING
  return states


def _promotions(study: Study, trials: Mapping[str, FrozenTrial]) -> int | None:
  later = [slot.key for slot in study.sweep.slots if slot.rung]
  if not later:
    return None
  return sum(key in trials and bool(trials[key].user_attrs['directory']) for key in later)


def _epochs_before(study: Study, slot: Slot) -> int:
  """The epochs already trained by the configuration that a slot goes on with."""
  if slot.rung == 0:
    return 0
  return next(
    s.epochs for s in study.sweep.slots if (s.bracket, s.rung) == (slot.bracket, slot.rung - 1)
  )


def best(study: Study) -> list[FrozenTrial]:
  """Returns the best trial so far or, with several objectives, those that none beats in all."""
  if len(study.sweep.objectives) == 1:
    return ranking(study)[:1]
  numbers = {trial.number for trial in study.trials_by_slot().values()}
  front = [trial for trial in study.study.best_trials if trial.number in numbers]
  return front or ranking(study)[:1]  # the front is empty if every trial breaks a constraint


def ranking(study: Study) -> list[FrozenTrial]:
  """Returns the last measured trial of each configuration: finished runs first, best first."""
  measured = {key: t for key, t in study.trials_by_slot().items() if 'metrics' in t.user_attrs}
  return sorted(
    (trial for _, trial in _latest(study, measured).values()),
    key=lambda t: (t.state != TrialState.COMPLETE, *study.score(t)),
  )


def broken_by_all(study: Study) -> str:
  """The constraints if no finished trial satisfies all of them, else ''."""
  finished = [trial for trial in ranking(study) if trial.state == TrialState.COMPLETE]
  if not finished or any(study.score(trial)[0] == 0 for trial in finished):
    return ''
  return ' and '.join(map(constraint_text, study.sweep.settings['constraints']))


def _values(trial: FrozenTrial) -> str:
  return ', '.join(f'{short_name(key)} {short_value(v)}' for key, v in trial.params.items())


def describe(study: Study, trial: FrozenTrial) -> str:
  """A trial's figures and values in one line, and the constraints that it breaks, by how much.

  The figures of a finished trial are those of the network that it delivers, its best; those of any
  other trial belong to the last epoch that it was trained for.
  """
  metrics = trial.user_attrs['metrics']
  settings = study.sweep.settings
  parts = [f'trained for {trial.user_attrs.get("epoch", 0.0):g} epochs']
  parts += [f'{name} {_figure(name, value)}' for name, value in metrics.items()]
  parts += [
    f'breaks {constraint_text(constraint)} by {_figure(constraint["metric"], excess)}'
    for constraint, excess in zip(settings['constraints'], excesses(settings, metrics), strict=True)
    if not excess <= 0
  ]
  return f'{trial.user_attrs["directory"]}: {", ".join(parts)} ({_values(trial)})'


def constraint_text(constraint: Mapping[str, Any]) -> str:
  """A constraint as a person reads it.

  Example:
    >>> constraint_text({'metric': 'active_fraction', 'at_most': 0.05})
    'active_fraction <= 5.00 %'
  """
  return f'{constraint["metric"]} <= {_figure(constraint["metric"], constraint["at_most"])}'


def _figure(name: str, value: float) -> str:
  """A metric in percent or as a number, as in a run's own table."""
  return percent(value) if name.endswith(('accuracy', 'fraction')) else short_value(value)


def seconds_left(
  done: Sequence[tuple[float, float]], left: Sequence[tuple[float, float]], at_once: int
) -> float | None:
  """Returns the time left, from the time that a trial takes to start and the time of an epoch.

  Args:
    done: (epochs, seconds) of each trial that ended.
    left: (epochs, remaining epochs) of every other trial.
    at_once: the number of trials that train at the same time.

  Returns:
    The seconds; None if the ended trials cannot tell how long some of those left will take.
  """
  lengths = {epochs for epochs, _ in done}
  # Trials of a single length say nothing about trials of another.
  if not done or (len(lengths) == 1 and {epochs for epochs, _ in left} != lengths):
    return None if left else 0.0
  epochs, seconds = np.array(done).T
  begin, each = scipy.optimize.nnls(np.stack([np.ones_like(epochs), epochs], axis=1), seconds)[0]
  total = sum(each * rest + (begin if rest == own else 0.0) for own, rest in left)
  return float(total) / max(at_once, 1)


def best_line(study: Study, now: Status) -> str:
  """Returns the log's line about the best trials so far; '' if nothing is measured yet."""
  if len(now.best) > 1:
    return f'{len(now.best)} trials on the front'
  return ''.join(f'best so far: {describe(study, trial)}' for trial in now.best)


def records(study: Study) -> list[dict[str, Any]]:
  """Returns the state of every trial, for readers who have the runs but not the study.

  They are in the order of the search's slots, so that a trial which takes the slot of a lost one
  stands in its place.
  """
  trials = study.trials_by_slot()
  states = _states(study, trials)
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
    for key, trial in ((key, trials[key]) for key in study.slots if key in trials)
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
    row = attributes.get('directory'), epoch, slot.epochs, worker, _values(trial)
    table.add_row(*(Text(printable(cell)) for cell in row))
  lines = [f'best so far: {describe(study, trial)}' for trial in now.best[:BEST]] + [*notes[-5:]]
  head = Text(f'{now.line}; time left {duration(now.seconds_left)}')
  return Group(head, table, *(Text(printable(line)) for line in lines))
