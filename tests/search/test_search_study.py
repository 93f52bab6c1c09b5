"""The slots of a study: who begins what, what goes on, and what a death costs.

The workers here are objects in one process that take turns; what they share is a storage.
"""

import math
import os
import random
import time

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from sparsejax.search import search_folder, view
from sparsejax.search import study as study_module
from sparsejax.search.plan import base, settings
from sparsejax.search.storage import open_storage
from sparsejax.search.study import GRACE, LEASE, Study, worker_name

CONFIG = {'epochs': 9.0, 'seed': 0, 'rate': 0.1, 'evaluation': {'every_epochs': 1.0}, 'other': 0.5}
STATES = (
  search_folder.FINISHED,
  search_folder.STOPPED,
  search_folder.FAILED,
  search_folder.RUNNING,
  search_folder.WAITING,
)
ME = worker_name(os.getpid())
RATE = {'key': 'rate', 'kind': 'log_uniform', 'low': 0.01, 'high': 1.0}


def sweep(**changes):
  config = base.get_config().to_dict() | {'space': (RATE,)}
  config['scheduler'] = config['scheduler'] | changes.pop('scheduler', {})
  return settings.check(config | changes, lambda name: CONFIG)


def study_of(search, storage=None):
  study = Study(search, storage or InMemoryStorage(), 'test')
  study.plan()
  return study


def loss(claim):
  """Best at a rate of 0.1, and better with every epoch."""
  return abs(math.log10(claim.values['rate']) + 1) + 1 / claim.slot.epochs


def finish(study, claim, value=None):
  figures = {'validation_loss': loss(claim) if value is None else value}
  study.finish(claim, figures, epoch=claim.slot.epochs, stopped=not claim.slot.is_last)


def work(study, order=random.Random(0)):
  """Two workers, each ending its trial when chance has it; returns the claims in their order."""
  busy, every = [], []
  while not study.is_over:
    if len(busy) < 2 and (claim := study.claim()) is not None:
      busy.append(claim)
      every.append(claim)
    elif busy:
      finish(study, busy.pop(order.randrange(len(busy))))
  return every


def test_every_slot_is_done_once_and_the_best_go_on():
  study = study_of(sweep())
  claims = work(study)
  assert sorted(claim.slot.key for claim in claims) == sorted(s.key for s in study.sweep.slots)
  by_key = {claim.slot.key: claim for claim in claims}
  for bracket, counts in enumerate(((9, 3, 1), (5, 1), (3,))):
    for rung, count in enumerate(counts[1:], 1):
      before = [by_key[f'{bracket}.{rung - 1}.{i}'] for i in range(counts[rung - 1])]
      best = sorted(before, key=loss)[:count]
      went_on = [by_key[f'{bracket}.{rung}.{i}'] for i in range(count)]
      assert [claim.directory for claim in went_on] == [claim.directory for claim in best]
      assert [claim.values for claim in went_on] == [claim.values for claim in best]
  states = [trial.state for trial in study.trials_by_slot().values()]
  assert states.count(TrialState.COMPLETE) == 1 + 1 + 3
  assert states.count(TrialState.PRUNED) == 9 + 3 + 5
  # Optuna's own best trial is one of those that were trained in full.
  assert study.study.best_trial.value == min(loss(c) for c in claims if c.slot.is_last)


def test_a_rung_waits_for_the_last_of_the_one_before():
  study = study_of(sweep())
  first = [study.claim() for _ in range(9)]
  assert {claim.slot.bracket for claim in first} == {0}
  for claim in first[:-1]:
    finish(study, claim)
  assert study.claim().slot.bracket == 1  # nothing of bracket 0 can be begun
  finish(study, first[-1])
  assert study.claim().slot.key == '0.1.0'


def test_what_is_drawn_does_not_depend_on_who_draws_when():
  drawn = []
  for seed in range(2):
    claims = work(study_of(sweep()), random.Random(seed))
    drawn.append({claim.slot.key: claim.values for claim in claims})
  assert drawn[0] == drawn[1]
  values = [claim['rate'] for key, claim in drawn[0].items() if '.0.' in key]
  assert len(set(values)) == 9 + 5 + 3
  other = work(study_of(sweep(sampler_seed=1)))
  assert other[0].values != drawn[0]['0.0.0']


