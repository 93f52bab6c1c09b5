"""Hyperband's brackets, against those of the paper's tables and of the log's searches."""

import pytest

from sparsejax.search.plan.brackets import Slot, brackets, plan

# (R, eta) -> each bracket's configurations@epochs
TABLES = {
  (180, 5): [
    '125@1 25@7 5@36 1@180',
    '34@7 6@36 1@180',
    '10@36 2@180',
    '4@180',
  ],
  (80, 3): [
    '27@2 9@8 3@26 1@80',
    '12@8 4@26 1@80',
    '6@26 2@80',
    '4@80',
  ],
  # Li et al. 2018, table 1: 81 at 1 of 81.
  (81, 3): [
    '81@1 27@3 9@9 3@27 1@81',
    '34@3 11@9 3@27 1@81',
    '15@9 5@27 1@81',
    '8@27 2@81',
    '5@81',
  ],
  (1, 3): ['1@1'],
}


def written(rungs):
  return ' '.join(f'{configurations}@{epochs}' for configurations, epochs in rungs)


@pytest.mark.parametrize('case', TABLES)
def test_brackets(case):
  assert [written(rungs) for rungs in brackets(*case)] == TABLES[case]


@pytest.mark.parametrize(
  ('most', 'eta', 'count'),
  [(243, 3, 6), (242, 3, 5), (125, 5, 4), (1000, 10, 4), (2**20, 2, 21)],
)
def test_the_number_of_brackets_is_counted_with_integers(most, eta, count):
  assert len(brackets(most, eta)) == count


def test_every_slot_has_its_own_key_and_the_last_of_each_bracket_finish():
  slots = plan(brackets(80, 3))
  assert len({slot.key for slot in slots}) == len(slots) == 27 + 9 + 3 + 1 + 12 + 4 + 1 + 6 + 2 + 4
  assert sum(slot.is_last for slot in slots) == 1 + 1 + 2 + 4
  assert {slot.epochs for slot in slots if slot.is_last} == {80}
  assert slots[27] == Slot(bracket=0, rung=1, index=0, epochs=8, is_last=False)


@pytest.mark.parametrize(
  ('most', 'eta', 'message'), [(0, 3, 'epochs=0 must be'), (9, 1, 'eta=1 must be')]
)
def test_refused(most, eta, message):
  with pytest.raises(ValueError, match=message):
    brackets(most, eta)
