"""Means over equal windows: nothing is counted twice, however long the lines' own windows are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.experiment.show import windows
from sparsejax.reports.records import curves


def equal(ends, means):
  found = windows.equal(np.array(ends, float), np.array(means, float))
  return [part.tolist() for part in found]


def test_equal_lines_stay_what_they_are():
  assert equal([5, 10, 15], [0.1, 0.2, 0.4]) == [[5, 10, 15], [0.1, 0.2, 0.4]]


def test_a_short_line_counts_for_its_length():
  # Up to 10: 8 steps of 0.5, and 2 of 1.0 for an evaluation; then ten of 0.8.
  ends, means = equal([8, 10, 20], [0.5, 1.0, 0.8])
  assert ends == [10, 20]
  assert means == pytest.approx([0.6, 0.8])


def test_what_is_no_whole_window_is_left_out():
  assert equal([4, 14, 24], [0.0, 0.5, 0.7]) == [[14, 24], [0.5, 0.7]]


def test_what_is_not_known_counts_for_nothing():
  assert equal([0, 10, 20, 30], [np.nan, 0.5, np.nan, 0.7]) == [[10, 30], [0.5, 0.7]]
  assert equal([0], [np.nan]) == equal([], []) == [[], []]
  assert equal([0], [0.1]) == [[0], [0.1]]


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_mean_over_whole_windows_is_that_of_the_lines(lines):
  lengths, means = map(np.array, zip(*lines, strict=True))
  ends = np.cumsum(lengths).astype(float)
  found_ends, found = windows.equal(ends, means)
  width = lengths.max()
  assert np.allclose(np.diff(found_ends), width)
  assert found_ends[-1] == ends[-1]
  each = np.repeat(means, lengths)[-round(width * len(found)) :]
  assert np.mean(found) == pytest.approx(np.mean(each), abs=1e-9)


def of(*lines):
  named = [{'epoch': epoch, 'train_accuracy': accuracy} for epoch, accuracy in lines]
  found = curves.reduce_lines(named).curves.get('train_accuracy', ((), ()))
  return [list(part) for part in found]


def test_a_report_has_the_training_accuracy_of_each_epoch():
  # The line until 1.25 is of half an epoch: half of it is of the first, half of the second.
  lines = (0.75, 0.4), (1.25, 0.8), (2.0, 0.8), (2.5, 0.9)
  epochs, accuracies = of(*lines)
  assert epochs == [1.0, 2.0]
  assert accuracies == pytest.approx([0.75 * 0.4 + 0.25 * 0.8, 0.8])


def test_lines_of_epochs_and_more_are_as_they_are():
  assert of((2.0, 0.5), (5.0, 0.7), (3e38, 0.9)) == [[2.0, 5.0, 3e38], [0.5, 0.7, 0.9]]


def test_a_run_of_less_than_an_epoch_has_one_point():
  assert of((0.25, 0.5), (0.5, 0.7)) == [[0.5], [pytest.approx(0.6)]]
  assert of((0.0, None)) == [[], []]
