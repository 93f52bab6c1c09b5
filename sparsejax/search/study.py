"""An Optuna study as a list of slots: what is done, what can start, and which worker has what.

Every slot is a trial, created waiting at the beginning. The process that turns it from waiting to
running has it; the storage lets only one do so. A slot of a later rung can start once the rung
before it is done. That rung alone decides which configuration the slot goes on with, so it does not
matter which process starts it, or when.

A trial whose process died is failed and `lost`, and another trial takes its slot, with the same
values and the same run directory. Whatever two processes do at once, the trial of a slot is the
one with the lowest number that is not lost.
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

LEASE = 300.0  # seconds without a sign of life after which a trial's process counts as lost
GRACE = 30.0  # the same for a taken trial whose process never gave its name
OPEN = (TrialState.WAITING, TrialState.RUNNING)


class Claim(NamedTuple):
  """A slot that this process has taken, with its values, its directory and its trial."""

  number: int
  slot: Slot
  values: dict[str, Any]
  directory: str
  trial: Trial


def machine() -> str:
  """Returns the name of this machine or container, within which process numbers are unique."""
  try:
    # Containers that share a host's network have its name, but their own process numbers.
    namespace = os.readlink('/proc/self/ns/pid').strip('pid:[]')
  except OSError:  # not on Linux
    return platform.node()
  return f'{platform.node()}/{namespace}'


def worker_name(process: int) -> str:
  """Returns the name under which a process on this machine holds a trial."""
  return f'{machine()}:{process}'


class Study:
  """A search's study.

  Args:
    sweep: the search.
    storage: the storage of the study.
    name: the study's name.
    folder: the identity of the folder of its runs; '' if the study is in that folder.

  Raises:
    ValueError: the study belongs to another search or another folder.
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
    # Whichever process has a trial next continues from its checkpoint, so the folder must be one.
    if folder:
      self._agree('folder', folder, f"study '{name}': its runs are in another folder than workdir")

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
    planned = self.trials_by_slot()
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

  def trials_by_slot(self) -> dict[str, FrozenTrial]:
    """Returns the trial of each slot."""
    found: dict[str, FrozenTrial] = {}
    for trial in self.study.get_trials(deepcopy=False):
      is_lost = trial.state == TrialState.FAIL and 'lost' in trial.user_attrs
      if not is_lost and 'slot' in trial.user_attrs:
        found.setdefault(trial.user_attrs['slot'], trial)
    return found

  def claim(self) -> Claim | None:
    """Takes the first slot that can start, or returns None."""
    trials = self.trials_by_slot()
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
    """Returns the rank of a finished trial; see `settings.score`."""
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
    """Notes which worker has the trial, and sets its values: drawn ones or the promoted trial's.

    It returns None, and the trial fails, if the trial to promote has no metrics.
    """
    identity = self._identity(found.number)
    self.storage.set_trial_user_attr(identity, 'worker', worker_name(os.getpid()))
    self.storage.set_trial_user_attr(identity, 'lease', time.time() + LEASE)
    directory = found.user_attrs['directory']
    if source is not None:
      if 'metrics' not in source.user_attrs:
        self.storage.set_trial_user_attr(identity, 'error', 'too few trials are left to go on')
        self.study.tell(found.number, state=TrialState.FAIL)
        return None
      directory = source.user_attrs['directory']
      self.storage.set_trial_user_attr(identity, 'directory', directory)
      for key, distribution in source.distributions.items():
        if key not in found.params:  # it has them if an earlier trial of this slot was lost
          internal = distribution.to_internal_repr(source.params[key])
          self.storage.set_trial_param(identity, key, internal, distribution)
    self.study.sampler = self._sampler(slot)
    trial = Trial(self.study, identity)
    values = {p.key: _suggest(trial, p.key, p.distribution) for p in self.sweep.parameters}
    equal = self._directory_of_equal(slot, values) if source is None else None
    if equal:
      directory = equal
      self.storage.set_trial_user_attr(identity, 'directory', directory)
    return Claim(found.number, slot, values, directory, trial)

  def _directory_of_equal(self, slot: Slot, values: Mapping[str, Any]) -> str | None:
    """The run directory of an earlier slot with the same values, so that both are trained once.

    Only earlier slots count, so that of two that start at the same moment only one adopts the
    other's directory. The result is None if none of them has the values.
    """
    trials = self.trials_by_slot()
    for other in self.sweep.slots[: self.sweep.slots.index(slot)]:
      if other.rung == 0 and other.key in trials and trials[other.key].params == values:
        return trials[other.key].user_attrs['directory']
    return None

  def _sampler(self, slot: Slot) -> optuna.samplers.BaseSampler:
    """A sampler with the slot's own seed: draws do not depend on which worker draws when."""
    seed = zlib.crc32(f'{self.sweep.settings["sampler_seed"]}/{slot.key}'.encode())
    if self.sweep.settings['sampler'] != 'tpe':
      return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)

  def renew(self, claim: Claim) -> None:
    """Records that the trial's process is alive."""
    self.storage.set_trial_user_attr(self._identity(claim.number), 'lease', time.time() + LEASE)

  def note_epoch(self, claim: Claim, epoch: float) -> None:
    """Records how far the trial has come."""
    claim.trial.set_user_attr('epoch', epoch)

  def finish(
    self, claim: Claim, metrics: Mapping[str, float], *, epoch: float, stopped: bool
  ) -> None:
    """Ends a trial with its figures at an epoch; one `stopped` before its run's end is pruned."""
    claim.trial.set_user_attr('metrics', dict(metrics))
    self.note_epoch(claim, epoch)
    # TPE gets the excess over the bound, because it also learns from how well a constraint holds.
    for index, excess in enumerate(excesses(self.sweep.settings, metrics)):
      claim.trial.set_constraint(str(index), excess)
    values = [metrics[objective['metric']] for objective in self.sweep.objectives]
    if stopped:
      # Optuna's pruner got every evaluation already.
      if self.sweep.settings['scheduler']['name'] == 'hyperband':
        claim.trial.report(values[0], claim.slot.epochs)
      self.study.tell(claim.number, state=TrialState.PRUNED)
    else:
      self.study.tell(claim.number, values)

  def fail(self, claim: Claim, reason: str) -> None:
    """Ends a trial that cannot be trained; it ranks below all others."""
    claim.trial.set_user_attr('error', reason)
    self.study.tell(claim.number, state=TrialState.FAIL)

  def release_dead(
    self, workers: Sequence[str] = (), *, stopped: Sequence[str] = ()
  ) -> list[FrozenTrial]:
    """Gives back the slots of trials whose process is gone.

    Args:
      workers: workers that died; any whose lease ran out counts as dead too.
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
    """Gives a running trial's slot to another trial, or fails the trial.

    Args:
      trial: a trial that belongs to this process, or to one that is gone.
      died: whether its training ended by itself; too many deaths without progress fail it.
      error: the error that ended it; the same error twice fails it.
    """
    identity = self._identity(trial.number)
    attributes = trial.user_attrs
    epoch, furthest = attributes.get('epoch', 0.0), attributes.get('epoch_of_death', -1.0)
    deaths = 1 if epoch > furthest else attributes['deaths'] + 1
    is_error_again = bool(error) and error == attributes.get('died_of')
    is_failed = is_error_again or (died and deaths > self.sweep.settings['deaths'])
    if not is_failed:
      # Its successor is added before it is given up, so that a slot always has a trial, even if
      # this process dies in between.
      again = {'directory': attributes['directory'], 'deaths': deaths if died else 0}
      again |= {'epoch': epoch, 'epoch_of_death': max(epoch, furthest) if died else -1.0}
      again |= {'died_of': error, 'epoch_before': epoch}
      # Partly drawn values are dropped: the rest would come from another place in the sequence.
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
      return  # it ended after all, or another process was faster; the added trial is never used

  def has_worked(self, worker: str) -> bool:
    """Returns whether a worker ever had a trial."""
    trials = self.study.get_trials(deepcopy=False)
    return any(trial.user_attrs.get('worker') == worker for trial in trials)

  def has_progressed(self, worker: str) -> bool:
    """Returns whether a worker ever brought a trial further than it found it."""
    attributes = [trial.user_attrs for trial in self.study.get_trials(deepcopy=False)]
    own = [found for found in attributes if found.get('worker') == worker]
    return any(found.get('epoch', 0.0) > found.get('epoch_before', 0.0) for found in own)

  def can_continue(self, slot: Slot, trials: Mapping[str, FrozenTrial]) -> bool:
    """Returns whether a later slot may still continue this one, given each slot's trial."""
    after = [
      s.key for s in self.sweep.slots if (s.bracket, s.rung) == (slot.bracket, slot.rung + 1)
    ]
    return any(key in trials and trials[key].state == TrialState.WAITING for key in after)

  @property
  def is_over(self) -> bool:
    """Whether every slot is done."""
    trials = self.trials_by_slot()
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