def test_a_failed_trial_is_the_worst_and_the_search_goes_on():
  study = study_of(sweep())
  claims = [study.claim() for _ in range(9)]
  for claim in claims[:8]:
    study.fail(claim, 'the loss of step 3 is not finite')
  finish(study, claims[8])
  on = study.claim()
  assert on.directory == claims[8].directory
  finish(study, on)
  work(study)
  trials = study.trials_by_slot().values()
  failed = [trial.user_attrs['error'] for trial in trials if trial.state == TrialState.FAIL]
  # Eight by themselves, two places of the next rung that nobody is left for.
  assert failed.count('too few trials are left to go on') == 2
  assert len(failed) == 10
  assert view.status(study).failed == 8


def test_a_lost_trial_is_taken_up_by_another_with_its_values_and_directory():
  study = study_of(sweep())
  claim = study.claim()
  study.note_epoch(claim, 0.0)
  assert [trial.number for trial in study.release_dead([ME])] == [claim.number]
  assert study.study.trials[claim.number].state == TrialState.FAIL
  again = study.claim()
  assert again.slot == claim.slot
  assert again.number != claim.number
  assert (again.values, again.directory) == (claim.values, claim.directory)
  finish(study, again)
  work(study)
  assert len(study.trials_by_slot()) == len(study.sweep.slots)
  now = view.status(study)
  assert (now.finished, now.stopped, now.failed, now.lost) == (5, 12, 0, 1)


def test_a_promoted_trial_that_is_lost_goes_on_with_the_same_configuration():
  study = study_of(sweep())
  for claim in [study.claim() for _ in range(9)]:
    finish(study, claim)
  promoted = study.claim()
  study.release_dead([ME])
  again = study.claim()
  assert again.slot == promoted.slot
  assert (again.values, again.directory) == (promoted.values, promoted.directory)


def test_a_trial_that_dies_at_one_place_again_and_again_has_failed():
  study = study_of(sweep(deaths=2))
  for death in range(3):
    claim = study.claim()
    assert claim.slot.key == '0.0.0'
    study.note_epoch(claim, 0.5)
    study.release_dead([ME])
    del death
  assert study.claim().slot.key == '0.0.1'
  error = study.trials_by_slot()['0.0.0'].user_attrs['error']
  assert error == 'its process died 3 times without getting past epoch 0.5'


def test_deaths_with_progress_between_them_do_not_add_up():
  study = study_of(sweep(deaths=1))
  for epoch in range(1, 6):
    claim = study.claim()
    assert claim.slot.key == '0.0.0'
    study.note_epoch(claim, epoch)
    study.release_dead([ME])


def test_a_lease_that_ran_out_is_a_death_and_one_that_did_not_is_none(monkeypatch):
  study = study_of(sweep())
  claim = study.claim()
  assert study.release_dead() == []
  now = time.time()
  monkeypatch.setattr(time, 'time', lambda: now + LEASE - 1)
  assert study.release_dead() == []
  study.renew(claim)
  monkeypatch.setattr(time, 'time', lambda: now + LEASE + 1)
  assert study.release_dead() == []
  monkeypatch.setattr(time, 'time', lambda: now + 3 * LEASE)
  assert [trial.number for trial in study.release_dead()] == [claim.number]


def test_what_two_supervisors_do_at_once_is_done_once():
  """Both plan, and both give back the same dead trial; the later copies are never begun."""
  storage = InMemoryStorage()
  search = sweep(scheduler={'name': 'none'}, trials=3)
  study, other = Study(search, storage, 'test'), Study(search, storage, 'test')
  study.trials_by_slot = dict  # as it was before the other's plan
  other.plan()
  study.plan()
  del study.trials_by_slot
  assert len(study.study.trials) == 6
  claim = study.claim()
  stale = study.study.trials[claim.number]
  study.release(stale, died=True)
  other.release(stale, died=True)
  keys = [claim.slot.key for claim in work(study)]
  assert sorted(keys) == ['0.0.0', '0.0.1', '0.0.2']
  assert len(study.trials_by_slot()) == 3


def test_another_search_of_the_same_name_is_refused():
  storage = InMemoryStorage()
  study_of(sweep(), storage)
  study_of(sweep(), storage)  # the same one goes on
  with pytest.raises(ValueError, match="study 'test': it holds another search"):
    study_of(sweep(sampler_seed=5), storage)


