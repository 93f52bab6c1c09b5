"""A posterior deployed under other thresholds is the run that had them from the start."""

import json
import shutil

import commands
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import run_folders
from ml_collections import ConfigDict

from sparsejax import deploy, report
from sparsejax.experiment.config import base
from sparsejax.experiment.machine import files
from sparsejax.experiment.outcome import threshold_options
from sparsejax.experiment.run import run
from sparsejax.experiment.rundir import checkpoint, metrics
from sparsejax.experiment.terminal.errors import UnreadableError

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')

CHAIN = ('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')
GNJ = 'group_normal_jeffreys'
OF_DEPLOYMENT = ('deployed_from', *metrics.TIMINGS)


def config_of(layers=GNJ, chain=CHAIN, **block):
  """Some epochs of a small network on digits; a block of settings for the family of layers."""
  config = base.get_config(chain, layers=layers)
  rate = dict(schedule='linear', initial=0.003, final=0.003, begin_epochs=0.0)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': rate})
  config.epochs = 4.0
  config.batch_size = 32
  config.model.width = 16
  config.log.checkpoint_every_epochs = 4.0
  config = config.to_dict() | {'name': 'small'}
  return config | ({layers: config[layers] | block} if block else {})


def train(path, config):
  run(config, base.defaults(config), version=base.VERSION, workdir=path)
  return path


def deployed(*arguments):
  """The command in this process; returns its exit status."""
  return deploy.main(['deploy', *map(str, arguments)])


def refused(capsys, *arguments):
  """The one line with which the command ends."""
  capsys.readouterr()
  assert deployed(*arguments) == 2
  output = capsys.readouterr()
  assert output.out == ''
  assert output.err.count('\n') == 1, output.err
  return output.err


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A finished run that keeps every group."""
  return train(tmp_path_factory.mktemp('deploy') / 'trained', config_of())


@pytest.fixture
def copied(trained, tmp_path):
  """A copy of it, for what a test does to its files."""
  return shutil.copytree(trained, tmp_path / 'copied')


def middle(workdir, layer):
  """A threshold that takes some of a layer's groups and leaves others."""
  bins = json.loads((workdir / files.SUMMARY).read_text())['log_alpha'][layer]
  share = np.cumsum(bins['counts']) / sum(bins['counts'])
  edges = np.linspace(bins['from'], bins['to'], len(share) + 1)
  return round(float(edges[1 + np.searchsorted(share, 0.5)]), 3)


def network_of(workdir):
  with ocp.StandardCheckpointer() as checkpointer:
    folder = workdir / files.CHECKPOINTS / checkpoint.BEST / checkpoint.ARRAYS
    return checkpointer.restore(folder.absolute())


def without(figures, names=OF_DEPLOYMENT):
  return {name: value for name, value in figures.items() if name not in names}


def test_it_is_the_run_that_had_the_thresholds_from_the_start(trained, tmp_path, capsys):
  both = {layer: middle(trained, layer) for layer in ('fc1', 'fc2')}
  arguments = [f'--run={trained}', '--threshold=-2', f'--workdir={tmp_path / "new"}']
  arguments += [f'--thresholds=fc1={both["fc1"]},fc2={both["fc2"]}']
  assert deployed(*arguments) == 0
  capsys.readouterr()
  new = tmp_path / 'new'
  same = train(tmp_path / 'same', config_of(threshold=-2.0, thresholds=both))
  summary, expected = commands.summary(new), commands.summary(same)
  assert 0 < summary['active_weights'] < commands.summary(trained)['active_weights']
  assert without(summary) == expected
  assert summary['deployed_from'] == commands.summary(trained)['hash'] != summary['hash']
  assert json.loads((new / files.CONFIG).read_text()) == json.loads(
    (same / files.CONFIG).read_text()
  )
  jax.tree.map(np.testing.assert_array_equal, network_of(new), network_of(same))
  lines, in_training = commands.metrics(new), commands.metrics(same)
  assert lines[-1] == in_training[-1]
  assert lines[:-1] == [without(line, metrics.NETWORK_FIELDS) for line in in_training[:-1]]
  kept = {path.name for path in new.iterdir()} - {'.lock'}
  assert kept == {path.name for path in same.iterdir()} - {'.lock', files.PROGRESS}
  assert len(json.loads((new / files.ENVIRONMENT).read_text())) == 2  # trained, then deployed

  assert deployed(*arguments) == 0
  stdout = capsys.readouterr().out
  assert 'finished; nothing is deployed' in stdout
  assert f'deployed from the posterior of {summary["deployed_from"]}, without training' in stdout
  assert len(json.loads((new / files.ENVIRONMENT).read_text())) == 2

  out = tmp_path / 'report'
  assert report.main(['report', str(trained), str(new), f'--out={out}']) == 0
  assert capsys.readouterr().out.startswith('2 runs, 2 experiments, 0 with something wrong')
  row = run_folders.read_csv(out)['new']
  assert row['state'] == 'finished'
  assert float(row['summary.active_weights']) == summary['active_weights']

  again = tmp_path / 'again'
  assert deployed(f'--run={new}', f'--workdir={again}', '--threshold=-1') == 0
  assert commands.summary(again)['deployed_from'] == commands.summary(trained)['hash']
  after = config_of() | {'init_from': str(new), 'epochs': 1.0}
  after['scale_by_learning_rate'] = {'learning_rate': 0.0}
  last = commands.metrics(train(tmp_path / 'after', after))[-1]
  assert last['kl'] == pytest.approx(lines[-1]['kl'], rel=1e-5)


