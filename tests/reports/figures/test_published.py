"""The published figures that ours are drawn beside."""

import pytest
from run_folders import write_run

from sparsejax.reports.figures import published
from sparsejax.reports.records import collect


def test_a_figure_says_what_published_points_count():
  log = published.note(published.points('resnet50 on cifar10'))
  paper = published.note(published.points('lenet5 on mnist'))
  assert paper == 'published: fractions of the weights, without biases and norms'
  assert log == f"{paper}; the log's accuracies are on validation images"


def test_published_points_are_fractions_of_tasks_that_runs_can_have(tmp_path):
  assert published.points('vgg16 of width 8 on cifar10') == {}
  write_run(tmp_path / 'run')
  task = collect.collect([tmp_path])[0].task
  found = published.points(task)
  (point,) = found['Deep Compression 2015']
  assert point.active_fraction == pytest.approx(1 / 12)
  assert point.accuracy == pytest.approx(1 - 0.0158)
  for point in published.POINTS:
    assert 0 < point.active_fraction < 1
    assert 0.1 <= point.accuracy < 1