def test_a_grid_is_begun_in_its_order():
  study = study_of(sweep(space=(CHOICES,), sampler='grid', scheduler={'name': 'none'}))
  assert [claim.values['rate'] for claim in work(study)] == [0.1, 0.2, 0.4]


CHOICES = {'key': 'rate', 'kind': 'choices', 'choices': (0.1, 0.2, 0.4)}


def test_equal_configurations_have_one_run_directory():
  study = study_of(sweep(space=(CHOICES,)))
  by_rate = {}
  for claim in work(study):
    by_rate.setdefault(claim.values['rate'], set()).add(claim.directory)
  assert sorted(by_rate) == [0.1, 0.2, 0.4]
  directories = [directory for each in by_rate.values() for directory in each]
  assert len(directories) == len(set(directories)) == 3
  recorded = {record['directory'] for record in view.records(study)}
  assert recorded == set(directories)
  # 3 were trained in full, as far as the longest of their slots.
  now = view.status(study)
  assert (now.finished + now.stopped, now.failed, now.waiting) == (3, 0, 0)


def test_of_two_equal_ones_that_begin_at_once_none_takes_the_other_for_its_own():
  study = study_of(sweep(space=(CHOICES,), scheduler={'name': 'none'}, trials=8))
  claims = [study.claim() for _ in range(8)]
  firsts = {}
  for claim in claims:
    assert claim.directory == firsts.setdefault(claim.values['rate'], claim.directory)
  study.release_dead([ME])
  again = [study.claim() for _ in range(8)]
  assert [claim.directory for claim in again] == [claim.directory for claim in claims]


def test_tpe_learns_from_what_was_tried():
  search = sweep(scheduler={'name': 'none'}, trials=40, sampler='tpe')
  claims = work(study_of(search))
  late = [loss(claim) for claim in claims[20:]]
  drawn = [loss(claim) for claim in work(study_of(sweep(scheduler={'name': 'none'}, trials=40)))]
  assert sorted(late)[10] < sorted(drawn)[20]


def test_tpe_keeps_to_a_constraint():
  """Small rates break it: the loss alone draws to 0.1, the constraint to above 0.3."""
  feasible = {}
  for at_most in (0.5, 1.0):  # at 1.0 nothing breaks it
    constraint = {'metric': 'active_fraction', 'at_most': at_most}
    search = sweep(scheduler={'name': 'none'}, trials=40, sampler='tpe', constraints=(constraint,))
    study = study_of(search)
    while (claim := study.claim()) is not None:
      figures = {'validation_loss': loss(claim), 'active_fraction': 0.8 - claim.values['rate']}
      study.finish(claim, figures, epoch=9, stopped=False)
    rates = [trial.params['rate'] for trial in study.study.trials[20:]]
    feasible[at_most] = sum(rate > 0.3 for rate in rates)
    best = view.ranking(study)[0].params['rate']
    assert 0.3 <= best < 0.4 if at_most == 0.5 else 0.08 < best < 0.12
  assert feasible[0.5] > 2 * feasible[1.0]


def test_several_objectives():
  goals = tuple(
    {'metric': name, 'direction': 'minimize'} for name in ('validation_loss', 'active_fraction')
  )
  study = study_of(sweep(scheduler={'name': 'none'}, trials=4, objectives=goals, sampler='tpe'))
  while (claim := study.claim()) is not None:
    rate = claim.values['rate']
    figures = {'validation_loss': 1 - rate, 'active_fraction': rate}
    study.finish(claim, figures, epoch=9, stopped=False)
  assert len(study.study.best_trials) == 4  # each is better in one and worse in the other


def test_a_journal_survives_a_machine_that_went_down_within_a_line(tmp_path):
  study = study_of(sweep(), open_storage(None, tmp_path))
  finish(study, study.claim())
  journal = tmp_path / 'study.journal'
  whole = journal.read_bytes()
  journal.write_bytes(whole + b'{"op_code": 5, "wor')
  study = study_of(sweep(), open_storage(None, tmp_path))
  assert journal.read_bytes().startswith(whole)
  work(study)
  assert study.is_over


def test_databases_that_can_not_be_shared_or_reached(tmp_path):
  with pytest.raises(ValueError, match='SQLite lets two workers take one trial'):
    open_storage('sqlite:///study.db', tmp_path)
  with pytest.raises(ValueError, match=r'study=nosql://host/x: .*; it must be a database that'):
    open_storage('nosql://host/x', tmp_path)