def test_without_a_directory_validation_is_told_and_nothing_is_written(trained, tmp_path, capsys):
  threshold, new = f'--thresholds=fc1={middle(trained, "fc1")}', tmp_path / 'new'
  assert deployed(f'--run={trained}', threshold, f'--workdir={new}') == 0
  before = sorted(path.stat().st_mtime_ns for path in trained.rglob('*'))
  capsys.readouterr()
  assert deployed(f'--run={trained}', threshold) == 0
  told, summary = json.loads(capsys.readouterr().out), commands.summary(new)
  names = ('validation_loss', 'validation_accuracy', 'compression', 'architecture')
  assert {name: told[name] for name in names} == {name: summary[name] for name in names}
  assert not [name for name in told if 'test' in name]
  assert sorted(path.stat().st_mtime_ns for path in trained.rglob('*')) == before


def test_suggestions_are_those_of_the_summary(copied, tmp_path):
  bins = json.loads((copied / files.SUMMARY).read_text())['log_alpha']
  suggested = {'fc1': middle(copied, 'fc1'), 'fc2': None, 'fc3': None}
  for layer, value in suggested.items():
    bins[layer]['suggested_threshold'] = value
  run_folders.edit(copied / files.SUMMARY, log_alpha=bins)
  new = tmp_path / 'new'
  assert deployed(f'--run={copied}', f'--workdir={new}', '--thresholds=suggested') == 0
  block = json.loads((new / files.CONFIG).read_text())[GNJ]
  assert block['thresholds'] == {'fc1': suggested['fc1']}
  bins = commands.summary(new)['log_alpha']
  assert [bins[layer]['threshold'] for layer in bins] == [suggested['fc1'], -3.0, -3.0]


REFUSED = {
  'nothing asked': ((), 'thresholds is missing: give --threshold, --thresholds or both'),
  'no number': (('--threshold=x',), f"{GNJ}.threshold='x' must be a finite number"),
  'not finite': (
    ('--thresholds=fc1=nan',),
    "{'fc1': nan} must be a table by name, each a finite",
  ),
  'unknown layer': (('--thresholds=fc9=1.0',), f"{GNJ}.thresholds 'fc9': did you mean 'fc"),
  'no list': (('--thresholds=1.0',), "thresholds=1.0: '1.0' is not the threshold of a layer; give"),
  'twice': (('--thresholds=fc1=1,fc1=2',), "'fc1' is given twice; give LAYER=NUMBER"),
  'a dead layer': (('--thresholds=fc2=-90',), f"{GNJ}: threshold of 'fc2', -90.0: its log alpha"),
  'stray': (('--thresholds=fc1=1', 'x'), 'unrecognized arguments: x'),
  'empty': (('--workdir=', '--threshold=-2'), '--workdir= must name a folder'),
}


