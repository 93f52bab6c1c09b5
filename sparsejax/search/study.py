"""An Optuna study as a list of slots: what is done, what can be begun, and who has it.

Every slot is a trial, made in the beginning and waiting. Whoever turns it from waiting to running
has it: a storage lets only one do so. A slot of a later rung can be begun once the rung before it
is done; which configuration it goes on with follows from that rung alone, so it does not matter
who begins it, or when.

A trial whose process died is failed and `lost`, and another takes its slot, with the same values
and the same run directory. Whatever two processes do at once, the trial of a slot is the first by
number that is not lost.
"""

import os
import platform
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from sparsejax.search.plan.brackets import Slot
from sparsejax.search.plan.settings import Sweep, excesses, score

LEASE = 300.0  # seconds: a trial that nobody has touched for so long has lost its process
GRACE = 30.0  # seconds, likewise, of a trial that was taken and of which nobody said who has it
OPEN = (TrialState.WAITING, TrialState.RUNNING)


class Claim(NamedTuple):
  """A slot that this process has, and what to do for it."""

  number: int
  slot: Slot
  values: dict[str, Any]
  directory: str
  trial: Trial


def machine() -> str:
  """Within what a process number names one process: this machine, or a container on it."""
  try:
    # Containers that share a host's network have its name, and numbers of their own.
    namespace = os.readlink('/proc/self/ns/pid').strip('pid:[]')
  except OSError:  # not on Linux
    return platform.node()
  return f'{platform.node()}/{namespace}'


def worker_name(process: int) -> str:
  """Who has a trial: a process on this machine."""
  return f'{machine()}:{process}'