@pytest.mark.parametrize(
  'url',
  [
    'nosql://me:secret@host/x',
    'postgres//me:secret@host/x',
    'nosql://host/x?user=me&password=secret',
  ],
)
def test_no_message_has_a_password(tmp_path, url):
  with pytest.raises(ValueError, match='it must be a database') as error:
    open_storage(url, tmp_path)
  assert 'secret' not in str(error.value)


def test_the_time_left_is_told_from_trials_of_two_lengths():
  """Each takes 10 seconds to begin and 2 for an epoch."""
  left = [(6.0, 6.0), (6.0, 3.0), (18.0, 18.0)]
  assert view.seconds_left([], left, 2) is None
  assert view.seconds_left([(2.0, 14.0)] * 3, left, 2) is None
  done = [(2.0, 14.0), (2.0, 14.0), (6.0, 22.0)]
  # What is being trained has begun already.
  assert view.seconds_left(done, left, 2) == pytest.approx((22 + 3 * 2 + 10 + 36) / 2)
  assert view.seconds_left([(9.0, 28.0)], [(9.0, 9.0)], 1) == pytest.approx(28)
  assert view.seconds_left(done, [], 0) == 0.0


def test_a_slot_is_never_without_a_trial_while_one_is_given_up(monkeypatch):
  study = study_of(sweep())
  claim = study.claim()
  seen = []
  give_up = study.storage.set_trial_state_values

  def look(identity, state, *values):
    seen.append({key: trial.state for key, trial in study.trials_by_slot().items()}[claim.slot.key])
    changed = give_up(identity, state, *values)
    seen.append(study.trials_by_slot()[claim.slot.key].state)
    return changed

  monkeypatch.setattr(study.storage, 'set_trial_state_values', look)
  study.release_dead([ME])
  assert seen[-1] == TrialState.WAITING
  assert len(study.trials_by_slot()) == len(study.sweep.slots)


def test_a_line_that_a_full_disk_cut_off_does_not_reach_the_next_writer(tmp_path):
  one, other = (study_of(sweep(), open_storage(None, tmp_path)) for _ in range(2))
  claim = one.claim()
  with (tmp_path / 'study.journal').open('a') as file:
    file.write(unfinished := '{"op_code": 8, "work')
  assert other.claim().number != claim.number
  finish(one, claim)
  again = study_of(sweep(), open_storage(None, tmp_path))
  assert again.trials_by_slot()[claim.slot.key].state == TrialState.PRUNED
  assert (tmp_path / 'unfinished-study.journal').read_text() == unfinished


def test_the_time_left_is_that_of_the_epochs_left():
  study = study_of(sweep(scheduler={'name': 'none'}, trials=2))
  done, running = study.claim(), study.claim()
  finish(study, done)
  trial = study.trials_by_slot()[done.slot.key]
  whole = trial.duration.total_seconds()
  assert view.status(study).seconds_left == pytest.approx(whole)
  study.note_epoch(running, 6.0)
  assert view.status(study).seconds_left == pytest.approx(whole * 3 / 9)


def test_deaths_behind_the_furthest_epoch_add_up():
  study = study_of(sweep(deaths=2))
  for epoch in (6.0, 5.0, 6.0, 5.0):
    claim = study.claim()
    if claim.slot.key != '0.0.0':
      break
    study.note_epoch(claim, epoch)
    study.release_dead([ME])
  assert 'error' in study.trials_by_slot()['0.0.0'].user_attrs


def test_a_worker_that_died_before_it_said_what_it_took_costs_half_a_minute(monkeypatch):
  study = study_of(sweep())
  with monkeypatch.context() as patched:
    patched.setattr(study, '_begin', lambda *_: None)  # it died there
    study.claim()
  assert study.release_dead([ME]) == []  # nobody knows that it was this one
  now = time.time()
  monkeypatch.setattr(time, 'time', lambda: now + GRACE + 1)
  assert [trial.user_attrs['slot'] for trial in study.release_dead([ME])] == ['0.0.0']
  assert study.claim().slot.key == '0.0.0'


