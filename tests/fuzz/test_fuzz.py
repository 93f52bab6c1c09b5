"""A share of tests/fuzz: impossible settings and damaged files; and what counts as wrong."""

import importlib
import operator

import command
import damage
import every_field
import moments
import pytest
import settings
import signals

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')

IN_PROCESS = ('finished', 'cache', 'shipment')  # a search starts workers


def wrong(tried):
  return [(case, verdict) for case, verdict in tried if verdict.kind == 'wrong']


def test_settings_that_can_not_be_are_refused_and_others_are_trained(tmp_path):
  tried = list(settings.tried(40, 4, tmp_path, bases=('quickstart', 'lenet300_sparse_vd')))
  assert len(tried) == 40
  assert not wrong(tried)
  assert {'refused', 'trained'} <= {verdict.kind for _, verdict in tried}


def test_damaged_files_are_refused_or_without_effect(tmp_path):
  tried = list(damage.tried(20, 0, tmp_path, sources=IN_PROCESS))
  assert len(tried) > 10
  assert not wrong(tried)
  assert {verdict.kind for _, verdict in tried} == {'right', 'refused'}


@pytest.mark.usefixtures('_from_the_root')
def test_what_no_field_can_have_is_refused_in_one_line_however_it_is_given(tmp_path):
  chosen = ('configs/quickstart.py', 'configs/lenet300_bc_ghs.py', 'configs/resnet20_lobs.py')
  tried = list(every_field.tried(0, 0.01, chosen, tmp_path))
  assert {case.way for case, _, _ in tried} == set(every_field.WAYS)
  assert not [(case, said) for case, came, said in tried if came == 'wrong']
  assert {came for _, came, _ in tried} == {'refused', 'taken'}


CASE = settings.Case('launch', 'quickstart', 'trace.decay', '2', 'blind')


@pytest.mark.parametrize(
  ('outcome', 'why'),
  [
    (command.Outcome(2, '', 'launch.py: trace.decay=2 must be a number below 1\n'), ''),
    (command.Outcome(2, '', 'launch.py: trace.decay=2 must be\nsmall\n'), '2 lines'),
    (command.Outcome(2, '', 'launch.py: it must be a number below 1\n'), 'names no field'),
    (command.Outcome(2, '', 'launch.py: trace.decay=2\x1b[2J must be small\n'), 'an escape'),
    (command.Outcome(None, '', '', 'Traceback'), 'a traceback'),
    (command.Outcome(0, '', ''), '0 runs were begun'),
    (command.Outcome(1, '', 'launch.py: no\n'), 'status 1'),
  ],
)
def test_what_is_wrong_with_an_answer_is_seen(outcome, why, tmp_path):
  world = object.__new__(settings.World)
  world.place = tmp_path
  verdict = settings._judged(CASE, outcome, False, world)
  assert verdict.kind == ('wrong' if why else 'refused')
  assert why in verdict.why


def test_the_same_seed_draws_the_same_cases_and_half_of_them_are_blind():
  cases = list(settings.cases(100, 5))
  assert cases == list(settings.cases(100, 5)) != list(settings.cases(100, 6))
  assert [case.half for case in cases].count('blind') == 50


def test_each_signal_comes_to_each_command_before_any_comes_again():
  sent = [(case.command, case.signal) for case in signals.cases(40, 0)]
  assert len(set(sent[:20])) == 20 == len(set(sent[20:]))
  assert all(len(set(column)) == 4 for column in zip(*sent[4:8], strict=True))


def test_each_moment_is_a_function_and_each_kind_comes_before_any_comes_again():
  every = moments.cases(1000, 0)
  assert len(every) == len(set(every))
  for where in {case.where for case in every} - {moments.COMPILING}:
    module, _, path = where.partition(':')
    assert callable(operator.attrgetter(path)(importlib.import_module(module)))
  kinds = {(case.command, case.kind) for case in every}
  assert {(case.command, case.kind) for case in every[: len(kinds)]} == kinds