class Study:
  """A search's study.

  Args:
    sweep: the search.
    storage: where the study lies.
    name: of the study.
    folder: what tells the folder of its runs from others; '' where the study lies in it.

  Raises:
    ValueError: the study is of another search, or of another folder.
  """

  def __init__(self, sweep: Sweep, storage: BaseStorage, name: str, folder: str = ''):
    self.sweep, self.storage = sweep, storage
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    self.study = optuna.create_study(
      storage=storage,
      study_name=name,
      directions=[objective['direction'] for objective in sweep.objectives],
      load_if_exists=True,
      pruner=self._pruner(),
    )
    self._id = storage.get_study_id_from_name(name)
    self.slots = {slot.key: slot for slot in sweep.slots}
    self._agree('sweep', dict(sweep.settings), f"study '{name}': it holds another search")
    # A trial goes on from its checkpoint, whoever has it next.
    if folder:
      self._agree('folder', folder, f"study '{name}': its runs lie in another folder than workdir")

  def _agree(self, key: str, value: Any, otherwise: str) -> None:
    known = self.study.user_attrs.get(key)
    if known is None:
      self.study.set_user_attr(key, value)
    elif known != value:
      raise ValueError(f'{otherwise}; give its own folder, or another --name')

  def _pruner(self):
    scheduler = self.sweep.settings['scheduler']
    if scheduler['name'] != 'optuna_hyperband':
      return optuna.pruners.NopPruner()
    return optuna.pruners.HyperbandPruner(
      min_resource=1, max_resource=self.sweep.slots[0].epochs, reduction_factor=scheduler['eta']
    )

  def plan(self) -> None:
    """Adds the trial of every slot that has none yet."""
    planned = self.by_slot()
    for slot in self.sweep.slots:
      if slot.key not in planned:
        values = self.sweep.combinations[slot.index] if self.sweep.combinations else {}
        directory = f'b{slot.bracket}-{slot.index:03d}' if slot.rung == 0 else None
        self._add(slot, values, {'directory': directory, 'deaths': 0})

  def _add(self, slot: Slot, values: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    distributions = {p.key: p.distribution for p in self.sweep.parameters if p.key in values}
    self.study.add_trial(
      optuna.trial.create_trial(
        state=TrialState.WAITING,
        params=dict(values),
        distributions=distributions,
        user_attrs={'slot': slot.key, **attributes},
      )
    )

  def by_slot(self) -> dict[str, FrozenTrial]:
    """Returns the trial of each slot."""
    found: dict[str, FrozenTrial] = {}
    for trial in self.study.get_trials(deepcopy=False):
      is_lost = trial.state == TrialState.FAIL and 'lost' in trial.user_attrs
      if not is_lost and 'slot' in trial.user_attrs:
        found.setdefault(trial.user_attrs['slot'], trial)
    return found

  def claim(self) -> Claim | None:
    """Takes the first slot that can be begun, or returns None."""
    trials = self.by_slot()
    for slot in self.sweep.slots:
      trial = trials.get(slot.key)
      if trial is None or trial.state != TrialState.WAITING:
        continue
      source = None
      if slot.rung:
        before = self._rung(slot.bracket, slot.rung - 1, trials)
        ended = [other for other in before if other is not None and other.state not in OPEN]
        if len(ended) < len(before):
          continue
        source = self._ranked(ended)[slot.index]
      if self._take(trial.number):
        return self._begin(slot, trial, source)
    return None

  def _rung(self, bracket: int, rung: int, trials) -> list[FrozenTrial | None]:
    slots = [s for s in self.sweep.slots if (s.bracket, s.rung) == (bracket, rung)]
    return [trials.get(slot.key) for slot in slots]

  def _ranked(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return sorted(trials, key=lambda trial: self.score(trial))

  def score(self, trial: FrozenTrial) -> tuple[int, float]:
    """How good a finished trial is; see `settings.score`."""
    return score(self.sweep.settings, trial.user_attrs.get('metrics'))

  def _identity(self, number: int) -> int:
    return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

  def _take(self, number: int) -> bool:
    identity = self._identity(number)
    try:
      return self.storage.set_trial_state_values(identity, TrialState.RUNNING)
    except optuna.exceptions.UpdateFinishedTrialError:
      return False

  def _begin(self, slot: Slot, found: FrozenTrial, source: FrozenTrial | None) -> Claim | None:
    """Notes who has the trial, and gives it its values: drawn, or those of what goes on."""
    identity = self._identity(found.number)
    self.storage.set_trial_user_attr(identity, 'worker', worker_name(os.getpid()))
    self.storage.set_trial_user_attr(identity, 'lease', time.time() + LEASE)
    directory = found.user_attrs['directory']
    if source is not None:
      if 'metrics' not in source.user_attrs:
        self.storage.set_trial_user_attr(identity, 'error', 'fewer are left than go on')
        self.study.tell(found.number, state=TrialState.FAIL)
        return None
      directory = source.user_attrs['directory']
      self.storage.set_trial_user_attr(identity, 'directory', directory)
      for key, distribution in source.distributions.items():
        if key not in found.params:  # it has them where another trial of this slot was lost
          internal = distribution.to_internal_repr(source.params[key])
          self.storage.set_trial_param(identity, key, internal, distribution)
    self.study.sampler = self._sampler(slot)
    trial = Trial(self.study, identity)
    values = {p.key: _suggest(trial, p.key, p.distribution) for p in self.sweep.parameters}
    if source is None and (equal := self._directory_of_equal(slot, values)):
      directory = equal
      self.storage.set_trial_user_attr(identity, 'directory', directory)
    return Claim(found.number, slot, values, directory, trial)

  def _directory_of_equal(self, slot: Slot, values: Mapping[str, Any]) -> str | None:
    """The run directory of an earlier slot that has the same values, in which it is trained once.

    Of an earlier one alone: of two that are begun at one moment only one looks at the other.
    """
    trials = self.by_slot()
    for other in self.sweep.slots[: self.sweep.slots.index(slot)]:
      if other.rung == 0 and other.key in trials and trials[other.key].params == values:
        return trials[other.key].user_attrs['directory']
    return None

  def _sampler(self, slot: Slot) -> optuna.samplers.BaseSampler:
    """One of the slot's own seed: what is drawn at random does not depend on who draws when."""
    seed = zlib.crc32(f'{self.sweep.settings["sampler_seed"]}/{slot.key}'.encode())
    if self.sweep.settings['sampler'] != 'tpe':
      return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)

  def renew(self, claim: Claim) -> None:
    """Says that the trial's process lives."""
    self.storage.set_trial_user_attr(self._identity(claim.number), 'lease', time.time() + LEASE)

  def note_epoch(self, claim: Claim, epoch: float) -> None:
    """Says how far the trial is."""
    claim.trial.set_user_attr('epoch', epoch)

  def finish(
    self, claim: Claim, metrics: Mapping[str, float], *, epoch: float, stopped: bool
  ) -> None:
    """Ends a trial with its figures at an epoch; one `stopped` before its run's end is pruned."""
    claim.trial.set_user_attr('metrics', dict(metrics))
    self.note_epoch(claim, epoch)
    # By their difference from the bound: TPE models them, and learns from how well one holds too.
    for index, excess in enumerate(excesses(self.sweep.settings, metrics)):
      claim.trial.set_constraint(str(index), excess)
    values = [metrics[objective['metric']] for objective in self.sweep.objectives]
    if stopped:
      if self.sweep.settings['scheduler']['name'] == 'hyperband':  # Optuna's was told on the way
        claim.trial.report(values[0], claim.slot.epochs)
      self.study.tell(claim.number, state=TrialState.PRUNED)
    else:
      self.study.tell(claim.number, values)

  def fail(self, claim: Claim, reason: str) -> None:
    """Ends a trial that can't be trained: it is worse than all others."""
    claim.trial.set_user_attr('error', reason)
    self.study.tell(claim.number, state=TrialState.FAIL)

  def release_dead(
    self, workers: Sequence[str] = (), *, stopped: Sequence[str] = ()
  ) -> list[FrozenTrial]:
    """Gives back the slots of trials whose process is gone.

    Args:
      workers: that died; so has who let a lease run out.
      stopped: workers that were asked to end, which does not count as a death.

    Returns:
      The trials that were lost.
    """
    lost = []
    for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
      began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
      lease = trial.user_attrs.get('lease', began + GRACE)
      worker = trial.user_attrs.get('worker')
      if worker in workers or worker in stopped or lease < time.time():
        self.release(trial, died=worker not in stopped)
        lost.append(trial)
    return lost

  def release(self, trial: FrozenTrial, *, died: bool, error: str = '') -> None:
    """Gives a running trial's slot to another trial, or fails it.

    Args:
      trial: that this process, or one that is gone, has.
      died: whether its training ended by itself; so many deaths without progress are a failure.
      error: of which it died; the same twice is a failure.
    """
    identity = self._identity(trial.number)
    attributes = trial.user_attrs
    epoch, furthest = attributes.get('epoch', 0.0), attributes.get('epoch_of_death', -1.0)
    deaths = 1 if epoch > furthest else attributes['deaths'] + 1
    is_error_again = bool(error) and error == attributes.get('died_of')
    is_failed = is_error_again or (died and deaths > self.sweep.settings['deaths'])
    if not is_failed:
      # Before its predecessor is given up: a slot is never without a trial, whoever dies between.
      again = {'directory': attributes['directory'], 'deaths': deaths if died else 0}
      again |= {'epoch': epoch, 'epoch_of_death': max(epoch, furthest) if died else -1.0}
      again |= {'died_of': error, 'epoch_before': epoch}
      # Of values drawn in part none stay: the others would come from another place in the sequence.
      values = trial.params if len(trial.params) == len(self.sweep.parameters) else {}
      self._add(self.slots[attributes['slot']], values, again)
    try:
      if is_failed:
        reason = f'its process died {deaths} times without getting past epoch {epoch:g}'
        reason = error if is_error_again else reason
        self.storage.set_trial_user_attr(identity, 'error', reason)
      else:
        self.storage.set_trial_user_attr(identity, 'lost', 'died' if died else 'stopped')
      self.storage.set_trial_state_values(identity, TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
      return  # it ended after all, or another process was faster; what was added is never looked at

  def has_worked(self, worker: str) -> bool:
    """Whether a worker ever had a trial."""
    trials = self.study.get_trials(deepcopy=False)
    return any(trial.user_attrs.get('worker') == worker for trial in trials)

  def got_on(self, worker: str) -> bool:
    """Whether a worker ever brought a trial further than it found it."""
    attributes = [trial.user_attrs for trial in self.study.get_trials(deepcopy=False)]
    own = [found for found in attributes if found.get('worker') == worker]
    return any(found.get('epoch', 0.0) > found.get('epoch_before', 0.0) for found in own)

  def may_go_on(self, slot: Slot, trials: Mapping[str, FrozenTrial]) -> bool:
    """Whether somebody may still begin where this slot ends, by the trial of each slot."""
    after = [
      s.key for s in self.sweep.slots if (s.bracket, s.rung) == (slot.bracket, slot.rung + 1)
    ]
    return any(key in trials and trials[key].state == TrialState.WAITING for key in after)

  @property
  def is_over(self) -> bool:
    """Whether every slot is done."""
    trials = self.by_slot()
    return all(
      slot.key in trials and trials[slot.key].state not in OPEN for slot in self.sweep.slots
    )


def _suggest(trial: Trial, key: str, distribution) -> Any:
  match distribution:
    case FloatDistribution():
      return trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
    case IntDistribution():
      return trial.suggest_int(key, distribution.low, distribution.high)
    case CategoricalDistribution():
      return trial.suggest_categorical(key, distribution.choices)
  raise TypeError(distribution)