def test_a_worker_that_died_between_two_draws_changes_no_value(monkeypatch):
  search = sweep(space=(RATE, {'key': 'other', 'kind': 'uniform', 'low': 0.0, 'high': 1.0}))
  undisturbed = study_of(search).claim()
  study, suggest = study_of(search), study_module._suggest

  def die_at_the_second(trial, key, distribution):
    if key == 'other':
      raise KeyboardInterrupt
    return suggest(trial, key, distribution)

  with monkeypatch.context() as patched:
    patched.setattr(study_module, '_suggest', die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
      study.claim()
  (lost,) = study.release_dead([ME])
  assert set(lost.params) == {'rate'}
  assert study.claim().values == undisturbed.values


def test_a_trial_that_takes_the_slot_of_a_lost_one_is_recorded_in_its_place():
  study = study_of(sweep())
  before = [record['directory'] for record in view.records(study)]
  claim = study.claim()
  study.release_dead([ME])
  assert study.claim().directory == claim.directory
  records = view.records(study)
  assert [record['directory'] for record in records] == before
  assert records[0]['trial'] > max(record['trial'] for record in records[1:])


def test_every_configuration_is_counted_once_and_as_its_records_have_it():
  study = study_of(sweep())
  order, busy = random.Random(3), []
  for turn in range(200):
    now = view.status(study)
    states = {}
    for record in sorted(view.records(study), key=lambda record: record['rung']):
      states[record['directory']] = record['state']
    states.pop(None, None)  # a place that nobody has gone on to
    counts = [list(states.values()).count(state) for state in STATES]
    shown = [now.finished, now.stopped, now.failed, len(now.running), now.waiting]
    assert shown == counts
    assert sum(shown) == 9 + 5 + 3
    if (claim := study.claim() if len(busy) < 3 else None) is not None:
      busy.append(claim)
    elif busy:
      claim = busy.pop(order.randrange(len(busy)))
      study.fail(claim, 'it cannot') if turn % 9 == 0 else finish(study, claim)
  assert study.is_over
  assert now.promotions == 3 + 1 + 1
  assert f'of {9 + 5 + 3} configurations; 5 promotions' in now.line


def test_a_search_without_later_rungs_has_no_promotions():
  now = view.status(study_of(sweep(scheduler={'name': 'none'}, trials=3)))
  assert now.line == '0 finished, 0 stopped early, 0 running, 3 waiting, of 3 configurations'


def test_what_is_best_has_its_epoch_its_active_fraction_and_what_it_breaks():
  at_most = {'validation_loss': 0.1, 'active_fraction': 0.05, 'validation_accuracy': 1.0}
  constraints = tuple({'metric': name, 'at_most': bound} for name, bound in at_most.items())
  study = study_of(sweep(scheduler={'name': 'none'}, trials=2, constraints=constraints))
  figures = {'active_fraction': 0.0577, 'validation_accuracy': 0.98333, 'validation_loss': 0.15}
  study.finish(study.claim(), figures, epoch=9, stopped=False)
  (best,) = view.best(study)
  figures = 'trained for 9 epochs, active_fraction 5.77 %, validation_accuracy 98.33 %'
  figures += ', validation_loss 0.15'
  broken = 'breaks validation_loss <= 0.1 by 0.05, breaks active_fraction <= 5.00 % by 0.77 %'
  assert view.describe(study, best).startswith(f'b0-000: {figures}, {broken} (rate ')
  every = 'validation_loss <= 0.1 and active_fraction <= 5.00 % and validation_accuracy <= 100.00 %'
  assert view.broken_by_all(study) == every
  study.finish(study.claim(), dict.fromkeys(at_most, 0.01), epoch=9, stopped=False)
  assert view.broken_by_all(study) == ''
  assert 'breaks' not in view.describe(study, view.best(study)[0])


def test_with_optunas_pruner_what_a_killed_trial_reported_stays_in_the_comparison():
  study = study_of(sweep(scheduler={'name': 'optuna_hyperband'}, trials=1))
  for _ in range(2):
    claim = study.claim()
    claim.trial.report(0.5, 9)
    claim.trial.should_prune()
    study.release_dead([ME])
  lost = [trial for trial in study.study.trials if trial.state == TrialState.FAIL]
  assert [trial.intermediate_values for trial in lost] == [{9: 0.5}] * 2
  assert all(trial.system_attrs['completed_rung_0'] == 0.5 for trial in lost)
