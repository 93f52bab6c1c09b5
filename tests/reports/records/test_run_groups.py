"""Runs that differ only in their seed: which are counted, their kind, and their row."""

import json
import math

import pytest
from run_folders import edit, every_kind, write_run

from sparsejax.reports.figures import pareto
from sparsejax.reports.records import collect, run_groups
from sparsejax.reports.text import tables


def test_means_and_deviations_are_over_the_seeds_of_an_experiment(tmp_path):
  for seed, accuracy in enumerate((0.97, 0.98, 0.99)):
    write_run(tmp_path / f'seed{seed}', seed=seed, accuracy=accuracy)
  (found,) = run_groups.group(collect.collect([tmp_path]))
  assert found.moments('test_accuracy') == (pytest.approx(0.98), pytest.approx(0.01))
  ((kind, head, rows),) = tables.task_tables([found])
  assert kind == 'unstructured'
  row = dict(zip(head, rows[0], strict=True))
  assert row['experiment'] == 'pruning'
  assert row['n'] == '3'
  assert row['active parameters'] == '5.00 %'
  assert (row['compression'], row['speed-up']) == ('20x', '10x')
  assert row['validation accuracy, %'] == '98.00'
  assert row['test accuracy, %'] == '98.00 ± 1.00'


def test_what_is_counted_are_finished_runs_each_seed_once(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  found = {group.label: group for group in run_groups.group(collect.collect([folder]))}
  # The copy is the first by path; the original seed 0 is left out.
  assert len(found['pruning: prune.density 0.05'].counted) == 3
  assert len(found['pruning: prune.density 0.05'].runs) == 4
  assert found['pruning: prune.density 0.02'].counted == ()
  assert math.isnan(found['pruning: prune.density 0.02'].moments('test_accuracy')[0])
  assert math.isnan(found['pruning: prune.density 0.01'].moments('test_accuracy')[1])
  (collapsed,) = found['pruning: prune.density 0.001'].counted
  assert collapsed.state == 'collapsed'
  assert found['dense'].kind == 'dense'


@pytest.mark.parametrize(
  ('changes', 'kind'),
  [
    ({}, 'unstructured'),
    ({'prune': {'granularity': 'filters'}}, 'structured'),
    ({'prune': {'granularity': 'n_m'}}, 'semi-structured'),
    ({'chain': ['straight_through'], 'straight_through': {}}, 'unstructured'),
    ({'chain': ['straight_through'], 'straight_through': {'density': 1.0}}, 'dense'),
    ({'layers': 'mine', 'mine': {'dense_groups': 'inputs'}}, 'structured'),
    ({'layers': 'sparse_vd'}, 'unstructured'),
    ({'proximal_group_l1': {'strength': 1.0}}, 'structured'),
  ],
)
def test_structured_and_unstructured_are_told_apart(tmp_path, changes, kind):
  path = write_run(tmp_path / 'run')
  edit(path / 'config.json', **changes)
  assert [group.kind for group in run_groups.group(collect.collect([tmp_path]))] == [kind]


def test_what_could_remove_weights_and_did_not_is_no_dense_control(tmp_path):
  path = write_run(tmp_path / 'posterior' / 'seed0', density=1.0, method='Bayesian')
  config = json.loads((path / 'config.json').read_text())
  chain = ['add_kl_gradients', 'scale_by_adam']
  config |= {'chain': chain, 'layers': 'mine', 'mine': {'dense_groups': 'inputs'}, 'prune': {}}
  edit(path / 'config.json', **config)
  write_run(tmp_path / 'dense' / 'seed0', density=1.0, method='dense')
  kinds = {g.method: g.kind for g in run_groups.group(collect.collect([tmp_path]))}
  assert kinds == {'Bayesian': 'structured', 'dense': 'dense'}


def test_experiments_of_one_label_are_told_apart_by_their_hash(tmp_path):
  write_run(tmp_path / 'a', hash='1111')
  write_run(tmp_path / 'b', hash='2222')
  labels = [group.label for group in run_groups.group(collect.collect([tmp_path]))]
  assert labels == ['pruning (1111)', 'pruning (2222)']


def test_one_hash_under_another_method_is_another_experiment(tmp_path):
  for method in ('right', 'wrong'):
    write_run(tmp_path / method / 'seed0', method=method, hash='same')
  runs = collect.collect([tmp_path])
  assert [run.is_repeated for run in runs] == [False, False]
  assert [len(group.counted) for group in run_groups.group(runs)] == [1, 1]


def test_the_dense_network_is_chosen_on_validation_images(tmp_path):
  for name, validation, test in (('a', 0.99, 0.97), ('b', 0.98, 0.98)):
    path = write_run(tmp_path / name, density=1.0, hash=name, method='dense')
    edit(path / 'summary.json', validation_accuracy=validation, test_accuracy=test)
  (found, label) = pareto.best_dense(run_groups.group(collect.collect([tmp_path])))
  assert found.moments('test_accuracy')[0] == 0.97
  assert label == 'best of 2 dense (n = 1)'


def phase(step, accuracy, active):
  return {'step': step, 'validation_accuracy': accuracy, 'active_weights': active}


@pytest.mark.parametrize(
  ('phases', 'cut'),
  [
    ({'dense': phase(9, 0.99, 1000), 'pruned': phase(9, 0.5, 50)}, '99.00 to 50.00'),
    ({'dense': phase(0, 0.1, 1000), 'pruned': phase(30, 0.97, 50)}, 'none: sparse from the start'),
    ({'dense': phase(9, 0.99, 50), 'pruned': phase(9, 0.99, 50)}, 'none: zero before'),
    ({'dense': phase(9, 0.9, 1000), 'pruned': phase(20, 0.98, 1000)}, '-'),
    ({}, '-'),
    ({'deployed': phase(40, 0.98, 50)}, 'none: a posterior'),
  ],
)
def test_what_was_never_cut_has_no_accuracy_at_a_cut(tmp_path, phases, cut):
  final = {} if 'deployed' in phases else {'retrained': phase(40, 0.98, 50)}
  edit(write_run(tmp_path / 'a') / 'summary.json', phases=phases | final)
  ((_, head, rows),) = tables.task_tables(run_groups.group(collect.collect([tmp_path])))
  row = dict(zip(head, rows[0], strict=True))
  assert row['cut: validation accuracy before to after, %'] == cut
  assert row['validation accuracy, %'] == '98.00'
