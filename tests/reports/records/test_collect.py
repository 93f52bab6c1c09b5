"""What is collected from run directories, and what is said about those that are not whole."""

import json
import math

import pytest
from run_folders import edit, every_kind, read_csv, write_run, write_sweep

from sparsejax import report
from sparsejax.experiment.rundir import digests
from sparsejax.reports.records import collect, run_groups
from sparsejax.reports.text import tables


def test_every_run_is_a_row_with_its_state_and_what_is_wrong(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  report.report([folder, folder / 'again'], tmp_path / 'out')
  rows = read_csv(tmp_path / 'out')
  states = {name: row['state'] for name, row in rows.items()}
  assert states == {
    'runs/sparse/seed0': 'finished',
    'seed1': 'finished',
    'seed2': 'finished',
    'sparser #1 50%?/seed0': 'finished',
    'dense/seed0': 'finished',
    'unfinished': 'unfinished',
    'cut': 'finished',
    'broken': 'broken',
    'diverged': 'failed',
    'collapsed': 'collapsed',
    'again/sparse/seed0': 'finished',
  }
  problems = {name: row['problems'] for name, row in rows.items() if row['problems']}
  assert problems.pop('cut') == 'metrics.jsonl, line 2, is cut off or not a line of metrics'
  assert problems.pop('broken').startswith('config.json cannot be read: ')
  assert 'has the same name as again/sparse/seed0' in problems['runs/sparse/seed0']
  assert 'of again/sparse/seed0, and is not counted again' in problems.pop('runs/sparse/seed0')
  assert problems.pop('again/sparse/seed0') == 'it has the same name as runs/sparse/seed0'
  assert problems == {'diverged': 'its loss became infinite or NaN'}
  text = (tmp_path / 'out' / 'report.md').read_text()
  for name in ('unfinished', 'cut', 'broken', 'diverged', 'collapsed', 'again/sparse/seed0'):
    assert f'| {name} |' in text


def test_what_a_summary_lacks_or_has_as_null_is_no_reason_to_stop(tmp_path):
  path = write_run(tmp_path / 'runs' / 'untested')
  figures_of = json.loads((path / 'summary.json').read_text())
  del figures_of['test_accuracy'], figures_of['phases'], figures_of['layers']
  (path / 'summary.json').write_text(json.dumps(figures_of))
  path = write_run(tmp_path / 'runs' / 'empty', density=0.01, metrics='')
  edit(path / 'summary.json', active_weights=0, active_fraction=0.0, compression=None)
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  rows = read_csv(tmp_path / 'out')
  assert {name: row['state'] for name, row in rows.items()} == {
    'untested': 'finished',
    'empty': 'finished',
  }
  assert '| infinite |' in (tmp_path / 'out' / 'report.md').read_text()


@pytest.mark.parametrize(
  ('file', 'changes'),
  [
    ('summary.json', {'validation_accuracy': None}),
    ('summary.json', {'epochs': None}),
    ('summary.json', {'layers': None}),
    ('summary.json', {'layers': {'fc1': {'units': 3}}}),
    ('config.json', {'epochs': None}),
    ('config.json', {'data': None}),
  ],
)
def test_what_can_not_be_is_a_row_that_says_so(tmp_path, file, changes):
  write_run(tmp_path / 'runs' / 'whole', density=0.02)
  path = write_run(tmp_path / 'runs' / 'odd')
  edit(path / file, **changes)
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  rows = read_csv(tmp_path / 'out')
  assert rows['whole']['problems'] == ''
  assert rows['odd']['problems'].startswith(f'{file} has no {next(iter(changes))} ')


def test_a_network_that_guesses_has_collapsed(tmp_path):
  write_run(tmp_path / 'guesses', accuracy=0.1)
  write_run(tmp_path / 'knows', accuracy=0.2, density=0.1)
  states = {run.name: run.state for run in collect.collect([tmp_path])}
  assert states == {'guesses': 'collapsed', 'knows': 'finished'}


def test_a_damaged_copy_is_not_the_one_that_counts(tmp_path):
  write_run(tmp_path / 'a' / 'seed0', metrics='{"epoch": 1.0}\n{"ep')
  write_run(tmp_path / 'b' / 'seed0')
  write_run(tmp_path / 'c' / 'seed0', summary='{"epochs": ')
  write_run(tmp_path / 'd' / 'seed1', seed=1)
  copy, whole, broken, other = collect.collect([tmp_path])
  assert copy.is_repeated
  assert not whole.is_repeated
  assert broken.state == 'broken'
  assert not other.is_repeated
  (found,) = run_groups.group([copy, whole, broken, other])
  ((_, _, rows),) = tables.task_tables([found])
  assert rows[0][1] == '2'  # seeds, of two that there are


def test_an_accuracy_that_is_no_number_is_a_broken_summary(tmp_path):
  edit(write_run(tmp_path / 'a') / 'summary.json', test_accuracy=math.nan)
  (run,) = collect.collect([tmp_path])
  assert run.state == 'broken'
  assert run.problems == ('summary.json has no test_accuracy that is a number',)


def test_a_binary_file_of_metrics_is_one_problem(tmp_path):
  path = write_run(tmp_path / 'a')
  (path / 'metrics.jsonl').write_bytes(bytes(range(256)) * 50)
  (run,) = collect.collect([tmp_path])
  (problem,) = run.problems
  assert problem == (
    'metrics.jsonl, line 1, is cut off or not a line of metrics, and so are 50 more'
  )


def test_trials_of_two_searches_have_the_same_names_by_nature(tmp_path):
  for name in ('one', 'other'):
    write_run(tmp_path / name / 'runs' / 'b0-000', hash=name)
    write_sweep(tmp_path / name, 'none')
  runs = collect.collect([tmp_path / 'one', tmp_path / 'other'])
  assert [run.name for run in runs] == ['one/runs/b0-000', 'other/runs/b0-000']
  assert [run.problems for run in runs] == [(), ()]


def test_runs_above_and_below_each_other_are_counted_once(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  once = collect.collect([folder])
  assert collect.collect([folder, folder / 'sparse', folder / 'sparse' / 'seed0']) == once


@pytest.mark.parametrize(('key', 'other'), [('seed', 7), ('hash', 'deadbeef')])
def test_a_summary_of_another_run_is_not_believed(tmp_path, key, other):
  path = write_run(tmp_path / 'odd')
  edit(path / 'summary.json', **{key: other})
  write_run(tmp_path / 'whole', seed=1)
  runs = collect.collect([tmp_path])
  assert {run.name: run.state for run in runs} == {'odd': 'broken', 'whole': 'finished'}
  odd = next(run for run in runs if run.name == 'odd')
  assert odd.problems[0].startswith(f'summary.json is of a run with {key} {other}, config.json has')
  (found,) = run_groups.group(runs)
  assert [run.name for run in found.counted] == ['whole']


def test_the_machine_of_another_run_is_not_told_as_this_ones(tmp_path):
  write_run(
    tmp_path / 'run', environment=[{'hash': 'deadbeef', 'seed': 0, 'cpus': 64, 'devices': ['gpu']}]
  )
  (run,) = collect.collect([tmp_path])
  assert run.environment == {}
  assert run.problems[0].startswith('environment.json is of a run with hash deadbeef, config.json')
  assert run.is_counted


def test_what_was_changed_after_the_run_is_a_row_and_not_part_of_a_mean(tmp_path):
  changes = {
    'summary': {'test_accuracy': 1.0},
    'config': {'epochs': 3.0},
    'environment': None,
    'none': {},
  }
  for seed, (file, change) in enumerate(changes.items()):
    path = write_run(tmp_path / file, seed=seed)
    digests.write(path, (path / 'summary.json').read_text())
    if change is None:
      (path / f'{file}.json').write_text('[{"cpus": 64}]')
    elif change:
      edit(path / f'{file}.json', **change)
  runs = collect.collect([tmp_path])
  assert {run.name: run.problems for run in runs} == {
    'summary': ('summary.json is not as the run wrote it', 'it is not counted'),
    'config': ('config.json is not as the run wrote it', 'it is not counted'),
    'environment': ('environment.json is not as the run wrote it',),
    'none': (),
  }
  assert [run.is_counted for run in runs] == [run.name in ('environment', 'none') for run in runs]
  assert [len(found.counted) for found in run_groups.group(runs)] == [2]


def test_what_a_run_had_made_before_a_restart_is_not_a_run(tmp_path):
  path = write_run(tmp_path / 'run')
  before = write_run(path / 'before-restart-1', seed=1)
  assert [run.path for run in collect.collect([tmp_path])] == [path.resolve()]
  assert [run.path for run in collect.collect([before])] == [before.resolve()]


@pytest.mark.parametrize('summary', [{}, {'summary': None}])
def test_a_run_that_has_begun_misses_its_environment(tmp_path, summary):
  write_run(tmp_path / 'run', environment=None, **summary)
  (run,) = collect.collect([tmp_path])
  assert run.problems == ('environment.json is missing',)
