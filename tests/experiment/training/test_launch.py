"""The launch command: what it leaves behind, and one clear line for whatever can't be."""

import json
import signal
import time
from types import SimpleNamespace

import commands
import jax.numpy as jnp
import pytest

from sparsejax import launch
from sparsejax.experiment.rundir import checkpoint

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

QUICK = '--config=configs/quickstart.py'
SHORT = (QUICK, '--config.epochs=22.0')

REFUSED = {
  'nothing': ([], '--config is missing'),
  'missing file': (
    ['--config=configs/vgg61_dense.py'],
    "no such file, so it is configs/dense.py:vgg61: network 'vgg61' must be resnet50, vgg16, ",
  ),
  'missing file of no method': (
    ['--config=configs/resnet50_dcc.py'],
    "no such file; did you mean 'resnet50_dc'?",
  ),
  'network': (['--config=configs/rigl.py:resnet51'], "did you mean 'resnet5"),
  'network left out': (
    ['--config=configs/rigl.py'],
    'must be NETWORK[,DENSITY], where network is resnet50, vgg16, mobilenet, resnet20 or resnet56',
  ),
  'arguments too many': (
    ['--config=configs/lenet300_dc.py:0.1,0.2'],
    'the argument must be [DENSITY]',
  ),
  'config of 300 letters': ([f'--config={"x" * 300}'], 'there is no such file'),
  'stray argument': ([QUICK, 'stray'], 'unrecognized arguments: stray'),
  'unknown flag': ([QUICK, '--wrkdir=x'], 'wrkdir'),
  'unknown field': ([QUICK, '--config.modle.width=8'], "did you mean 'model.width'"),
  'entry of a table': (
    ['--config=configs/lenet5_bc_gnj.py', '--config.group_normal_jeffreys.thresholds.conv1=one'],
    "group_normal_jeffreys.thresholds.conv1='one' must be a finite number",
  ),
  'endless': ([QUICK, '--config.epochs=1e30'], 'epochs must be at most 2,147,483,646 steps'),
  'beyond float32': (
    [QUICK, '--config.epochs=1e308'],
    '=1e+308 must be a number above 0, no',
  ),
  'shortened beyond': ([QUICK, '--shorten=1e308'], '--shorten=1e+308: epochs=inf must be'),
  'shortened to nothing': ([QUICK, '--shorten=nan'], '--shorten=nan must be a number above 0'),
  'width beyond memory': (
    [QUICK, '--config.model.name=resnet50', '--config.model.width=60000'],
    'GiB for training, whatever the batch; this machine has',
  ),
  'width beyond all': ([QUICK, '--config.model.width=99999999999'], 'width=99999999999 must be an'),
  'negative padding': ([QUICK, '--config.data.crop_padding=-1'], 'crop_padding=-1 must be'),
  'no block': ([QUICK, '--config.prune=1'], 'prune'),
  'no patterns': ([QUICK, '--config.prune.exclude=None'], 'exclude=None must be a tuple'),
  'no chain': ([QUICK, '--config.chain=None'], 'chain=None must be a tuple of names'),
  'rate of text': (
    [QUICK, '--config.scale_by_learning_rate.learning_rate=nope'],
    "learning_rate='nope' must be a number of 0 or more",
  ),
  'endless rate': (
    [QUICK, '--config.scale_by_learning_rate.learning_rate=inf'],
    "learning_rate='inf' must be a number",
  ),
  'factor': (
    [QUICK, '--config.scale_by_learning_rate.learning_rate.factor=nan'],
    "learning_rate.factor='nan' must be a number",
  ),
  'decay': ([QUICK, '--config.trace.decay=2'], 'trace.decay=2 must be a number of 0 or more and'),
  'weight decay': (
    [QUICK, '--config.add_decayed_weights.weight_decay=-1'],
    'weight_decay=-1 must be a number of 0 or more',
  ),
  'name of a folder above': (
    [QUICK, '--config.name=..'],
    "name='..' must be a name of",
  ),
  'data folder that is not there': (
    [QUICK, '--config.data.name=mnist', '--config.data.dir=no/such/folder'],
    "data.dir='no/such/folder' must be an existing folder",
  ),
  'port': (
    [QUICK, '--coordinator=localhost:70000', '--processes=2', '--process=0'],
    '--coordinator=localhost:70000: the port must be from 1 to 65535',
  ),
  'crop': ([QUICK, '--config.data.crop_padding=9'], 'data.crop_padding=9 must be an integer'),
  'empty argument': (['--config=configs/quickstart.py:'], 'must have an argument after its colon'),
  'two units': (
    [QUICK, '--config.prune.begin_epochs=5', '--config.prune.begin_steps=7'],
    'prune.begin_epochs and prune.begin_steps are one duration',
  ),
  'second config': ([QUICK, QUICK], '--config is given twice'),
  'no value': (['--config.epochs', QUICK], '--config.epochs needs a value'),
  'never read': ([QUICK, '--config.prune.m=8'], 'prune.m=8 is never read: it is read only with'),
  'block out of use': (
    [QUICK, '--config.lobs.density=0.1'],
    "'lobs' is not in chain, events or layers",
  ),
  'not a number': ([QUICK, '--config.epochs=many'], "'many'"),
  'config argument': (['--config=configs/resnet50_dc.py:much'], "'much'"),
  'model': ([QUICK, '--config.model.name=lenet30'], "did you mean 'lenet300'"),
  'layers': ([QUICK, '--config.layers=deterministc'], "did you mean 'deterministic'"),
  'data set': ([QUICK, '--config.data.name=digit'], "did you mean 'digits'"),
  'link': ([QUICK, "--config.chain=('sdg',)"], "did you mean 'sgd'"),
  'order': (
    [QUICK, "--config.chain=('prune','trace','scale_by_learning_rate')"],
    "'trace' must not stand after 'prune'",
  ),
  'pruning schedule': ([QUICK, '--config.prune.schedule=qubic'], "did you mean 'cubic'"),
  'rate schedule': (
    [QUICK, '--config.scale_by_learning_rate.learning_rate.schedule=step_dcay'],
    "did you mean 'step_decay'",
  ),
  'event': ([QUICK, "--config.events=('recalibrate',)"], 'unknown event (events)'),
  'period beyond the count': (
    [QUICK, '--config.log.every_steps=18446744073709551616'],
    'log.every_steps=18446744073709551616: 1.84467e+19 steps must be at most',
  ),
  'density 0': ([QUICK, '--config.prune.density=0.0'], 'prune.density=0.0 must be in (0, 1]'),
  'density above 1': ([QUICK, '--config.prune.density=1.5'], 'prune.density=1.5'),
  'pruning after the end': ([QUICK, '--config.prune.begin_epochs=60.0'], 'prune.begin'),
  'pattern': ([QUICK, "--config.prune.exclude=('fc9',)"], "exclude='fc9' matches no parameter"),
  'batch': ([QUICK, '--config.batch_size=0'], 'batch_size=0'),
  'batches': (
    [QUICK, '--config.evaluation.batch_norm_batches=0'],
    'evaluation.batch_norm_batches=0 must be an integer of 1 or more',
  ),
  'batch above the limit': (
    [QUICK, '--config.data.limit=1'],
    'batch_size=32 must be at most the 1 training examples of data.limit',
  ),
  'batch too large': ([QUICK, '--config.batch_size=2000'], 'batch_size=2000'),
  'epochs': ([QUICK, '--config.epochs=0.0'], 'epochs=0.0'),
  'width': ([QUICK, '--config.model.width=0'], 'width'),
  'dropout': ([QUICK, '--config.model.dropout=1.0'], 'dropout'),
  'dtype': ([QUICK, '--config.model.dtype=float8'], 'float8'),
  'image size': ([QUICK, '--config.model.name=vgg16'], 'VGG16'),
  'limit': ([QUICK, '--config.data.limit=-1'], 'limit'),
  'seed': ([QUICK, '--config.seed=-1'], 'seed=-1 must be an integer of 0 or more'),
  'checkpoints': ([QUICK, '--config.log.keep_checkpoints=0'], 'keep_checkpoints=0'),
  'block without a link': (
    [QUICK, "--config.chain=('sgd',)", '--config.prune.density=0.1'],
    "'prune' is not in chain, events or layers",
  ),
  'argument of a config that takes none': (['--config=configs/resnet50_sgdr.py:1'], 'no argument'),
  'no config': (['--config=launch.py'], 'is not a config'),
  'setting of a new link': (
    [QUICK, "--config.chain=('adam','prune')", '--config.adam.learning_rat=1e-3'],
    "did you mean 'adam.learning_rate'",
  ),
  'smoothing': ([QUICK, '--config.loss.label_smoothing=1.0'], 'loss.label_smoothing=1.0'),
  'smoothed likelihood': (
    [
      '--config=configs/lenet300_sparse_vd.py',
      '--config.loss.label_smoothing=0.1',
      '--config.data.name=digits',
    ],
    "loss.label_smoothing=0.1 must be 0 with layers='sparse_vd'",
  ),
  'cutout': ([QUICK, '--config.data.cutout=9'], 'data.cutout=9 must be an integer from 0 to 8'),
  'choice': ([QUICK, '--config.evaluation.choose_by=los'], "did you mean 'loss'"),
  'method of the short recipe': (
    ['--config=configs/cifar10_short.py:resnet20,exakt,0.1'],
    "unknown method 'exakt': did you mean 'exact'?",
  ),
  'point of the short recipe': (
    ['--config=configs/cifar10_short.py:resnet20,exact'],
    'the method exact needs a number as POINT',
  ),
  'source': ([QUICK, '--config.init_from=nowhere'], 'init_from=nowhere'),
}


