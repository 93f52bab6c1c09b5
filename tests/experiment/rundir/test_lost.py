"""A run whose files were damaged, lost or swapped: it goes on to the same figures, or refuses."""

import ast
import shlex
import shutil

import commands
import jax
import numpy as np
import pytest
import run_folders

import sparsejax
from configs import quickstart
from sparsejax import report
from sparsejax.experiment.config import base
from sparsejax.experiment.machine import files
from sparsejax.experiment.run import run
from sparsejax.experiment.rundir import checkpoint, digests
from sparsejax.experiment.terminal.errors import PausedError, UsageError
from sparsejax.experiment.training import setup


def settings(**changes):
  config = quickstart.get_config()
  config.epochs = 4.0
  config.prune.begin_epochs = 2.0
  config.log.checkpoint_every_epochs = 1.0
  config.update(changes)
  return base.complete(config).to_dict() | {'name': 'quickstart'}


def train(path, watch=None, restart=False, **changes):
  config = settings(**changes)
  defaults = base.defaults(config)
  return run(config, defaults, version=base.VERSION, workdir=path, watch=watch, restart=restart)


def stopped(path, **changes):
  with pytest.raises(PausedError):
    train(path, lambda line: line['epoch'] == 3, **changes)
  return path


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A finished run, the same stopped in its third epoch, and one of another experiment."""
  folder = tmp_path_factory.mktemp('lost')
  train(folder / 'whole')
  stopped(folder / 'mine')
  stopped(folder / 'other', seed=1)
  return folder


@pytest.fixture
def mine(runs, tmp_path):
  return shutil.copytree(runs / 'mine', tmp_path / 'mine')


def assert_as_if_nothing_had_happened(runs, path):
  assert commands.metrics(path) == commands.metrics(runs / 'whole')
  assert commands.summary(path) == commands.summary(runs / 'whole')


@pytest.mark.parametrize('left', [None, 0, 0.5, 0.99])
def test_metrics_that_were_lost_are_put_back(runs, mine, left):
  file = mine / files.METRICS
  text = file.read_text()
  if left is None:
    file.unlink()
  else:
    file.write_text(text[: int(len(text) * left)])
  train(mine)
  assert_as_if_nothing_had_happened(runs, mine)
  assert (mine / f'damaged-{files.METRICS}').exists() == (left is not None)


def test_a_folder_in_the_place_of_the_metrics_is_put_aside(runs, mine):
  (mine / files.METRICS).unlink()
  (mine / files.METRICS).mkdir()
  train(mine)
  assert_as_if_nothing_had_happened(runs, mine)
  assert (mine / f'damaged-{files.METRICS}').is_dir()


def test_a_folder_in_the_place_of_a_file_is_damage(mine):
  (mine / files.SUMMARY).mkdir()
  with pytest.raises(UsageError, match=r'its summary\.json is damaged'):
    train(mine)


def test_without_any_checkpoint_left_it_does_not_begin_again_by_itself(runs, mine):
  before = (mine / files.METRICS).read_text()
  shutil.rmtree(mine / files.CHECKPOINTS)
  with pytest.raises(UsageError, match=r'step 111 was saved here.*--restart'):
    train(mine)
  assert (mine / files.METRICS).read_text() == before
  train(mine, restart=True)
  assert_as_if_nothing_had_happened(runs, mine)
  assert (mine / 'before-restart-1' / files.METRICS).read_text() == before


@pytest.mark.parametrize('text', ['{}', '{"saved_step": null}', '{"saved_step": "x"}'])
def test_a_step_that_is_not_named_is_not_made_up(mine, text):
  shutil.rmtree(mine / files.CHECKPOINTS)
  (mine / files.PROGRESS).write_text(text)
  with pytest.raises(UsageError, match=r'a step that progress\.json does not name was saved here'):
    train(mine)


def test_damage_to_all_checkpoints_ends_it_and_keeps_them(mine):
  folders = sorted((mine / files.CHECKPOINTS).iterdir())
  for folder in folders:
    (folder / 'notes.json').write_text('{}')
  with pytest.raises(UsageError, match='was saved here'):
    train(mine)
  names = sorted(path.name for path in (mine / files.CHECKPOINTS).iterdir())
  assert names == [f'damaged-{folder.name}' for folder in folders]


def test_a_checkpoint_of_another_run_is_not_resumed(runs, mine):
  for folder in (mine / files.CHECKPOINTS).iterdir():
    shutil.rmtree(folder)
    shutil.copytree(runs / 'other' / files.CHECKPOINTS / folder.name, folder)
  with pytest.raises(UsageError, match=r'is of the run .*, seed 1, and this run is .*, seed 0'):
    train(mine)


@pytest.mark.parametrize(
  'text', ['null', '{"hash": "00000000", "seed": 0}', '{}', '[', '[' * 100_000]
)
def test_a_summary_of_another_run_or_damaged_is_not_believed(mine, text):
  (mine / files.SUMMARY).write_text(text)
  with pytest.raises(UsageError, match=r'its summary\.json is') as error:
    train(mine)
  assert '\n' not in str(error.value)


def test_a_figure_that_is_not_the_run_s_is_told_of(mine, tmp_path, caplog):
  train(mine)
  text = (mine / files.SUMMARY).read_text()
  (mine / files.SUMMARY).write_text(text.replace('"test_accuracy": 0.', '"test_accuracy": 0.9'))
  caplog.clear()
  train(mine)
  sparsejax.load(mine)
  assert caplog.text.count(f'summary.json {digests.CHANGED}') == 2
  report.report([mine], tmp_path / 'out')
  (row,) = run_folders.read_csv(tmp_path / 'out').values()
  assert row['problems'] == f'summary.json {digests.CHANGED}; it is not counted'


def test_restarting_a_finished_run_keeps_each_of_the_earlier(runs, tmp_path):
  again = shutil.copytree(runs / 'whole', tmp_path / 'again')
  for number in (1, 2):
    before = (again / files.SUMMARY).read_text()
    train(again, restart=True)
    assert_as_if_nothing_had_happened(runs, again)
    assert (again / f'before-restart-{number}' / files.SUMMARY).read_text() == before


def test_load_refuses_parts_of_two_runs(runs, tmp_path):
  train(tmp_path / 'other', seed=1)
  for name in (files.SUMMARY, files.CHECKPOINTS):
    path = shutil.copytree(runs / 'whole', tmp_path / name)
    if name == files.SUMMARY:
      shutil.copy(tmp_path / 'other' / name, path)
    else:
      shutil.rmtree(path / name)
      shutil.copytree(tmp_path / 'other' / name, path / name)
    with pytest.raises(UsageError, match='seed 1'):
      sparsejax.load(path)


def test_a_finished_run_from_before_checkpoints_named_their_run_is_used(runs, tmp_path, caplog):
  old = shutil.copytree(runs / 'whole', tmp_path / 'old')
  run_folders.forget_owner(checkpoint.best_folder(str(old)))
  found, expected = sparsejax.load(old), sparsejax.load(runs / 'whole')
  jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
  assert 'is too old to name its run; according to summary.json it is of the run' in caplog.text
  changes = dict(chain=base.SGD, epochs=1.0)
  started = train(tmp_path / 'after_old', init_from=str(old), **changes)
  expected = train(tmp_path / 'after', init_from=str(runs / 'whole'), **changes)
  assert started['test_loss'] == expected['test_loss']


def test_an_unfinished_run_from_before_checkpoints_named_their_run_is_not_resumed(mine):
  for folder in (mine / files.CHECKPOINTS).iterdir():
    run_folders.forget_owner(folder)
  with pytest.raises(UsageError, match='does not say which run it is of'):
    train(mine)


def test_the_zeros_of_a_pruned_network_are_told_where_they_train_again(runs, tmp_path, capsys):
  source = runs / 'whole'
  train(tmp_path / 'dense', chain=base.SGD, epochs=1.0, init_from=str(source))
  said = ' '.join(capsys.readouterr().out.split())
  assert f'init_from={source}: the network of quickstart, ' in said
  assert '2,510 of its 50,200 weights are active, and the others will train again' in said


EXCHANGING = {'update_rule': 'rigl', 'schedule': 'periodic', 'inner': base.SGD[1:]}
PRUNING_LATER = {
  'dense': {'chain': base.SGD},
  'one cut': {},
  'gradually': {'prune': {'schedule': 'cubic', 'end_epochs': 0.8, 'begin_epochs': 0.5}},
  'inside': {'chain': ('prune',), 'prune': {'begin_epochs': 0.5, 'inner': base.SGD[1:]}},
}


@pytest.mark.parametrize('case', PRUNING_LATER)
def test_who_follows_the_advice_holds_the_zeros_whatever_the_config_prunes(
  case, runs, tmp_path, capsys
):
  changes = {'epochs': 1.0, 'init_from': str(runs / 'whole')} | PRUNING_LATER[case]
  if 'prune' not in changes and case != 'dense':
    changes['prune'] = {'begin_epochs': 0.5}
  train(tmp_path / 'first', **changes)
  [told] = [line for line in capsys.readouterr().out.splitlines() if 'will train again' in line]
  [advice] = shlex.split(told.partition('; to hold them at zero: ')[2])
  changes['chain'] = ast.literal_eval(advice.removeprefix('--config.chain='))
  held = train(tmp_path / 'held', **changes)
  assert 'will train again' not in capsys.readouterr().out
  assert held['active_weights'] <= 2510


def test_a_rule_that_brings_weights_back_holds_no_zeros(runs, tmp_path, capsys):
  rule = {'begin_epochs': 0.2, 'end_epochs': 0.8, 'every_steps': 9, 'allocation': 'uniform'}
  changes = {'epochs': 1.0, 'chain': ('prune',), 'prune': EXCHANGING | rule}
  train(tmp_path / 'run', init_from=str(runs / 'whole'), **changes)
  assert 'will train again, as prune.update_rule has it' in capsys.readouterr().out
  with pytest.raises(ValueError, match=r"'hold' keeps weights at zero that prune\.update_rule"):
    setup.build(settings(**changes | {'chain': ('prune', 'hold')}))


def test_a_layer_of_which_hardly_a_weight_is_left_is_named(tmp_path, capsys):
  prune = {'begin_epochs': 0.0, 'density': 0.004, 'allocation': 'global_rank'}
  train(tmp_path / 'run', epochs=1.0, prune=prune)
  said = capsys.readouterr().out
  assert said.count('fc2 has one weight left; to keep more of a small layer give prune.floor') == 1