@pytest.mark.parametrize(('arguments', 'expected'), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_asked_is_one_line(arguments, expected, trained, tmp_path, capsys):
  new = tmp_path / 'new'
  line = refused(capsys, f'--run={trained}', f'--workdir={new}', *arguments)
  assert expected in line
  assert not new.exists()


def _unfinished(folder):
  (folder / files.SUMMARY).unlink()


def _deterministic(folder):
  run_folders.edit(folder / files.CONFIG, layers='deterministic')


def _without_posterior(folder):
  shutil.rmtree(folder / files.CHECKPOINTS / checkpoint.POSTERIOR)


def _damaged(folder):
  (folder / files.CHECKPOINTS / checkpoint.POSTERIOR / checkpoint.NOTES).write_text('{}')


def _of_other_data(folder):
  config = json.loads((folder / files.CONFIG).read_text())
  run_folders.edit(folder / files.CONFIG, data=config['data'] | {'split_seed': 1})


def _without_metrics(folder):
  (folder / files.METRICS).write_text('')


def _without(folder, block, *names):
  config = json.loads((folder / files.CONFIG).read_text())
  left = {name: value for name, value in config[block].items() if name not in names}
  run_folders.edit(folder / files.CONFIG, **{block: left})


def _of_other_defaults(folder):
  _without(folder, 'model', 'width')


def _of_unknown_settings(folder):
  run_folders.edit(folder / files.CONFIG, batchsize=32)


def _without_seconds(folder):
  summary = json.loads((folder / files.SUMMARY).read_text())
  del summary['seconds']
  (folder / files.SUMMARY).write_text(json.dumps(summary))


def _of_odd_starts(folder):
  (folder / files.ENVIRONMENT).write_text('[1]')


def _pruned(folder):
  block = base.LINK_DEFAULTS['prune']
  run_folders.edit(folder / files.CONFIG, chain=[*CHAIN, 'prune'], prune=block)


def _broken(folder):
  (folder / files.CONFIG).write_text('{')


SOURCES = {
  _unfinished: 'summary.json: No such file or directory; give the directory of a finished',
  _deterministic: 'its layers are deterministic; they must be one of sparse_vd, group_normal',
  _without_posterior: 'it has no checkpoints/posterior; give the directory of a finished run',
  _damaged: 'is damaged (notes.json is not as it was written); give the directory',
  _of_other_data: 'but its settings, data and start now make',
  _without_metrics: 'its metrics.jsonl does not end at step',
  _of_other_defaults: "it is of another version, whose config.json has no 'model.width': its hash",
  _of_unknown_settings: "its config.json: unknown field 'batchsize': did you mean 'batch_size'?",
  _without_seconds: "its summary.json has no 'seconds'; give the",
  _of_odd_starts: 'its environment.json lists no starts; give the',
  _pruned: "scale_by_learning_rate, prune: give a run without 'prune'",
  _broken: 'its config.json is damaged',
}


@pytest.mark.parametrize(
  ('spoil', 'expected'), SOURCES.items(), ids=[spoil.__name__ for spoil in SOURCES]
)
def test_a_run_that_can_not_be_deployed_is_refused(spoil, expected, copied, tmp_path, capsys):
  spoil(copied)
  new = tmp_path / 'new'
  assert expected in refused(capsys, f'--run={copied}', f'--workdir={new}', '--threshold=-2')
  assert not new.exists()


def test_a_run_from_before_some_settings_is_deployed(trained, copied, tmp_path):
  _without(copied, 'evaluation', 'batch_norm_batches', 'choose_by')
  _without(copied, 'model', 'widths')
  for source, new in ((trained, 'new'), (copied, 'of older')):
    assert deployed(f'--run={source}', f'--workdir={tmp_path / new}', '--threshold=-2') == 0
  assert commands.summary(tmp_path / 'new') == commands.summary(tmp_path / 'of older')


def test_a_posterior_from_before_checkpoints_named_their_run_is_deployed(copied, capsys, caplog):
  run_folders.forget_owner(copied / files.CHECKPOINTS / checkpoint.POSTERIOR)
  assert deployed(f'--run={copied}', '--threshold=-2') == 0
  assert 'is too old to name its run' in caplog.text


def test_an_error_of_the_disk_is_one_line(trained, monkeypatch, capsys):
  def unreadable(*_, **__):
    raise UnreadableError('arrays could not be read: Input/output error')

  monkeypatch.setattr(checkpoint, 'read', unreadable)
  assert deployed(f'--run={trained}', '--threshold=-3') == 1
  assert capsys.readouterr().err == 'deploy: arrays could not be read: Input/output error\n'


def test_a_directory_of_another_run_stays_as_it_is(trained, copied, tmp_path, capsys):
  arguments = (f'--run={trained}', f'--workdir={copied}')
  before = (copied / files.SUMMARY).read_text()
  assert 'it holds a run with hash' in refused(capsys, *arguments, '--threshold=-2')
  assert (copied / files.SUMMARY).read_text() == before
  (copied / files.SUMMARY).unlink()  # of the same experiment, and not at its end
  line = refused(capsys, *arguments, '--threshold=-3')
  assert 'it holds an unfinished run, at step' in line
  assert not (copied / files.SUMMARY).exists()


def test_a_threshold_that_was_part_of_training_stays():
  config = config_of('sparse_vd')
  for change in ({'threshold': '2.0'}, {'thresholds': 'fc1=3.0'}):
    with pytest.raises(ValueError, match=r'the threshold was part of the training; .* own, 3\.0'):
      threshold_options.change(config, {}, **change)
  assert threshold_options.change(config, {}, threshold='3') == config
  free = config_of('sparse_vd', training_mask=False)
  assert threshold_options.change(free, {}, threshold='2')['sparse_vd']['threshold'] == 2.0


def test_nothing_suggested_is_said():
  bins = {'fc1': {'suggested_threshold': None}}
  for summary in ({}, {'log_alpha': bins}):
    with pytest.raises(ValueError, match='the summary of the run suggests none; give LAYER'):
      threshold_options.change(config_of(), summary, thresholds='suggested')