def run_here(arguments):
  """The command in this process, from its flags on; returns its exit status."""
  return launch.main(['launch.py', *arguments])


@pytest.mark.usefixtures('_from_the_root')
@pytest.mark.parametrize(('arguments', 'expected'), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_line_and_status_2_and_writes_nothing(
  arguments, expected, tmp_path, capsys
):
  workdir = tmp_path / 'run'
  assert run_here([*arguments, f'--workdir={workdir}']) == 2
  output = capsys.readouterr()
  assert output.out == ''
  assert output.err.count('\n') == 1, output.err
  assert expected in output.err
  assert not workdir.exists()


WORKDIRS = {
  '': '--workdir= must name a folder',
  'gs://bucket/run': "--workdir='gs://bucket/run' must be a folder of this machine",
  'x' * 300: 'must be a folder: File name too long',
  'two\nlines': 'must be a folder of this machine',
  'null\0': 'must be a folder of this machine',
}


@pytest.mark.usefixtures('_from_the_root')
@pytest.mark.parametrize(('workdir', 'expected'), WORKDIRS.items(), ids=range(len(WORKDIRS)))
def test_what_can_be_no_run_directory_is_refused(workdir, expected, capsys):
  assert run_here([QUICK, f'--workdir={workdir}']) == 2
  error = capsys.readouterr().err
  assert expected in error
  assert error.count('\n') == 1


@pytest.mark.usefixtures('_from_the_root')
def test_a_network_of_another_shape_is_refused_before_anything_is_written(tmp_path, capsys):
  source = checkpoint.best_folder(str(tmp_path / 'source'))
  owner = checkpoint.Owner('0123abcd', 0)
  checkpoint.write(source, owner, {'params': {'fc1': {'kernel': jnp.ones((2, 2))}}}, {'step': 1})
  (tmp_path / 'source' / 'summary.json').write_text(json.dumps(owner._asdict()))
  workdir = tmp_path / 'run'
  arguments = [QUICK, f'--config.init_from={tmp_path / "source"}', f'--workdir={workdir}']
  assert run_here(arguments) == 2
  assert 'its network has another shape: ' in capsys.readouterr().err
  assert not workdir.exists()


@pytest.mark.usefixtures('_from_the_root')
def test_links_named_on_the_command_line_take_their_settings_from_it():
  argv = [QUICK, "--config.chain=('scale_by_adam','scale_by_learning_rate')"]
  argv += ['--config.scale_by_adam.b1=0.5', '--config.scale_by_learning_rate.learning_rate=0.01']
  settings, _ = launch.read(argv)
  assert settings['scale_by_adam'] == {'b1': 0.5, 'b2': 0.999, 'eps': 1e-8}
  assert settings['scale_by_learning_rate'] == {'learning_rate': 0.01}
  assert 'prune' not in settings


@pytest.mark.usefixtures('_from_the_root')
def test_help_of_a_config_is_the_table_of_its_settings(capsys):
  told = []
  for flag in ('--print_config', '--config.help'):
    assert run_here([QUICK, flag, '--config.prune.density=0.125']) == 0
    told.append(capsys.readouterr())
  assert told[0] == told[1]
  assert 'prune.density' in told[0].out
  assert '0.125' in told[0].out


def test_help_tells_every_field(capsys):
  assert run_here(['--help']) == 0
  output = capsys.readouterr().out
  assert '--config.batch_size=128' in output
  assert 'It must be an integer of 1 or more.' in output
  assert "Read with the prune.schedule 'iterative'." in output


def test_ctrl_c_saves_first(tmp_path):
  workdir = tmp_path / 'run'
  with commands.start(QUICK, '--config.epochs=5000.0', f'--workdir={workdir}') as process:
    while not (workdir / 'metrics.jsonl').exists() or commands.metrics(workdir) == []:
      assert process.poll() is None, process.communicate()
      time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
  assert process.returncode == 130
  assert stderr.startswith('launch.py: SIGINT: saved at step')
  assert stderr.count('\n') == 1
  assert any((workdir / 'checkpoints').iterdir())


def test_a_bad_field_ends_the_command_itself_with_status_2(tmp_path):
  arguments = (QUICK, '--config.modle.width=8', f'--workdir={tmp_path / "run"}')
  status, stdout, stderr = commands.launch_apart(*arguments)
  assert (status, stdout) == (2, '')
  assert stderr.count('\n') == 1, stderr
  assert 'model.width' in stderr


def test_a_batch_that_four_devices_cannot_share(tmp_path):
  arguments = (QUICK, '--config.batch_size=30', f'--workdir={tmp_path / "run"}')
  status, _, stderr = commands.launch(*arguments, devices=4)
  assert status == 2
  assert 'batch_size=30 must be a multiple of the number of devices, 4' in stderr


def test_a_run_leaves_what_the_contract_says(tmp_path):
  workdir = tmp_path / 'run'
  status, stdout, stderr = commands.launch(*SHORT, f'--workdir={workdir}')
  assert status == 0, stderr
  summary = json.loads((workdir / 'summary.json').read_text())
  expected = (
    'name hash seed dataset model method epochs steps seconds examples_per_second '
    'train_loss train_accuracy validation_loss validation_accuracy test_loss test_accuracy '
    'parameters active_parameters weights active_weights active_fraction sparsity compression '
    'macs active_macs theoretical_speedup layers phases'
  )
  assert set(expected.split()) <= set(summary)
  assert summary['active_weights'] == round(0.05 * 50_200)
  assert summary['parameters'] == 50_610
  assert summary['active_fraction'] == summary['active_parameters'] / 50_610
  assert summary['sparsity'] == pytest.approx(0.95)
  assert list(summary['phases']) == ['dense', 'pruned', 'retrained']
  assert summary['phases']['dense']['active_weights'] == 50_200
  assert summary['phases']['pruned']['active_weights'] == 2510
  assert summary['best_step'] > 20 * 37, 'a denser network was chosen'
  assert summary['name'] == 'quickstart'
  config = json.loads((workdir / 'config.json').read_text())
  assert (config['seed'], config['model']['name'], config['hash']) == (
    0,
    'lenet300',
    summary['hash'],
  )
  lines = commands.metrics(workdir)
  assert {'step', 'epoch', 'examples', 'train_loss', 'learning_rate', 'below_1e-3'} <= set(lines[0])
  assert [lines[at]['active_macs'] for at in (0, -1)] == [summary['macs'], summary['active_macs']]
  assert lines[-1]['step'] == summary['steps'] == 22 * 37
  assert (workdir / 'trace.png').read_bytes().startswith(b'\x89PNG')
  assert 'retrained' in stdout
  assert 'config.json' not in stderr


def test_a_directory_in_use_or_of_another_run_is_refused(tmp_path):
  workdir = tmp_path / 'run'
  living = commands.start(QUICK, '--config.epochs=5000.0', f'--workdir={workdir}')
  while not (workdir / 'metrics.jsonl').exists():
    assert living.poll() is None, living.communicate()
    time.sleep(0.02)
  before = (workdir / 'config.json').read_text()
  status, _, stderr = commands.launch(QUICK, f'--workdir={workdir}')
  assert status == 2
  assert 'another process' in stderr
  living.send_signal(signal.SIGKILL)
  living.communicate()
  status, _, stderr = commands.launch(QUICK, f'--workdir={workdir}')
  assert status == 2
  assert 'it holds a run with hash' in stderr
  assert (workdir / 'config.json').read_text() == before


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoints(tmp_path):
  workdir = tmp_path / 'run'
  arguments = (
    *SHORT,
    '--config.scale_by_learning_rate.learning_rate.value=1e-3',
    '--config.scale_by_learning_rate.learning_rate.factor=1e12',
    '--config.scale_by_learning_rate.learning_rate.every_epochs=6.0',
    '--config.log.checkpoint_every_epochs=2.0',
    f'--workdir={workdir}',
  )
  status, _, stderr = commands.launch(*arguments)
  assert status == 1
  assert 'is not finite' in stderr.strip().splitlines()[-1]
  kept = sorted(path.name for path in (workdir / 'checkpoints').iterdir())
  assert kept == [f'{4 * 37:09d}', f'{6 * 37:09d}']
  assert 'not finite' in (workdir / 'traceback.txt').read_text()


@pytest.mark.usefixtures('_from_the_root')
def test_a_full_disk_is_said_in_one_line_and_keeps_what_was_saved(tmp_path, monkeypatch, capsys):
  workdir = tmp_path / 'run'

  def usage(path):
    saved = list((workdir / 'checkpoints').glob('0*'))
    return SimpleNamespace(free=0 if len(saved) == 2 else 10**12)

  monkeypatch.setattr('shutil.disk_usage', usage)
  arguments = [*SHORT, '--config.log.checkpoint_every_epochs=2.0', f'--workdir={workdir}']
  assert run_here(arguments) == 2
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert 'no space left on the disk' in last
  assert any((workdir / 'checkpoints').iterdir())


@pytest.mark.usefixtures('_from_the_root')
def test_a_folder_in_the_place_of_a_file_is_said_in_one_line(tmp_path, monkeypatch, capsys):
  progress = tmp_path / 'run' / 'progress.json'
  arguments = [*SHORT, '--config.log.checkpoint_every_epochs=2.0', f'--workdir={progress.parent}']
  with monkeypatch.context() as patched:
    saved = progress.with_name('checkpoints')

    def left(path):
      return SimpleNamespace(free=0 if len([*saved.glob('0*')]) == 2 else 10**12)

    patched.setattr('shutil.disk_usage', left)
    assert run_here(arguments) == 2
  progress.unlink()
  progress.mkdir()
  assert run_here(arguments) == 2
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert last == f'launch.py: Is a directory: {progress}; what was saved before is kept'


def test_the_metrics_survive_a_reader_that_leaves(tmp_path):
  """`launch.py | head -1` closes stdout early; the run goes on."""
  with commands.start(*SHORT, f'--workdir={tmp_path / "run"}') as command:
    command.stdout.readline()
    command.stdout.close()
    errors = command.stderr.read()
  assert command.returncode == 0, errors
  assert (tmp_path / 'run' / 'summary.json').exists()
