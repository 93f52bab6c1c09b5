"""The agenda: every stop of a run from its config alone, by hand."""

import pytest

from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.training.agenda import agenda
from sparsejax.sparsity.parts import schedules

CLOCK = Clock(examples=100, batch_size=10, epochs=5.0)  # 10 steps an epoch, 50 in all
CONFIG = {
  'evaluation': {'every_epochs': 2.0, 'batch_size': 500},
  'log': {'every_steps': 15, 'checkpoint_every_epochs': 2.5, 'keep_checkpoints': 2},
  'events': (),
}
DENSE = {0, 15, 20, 25, 30, 40, 45, 50}


def test_a_dense_run_stops_at_its_logs_evaluations_and_checkpoints():
  plan = agenda(CONFIG, CLOCK, None)
  assert plan.evaluate == {20, 40, 50}
  assert plan.log == {15, 30, 45} | {20, 40, 50}
  assert plan.checkpoint == {25, 50}
  assert plan.events == {}
  assert plan.boundaries == sorted(DENSE)
  assert plan.total == 50
  assert all(plan.is_final(step) for step in (0, 1, 50))


def test_one_cut_is_measured_just_before_it_and_one_update_after():
  plan = agenda(CONFIG, CLOCK, schedules.one_shot(22, 0.1))
  assert (plan.first_cut, plan.last_cut) == (22, 22)
  assert plan.evaluate == {20, 22, 23, 40, 50}
  assert plan.evaluate <= plan.log
  assert plan.boundaries == sorted(DENSE | {22, 23})
  # After 22 updates the network is dense still: update number 22 is the first under the mask.
  assert [plan.is_final(step) for step in (21, 22, 23, 50)] == [False, False, True, True]


def test_many_cuts_are_bracketed_and_the_last_is_a_stop():
  plan = agenda(CONFIG, CLOCK, schedules.cubic(5, 35, 0.1, every=8))  # 13, 21, 29, 35
  assert (plan.first_cut, plan.last_cut) == (13, 35)
  assert plan.evaluate == {13, 20, 36, 40, 50}
  assert plan.boundaries == sorted(DENSE | {13, 35, 36})
  assert [plan.is_final(step) for step in (20, 35, 36)] == [False, False, True]


def test_cuts_at_the_very_start_and_the_very_end():
  first = agenda(CONFIG, CLOCK, schedules.one_shot(0, 0.1))
  assert first.evaluate == {0, 1, 20, 40, 50}
  last = agenda(CONFIG, CLOCK, schedules.one_shot(49, 0.1))
  assert last.evaluate == {20, 40, 49, 50}
  assert last.is_final(50)


def test_a_network_whose_weights_have_just_come_back_is_no_result():
  plan = agenda(CONFIG, CLOCK, schedules.periodic(5, 35, 0.1, every=10), grows=True)
  assert plan.evaluate == {5, 20, 26, 40, 50}  # exchanged at 5, 15 and 25
  assert [plan.is_final(step) for step in (25, 26, 27)] == [False, False, True]
  with pytest.raises(
    ValueError, match=r'the last mask update is at step 49 of 50.*step 48 at the latest'
  ):
    agenda(CONFIG, CLOCK, schedules.cubic(5, 49, 0.1, every=8), grows=True)


def test_events_are_stops_and_are_saved():
  config = CONFIG | {'events': ('b', 'a', 'c')}
  config |= {'a': {'at_epochs': 1.2}, 'b': {'at_steps': 12, 'batches': 3}, 'c': {'at_steps': 49}}
  plan = agenda(config, CLOCK, None)
  assert plan.events == {12: ('b', 'a'), 49: ('c',)}  # at one step in the config's order
  assert plan.boundaries == sorted(DENSE | {12, 49})
  assert plan.checkpoint == {12, 25, 49, 50}


def test_the_end_is_evaluated_logged_and_saved_whatever_the_periods():
  config = CONFIG | {
    'evaluation': {'every_epochs': 100.0},
    'log': {'every_steps': 51, 'checkpoint_every_epochs': 6.0},
  }
  plan = agenda(config, CLOCK, None)
  assert plan.log == plan.evaluate == plan.checkpoint == {50}
  assert plan.boundaries == [0, 50]


@pytest.mark.parametrize(
  ('block', 'setting', 'value', 'message'),
  [
    ('log', 'every_steps', 0, r'log\.every is 0 steps; it must be 1 or more'),
    ('log', 'checkpoint_every_epochs', 0.01, r'log\.checkpoint_every is 0 steps; it must be 1'),
    ('evaluation', 'every_epochs', 0.0, r'evaluation\.every is 0 steps; it must be 1 or more'),
    ('evaluation', 'every_epochs', -1.0, r'evaluation\.every_epochs=-1\.0 must be a number'),
  ],
)
def test_a_period_below_one_step_is_refused(block, setting, value, message):
  with pytest.raises(ValueError, match=f'^{message}'):
    agenda(CONFIG | {block: CONFIG[block] | {setting: value}}, CLOCK, None)


def test_an_event_at_the_end_is_refused():
  config = CONFIG | {'events': ('a',), 'a': {'at_steps': 50}}
  with pytest.raises(
    ValueError, match=r'^a\.at is step 50, but the run has 50 steps; it must be earlier'
  ):
    agenda(config, CLOCK, None)
