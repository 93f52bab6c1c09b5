"""Several things are timed in turns, and compared round by round."""

import pytest

from sparsejax.internal import timing


def test_blocks_take_turns_and_all_but_the_first_steps_are_counted():
  calls = []

  def timed(name, seconds):
    return lambda steps: calls.append((name, steps)) or seconds * steps

  found = timing.alternate(
    {'slow': timed('slow', 3.0), 'fast': timed('fast', 0.25)}, rounds=2, seconds=1.0
  )
  assert found == {'slow': [3.0, 3.0], 'fast': [0.25, 0.25]}
  first = [('slow', 1)] * 2 + [('fast', 1)] * 2
  assert calls == first + [('slow', 1), ('fast', 1), ('fast', 4)] * 2


def test_a_ratio_is_refused_where_a_round_lacks_one_of_the_two():
  with pytest.raises(ValueError, match='shorter'):
    timing.median_ratio([1.0, 2.0], [1.0])


def test_progress_is_noted():
  lines = []
  timing.alternate({'a': float}, rounds=2, seconds=1.0, note=lines.append)
  assert lines == ['first steps: a', 'round 1 of 2', 'round 2 of 2']
