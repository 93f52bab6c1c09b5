"""A finished run is shipped: the folder is whole, and every figure is that of the file in it."""

import errno
import fcntl
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal

import commands
import jax
import jax.export
import numpy as np
import pytest
import safetensors

import sparsejax
from sparsejax import models, ship, shipping
from sparsejax.delivery import folder, latency, request, shipment, shipped_network, source
from sparsejax.experiment.data import datasets
from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import checkpoint
from sparsejax.posterior import precision
from sparsejax.shipping.export.onnx import PACKAGES, session

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')

QUICKSTART = '--config=configs/quickstart.py'
LEFT = {'empty': (), 'cut': ('model.sparse',), 'whole': ('shipped.json',), 'in use': ('model',)}
OPTIONS = ('--bits=fc1=5,.*=4', '--epochs=1', '--format=stablehlo,safetensors', '--rounds=1')


@pytest.fixture(scope='module', autouse=True)
def _a_block_is_one_call():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(latency, 'BLOCK_SECONDS', 1e-9)
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The quickstart, finished, in a tenth of its time."""
  path = tmp_path_factory.mktemp('ship') / 'run'
  status, _, stderr = commands.launch(QUICKSTART, '--shorten=0.1', f'--workdir={path}')
  assert status == 0, stderr
  return path


BAYESIAN = (
  '--config=configs/lenet300_sparse_vd.py',
  *('--config.data.name=digits', '--config.data.limit=64', '--config.batch_size=32'),
  *('--config.epochs=2', '--config.add_kl_gradients.weight.begin_epochs=0'),
  '--config.add_kl_gradients.weight.end_epochs=1',
  '--config.scale_by_learning_rate.learning_rate.begin_epochs=1',
)


@pytest.fixture(scope='module')
def bayesian(tmp_path_factory):
  """A finished run whose layers have posteriors."""
  path = tmp_path_factory.mktemp('bayesian') / 'run'
  status, _, stderr = commands.launch(*BAYESIAN, f'--workdir={path}')
  assert status == 0, stderr
  return path


def shipped(run, out, *options):
  """The command in this process; returns its exit status."""
  return ship.main(['ship', f'--run={run}', f'--out={out}', *options])


@pytest.fixture(scope='module')
def out(run, tmp_path_factory):
  """The folder of a shipment with every option."""
  path = tmp_path_factory.mktemp('shipped') / 'out'
  assert shipped(run, path, *OPTIONS) == 0
  return path


def told(out):
  return json.loads((out / 'shipped.json').read_text())


def refused(capsys, *arguments):
  """The one line with which the command ends."""
  capsys.readouterr()
  assert ship.main(['ship', *map(str, arguments)]) == 2
  output = capsys.readouterr()
  assert output.out == ''
  assert output.err.count('\n') == 1, output.err
  return output.err


def test_the_folder_holds_what_was_asked_for_and_nothing_else(out):
  names = {'model.sparse', 'model.stablehlo', 'model.safetensors', 'shipped.json'}
  assert {path.name for path in out.iterdir()} == names
  assert [path.name for path in out.parent.iterdir()] == ['out']


def test_sizes_and_digests_of_files_are_recorded(out):
  figures = told(out)
  for name, row in figures['files'].items():
    assert row == {'bytes': (out / name).stat().st_size, 'sha256': files.digest(out / name)}
  assert set(figures['files']) == {path.name for path in out.iterdir()} - {'shipped.json'}
  assert figures['bytes'] == (out / 'model.sparse').stat().st_size
  assert figures['bytes'] == sum(figures['bytes_by_part'].values())
  assert figures['dense_bytes'] == 4 * figures['theoretical']['parameters']
  assert figures['compression_in_bytes'] == figures['dense_bytes'] / figures['bytes']


def test_the_network_in_the_model_file_is_measured(out, run):
  figures, (params, header) = told(out), shipping.load(out / 'model.sparse')
  config = json.loads((run / files.CONFIG).read_text())
  model = models.create(header.model, **header.settings)
  digits = splits_of(config)
  scaling = {name: np.array(value, np.float32) for name, value in header.scaling.items()}
  for split in ('validation', 'test'):
    images, labels = digits[split]
    images = (images.astype(np.float32) / 255 - scaling['mean']) / scaling['std']
    logits = model.apply(params, images, train=False)
    assert figures[f'{split}_accuracy'] == pytest.approx(np.mean(np.argmax(logits, -1) == labels))
  report = sparsejax.sparsity_report(params['params'])
  assert figures['theoretical']['active_weights'] == report['active_weights']
  dense = figures['theoretical']['weights']
  assert figures['theoretical']['compression'] == pytest.approx(dense / report['active_weights'])
  assert header.provenance['hash'] == config['hash'] == figures['shipment']['hash']


def splits_of(config):
  names = ('split', 'validation', 'split_seed', 'limit')
  given = {name: config['data'][name] for name in names}
  dataset = datasets.load(config['data']['name'], directory=config['data']['dir'], **given)
  return {split: getattr(dataset, split) for split in ('validation', 'test')}


def test_each_layer_shares_as_many_values_as_its_bits_tell_apart(out, run):
  params, _ = shipping.load(out / 'model.sparse')
  found = {name: layer['kernel'] for name, layer in params['params'].items()}
  values = {name: len(np.unique(kernel[kernel != 0])) for name, kernel in found.items()}
  assert 16 < values['fc1'] <= 32
  assert max(values['fc2'], values['fc3']) <= 16


def test_the_arrays_are_those_of_a_smaller_network_without_the_dead_units(out, run):
  params, header = shipping.load(out / 'model.sparse')
  before = sparsejax.load(run).variables['params']
  for name, layer in params['params'].items():  # what was pruned stays pruned
    kernel, whole = layer['kernel'], np.asarray(before[name]['kernel'])
    assert np.count_nonzero(kernel) <= np.count_nonzero(whole)
    assert np.all(np.any(kernel, axis=1)) or name == 'fc1'  # no input of later layers is unused
    assert kernel.shape[1] == header.settings['widths'].get(name, whole.shape[1])
  assert params['params']['fc2']['kernel'].shape < before['fc2']['kernel'].shape


def test_the_other_formats_hold_the_same_network(out):
  params, header = shipping.load(out / 'model.sparse')
  with safetensors.safe_open(out / 'model.safetensors', 'np') as file:
    metadata = file.metadata()
    assert metadata['model'] == 'lenet300'
    assert json.loads(metadata['settings']) == header.settings
    kernel = file.get_tensor('params/fc1/kernel')
  np.testing.assert_array_equal(kernel, params['params']['fc1']['kernel'])
  network = jax.export.deserialize(bytearray((out / 'model.stablehlo').read_bytes()))
  images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
  wanted = models.create(header.model, **header.settings).apply(params, images, train=False)
  np.testing.assert_allclose(network.call(images), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('engine', ['jax', 'cpu_sparse'])
def test_both_networks_are_timed_at_both_batch_sizes(engine, out):
  for row in (told(out)['latency'][engine][size] for size in ('1', '128')):
    assert row['speedup'] == pytest.approx(row['dense_seconds'] / row['shipped_seconds'])
    low, high = row['spread']['shipped']
    assert 0 < low <= row['shipped_seconds'] <= high


def test_the_same_shipment_is_shown_again_and_another_is_refused(run, out, capsys):
  before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
  capsys.readouterr()
  assert shipped(run, out, *OPTIONS) == 0
  stdout = capsys.readouterr().out
  assert 'already holds this shipment; nothing is written' in stdout
  assert re.search(r'jax, batch 128 +\S+ .?s +\S+ .?s +\S+x \(\S+x to \S+x\) +\S+x', stdout)
  line = refused(capsys, f'--run={run}', f'--out={out}', '--bits=3')
  assert 'holds another shipment; it must be a new or an empty folder' in line
  assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_changed_shipment_is_rejected(run, out, tmp_path, capsys):
  copied = shutil.copytree(out, tmp_path / 'copied')
  (copied / 'model.sparse').write_bytes(b'')
  line = refused(capsys, f'--run={run}', f'--out={copied}', *OPTIONS)
  assert 'its model.sparse is not as shipped.json says' in line
  (copied / 'model.sparse').write_bytes((out / 'model.sparse').read_bytes())
  for name in ('latency', 'files'):
    without(copied / 'shipped.json', name)
    line = refused(capsys, f'--run={run}', f'--out={copied}', *OPTIONS)
    assert 'shipped.json is' in line
  (copied / 'shipped.json').write_text('{')
  line = refused(capsys, f'--run={run}', f'--out={copied}', *OPTIONS)
  assert 'its shipped.json is damaged' in line


def test_a_folder_with_other_files_is_refused_and_an_empty_one_is_taken(run, tmp_path, capsys):
  (tmp_path / 'mine').write_text('mine')
  line = refused(capsys, f'--run={run}', f'--out={tmp_path}')
  assert line == f'ship: --out={tmp_path} holds other files; it must be a new or an empty folder\n'
  (tmp_path / 'empty').mkdir()
  assert shipped(run, tmp_path / 'empty', '--rounds=1') == 0
  # Without bits every weight keeps its value, and the network its answers.
  params, _ = shipping.load(tmp_path / 'empty' / 'model.sparse')
  report = sparsejax.sparsity_report(params['params'])
  assert report['active_weights'] <= commands.summary(run)['active_weights']
  figures = told(tmp_path / 'empty')
  assert figures['test_accuracy'] == commands.summary(run)['test_accuracy']
  assert figures['bits'] is None


def test_a_figure_that_was_changed_is_not_shown(run, out, tmp_path, capsys):
  copied = shutil.copytree(out, tmp_path / 'copied')
  changed(copied / 'shipped.json', test_accuracy=1.0)
  line = refused(capsys, f'--run={run}', f'--out={copied}', *OPTIONS)
  assert 'its shipped.json is not as it was written; it must be a new or an empty folder' in line
  shutil.copy(out / 'shipped.json', copied)
  without(copied / 'shipped.json', 'sha256')  # as before it was noted
  assert shipped(run, copied, *OPTIONS) == 0


def test_what_a_kill_left_is_removed_but_not_what_is_whole_or_in_use(tmp_path):
  out = tmp_path / 'out'
  left = {name: tmp_path / f'.out.{str(number) * 32}.tmp' for number, name in enumerate(LEFT)}
  for name, path in left.items():
    path.mkdir()
    for file in LEFT[name]:
      (path / file).write_text('{}')
  lock = os.open(left['in use'], os.O_RDONLY)
  fcntl.flock(lock, fcntl.LOCK_EX)
  others = [tmp_path / '.out.tmp', tmp_path / f'.other.{"0" * 32}.tmp']
  for path in others:
    path.mkdir()
  with folder.create_atomically(out) as hidden:
    (hidden / 'model').write_text('')
  os.close(lock)
  assert {*tmp_path.iterdir()} == {out, left['in use'], left['whole'], *others}
  assert [path.name for path in out.iterdir()] == ['model']


def test_a_link_to_an_empty_folder_is_taken(run, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'empty')
  assert shipped(run, tmp_path / 'link', '--rounds=1') == 0
  assert (tmp_path / 'link').is_symlink()
  assert (tmp_path / 'empty' / 'shipped.json').exists()


def test_what_cannot_be_renamed_is_not_lost(run, tmp_path, monkeypatch, capsys):
  rename, out = os.rename, tmp_path / 'out'

  def refuse(old, new):
    if new == out:
      raise OSError(errno.EBUSY, 'busy')
    rename(old, new)

  monkeypatch.setattr(os, 'rename', refuse)
  assert shipped(run, out, '--rounds=1') == 2
  line = capsys.readouterr().err.splitlines()[-1]
  hidden = pathlib.Path(line.split()[-1])
  assert line.startswith(f'ship: --out={out}: busy; the finished shipment is ')
  assert (hidden / 'shipped.json').exists()


def test_a_run_from_before_some_settings_is_shipped(run, tmp_path):
  before = tmp_path / 'run'
  shutil.copytree(run, before)
  config = json.loads((before / files.CONFIG).read_text())
  del config['model']['widths'], config['prune']['in_multiples'], config['loss']
  del config['model']['dtype'], config['model']['dropout']
  (before / files.CONFIG).write_text(json.dumps(config))
  assert shipped(before, tmp_path / 'out', '--rounds=1') == 0


def test_the_test_split_is_read_once_and_last(run, tmp_path, monkeypatch):
  read, real = [], shipped_network.make_evaluation

  def noted(experiment, model):
    evaluate = real(experiment, model)

    def evaluated(variables, split):
      read.append(split)
      return evaluate(variables, split)

    return evaluated

  monkeypatch.setattr(shipped_network, 'make_evaluation', noted)
  assert shipped(run, tmp_path / 'out', '--bits=auto', '--tolerance=1.0', '--rounds=1') == 0
  assert read.count('test') == 1
  assert read[-1] == 'test'


def test_auto_takes_the_fewest_bits_within_the_tolerance(run, tmp_path, capsys):
  assert shipped(run, tmp_path / 'out', '--bits=auto', '--tolerance=1', '--rounds=1') == 0
  assert told(tmp_path / 'out')['bits'] == 2
  assert '2 bits: ' in capsys.readouterr().out


def test_auto_fails_if_no_bits_are_within_the_tolerance(run, tmp_path, monkeypatch, capsys):
  accuracies = iter([0.9, *[0.5] * 7])
  monkeypatch.setattr(
    shipment.shipped_network,
    'make_evaluation',
    lambda *_: lambda *_: {'validation_accuracy': next(accuracies)},
  )
  capsys.readouterr()
  assert shipped(run, tmp_path / 'out', '--bits=auto', '--tolerance=0') == 2
  assert '--tolerance=0 must be at least 0.4000' in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_bits_of_a_posterior_are_those_of_the_summary_but_8_at_most(bayesian, tmp_path, capsys):
  options = ('--bits=posterior', '--epochs=1', '--rounds=1')
  assert shipped(bayesian, tmp_path / 'out', *options) == 0
  needed = commands.summary(bayesian)['bits']
  used = {layer: min(bits, 8) for layer, bits in needed.items()}
  told_bits = told(tmp_path / 'out')['bits']
  assert told_bits == {f'^{layer}/kernel$': bits for layer, bits in used.items()}
  params, header = shipping.load(tmp_path / 'out' / 'model.sparse')
  for layer, bits in used.items():
    kernel = params['params'][layer]['kernel']
    assert 0 < len(np.unique(kernel[kernel != 0])) <= 2**bits
  assert header.provenance['bits'] == told_bits
  said = ', '.join(f'{layer} {bits}' for layer, bits in needed.items())
  assert f'bits of the posterior: {said}; at most 8 are used\n' in capsys.readouterr().out
  assert told(tmp_path / 'out')['shipment']['bits'] == 'posterior'


def test_a_layer_that_needs_more_bits_than_can_be_shared_gets_8(bayesian, monkeypatch):
  grids = {'block/fc.1': precision.Grid(17, 19), 'fc2': precision.Grid(3, 5)}
  monkeypatch.setattr(source.posterior, 'rounded', lambda *_: (None, grids))
  found = source.posterior_bits(source.read(bayesian))
  assert found == {r'^block/fc\.1/kernel$': 8, '^fc2/kernel$': 5}


def test_bits_of_a_posterior_need_one(run, bayesian, tmp_path, capsys):
  out = f'--out={tmp_path / "out"}'
  line = refused(capsys, f'--run={run}', out, '--bits=posterior')
  assert line.startswith('ship: --bits=posterior must be given with a run whose layers have post')
  assert line.endswith(f'; the layers of run={run} are deterministic\n')
  copied = shutil.copytree(bayesian, tmp_path / 'copied')
  shutil.rmtree(copied / files.CHECKPOINTS / checkpoint.POSTERIOR)
  line = refused(capsys, f'--run={copied}', out, '--bits=posterior')
  assert f'run={copied}: it has no checkpoints/posterior; give the directory of a finished' in line
  assert not (tmp_path / 'out').exists()


def test_values_of_a_layer_that_is_not_shared_are_not_trained(run, tmp_path, capsys):
  options = ('--bits=fc2=4', '--epochs=1')
  line = refused(capsys, f'--run={run}', f'--out={tmp_path / "out"}', *options)
  what = r"--epochs=1: 'fc1/kernel' has \d+ nonzero values and must have at most 256"
  assert re.search(what, line)
  assert line.endswith('; --bits must name every layer\n')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--run is missing: it must be --run=DIR, a finished run'),
    (['--run=x'], '--out is missing: it must be --out=DIR, a folder to write'),
    (['--run=x', '--out=gs://y'], "--out='gs://y' must be a folder of this machine"),
    (['--nonsense=1'], '--nonsense=1; --help lists the flags'),
    (['--bits=0'], 'must be a whole number from 1 to 8'),
    (['--bits=9'], "--bits='9': bits=9 must be a whole number from 1 to 8"),
    (['--bits=four'], "--bits='four' must be a number from 1 to 8, LAYER=NUMBER,LAYER=NUMBER"),
    (['--bits=4,5'], "--bits='4,5' must be a number from 1 to 8, LAYER=NUMBER"),
    (['--bits=4,a=5'], "--bits='4,a=5' must name the layer of each number"),
    (['--bits==5'], "--bits='=5' must be a number"),
    (['--bits=auto', '--tolerance=2'], "--tolerance='2' must be a number from 0 to 1"),
    (['--bits=auto', '--tolerance=nan'], "--tolerance='nan' must be a number from 0 to 1"),
    (['--bits=4', '--tolerance=0.1'], '--tolerance=0.1 must be given with --bits=auto'),
    (['--epochs=3'], '--epochs=3 must be given with --bits, or nothing reads it'),
    (['--bits=4', '--epochs=0.5'], "--epochs='0.5' must be a whole number, 0 or more"),
    (['--bits=4', '--learning_rate=1'], '--learning_rate=1 must be given with --epochs'),
    (['--format=gguf'], "--format='gguf' must be a list of file, onnx, stablehlo"),
    (['--rounds=0'], "--rounds='0' must be a whole number, 1 or more"),
  ],
)
def test_an_invalid_flag_is_reported_in_one_line(tmp_path, capsys, arguments, message):
  if not any(argument.startswith(('--run', '--out')) for argument in arguments) and arguments:
    arguments = [f'--run={tmp_path / "run"}', f'--out={tmp_path / "out"}', *arguments]
  assert message in refused(capsys, *arguments)
  assert not list(tmp_path.iterdir())


def test_a_format_without_its_packages_is_rejected(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(request.importlib.util, 'find_spec', lambda name: None)
  line = refused(capsys, '--run=a', f'--out={tmp_path / "out"}', '--format=onnx')
  what = "the package jax2onnx is not installed: pip install 'sparsejax[onnx]'"
  assert line == f'ship: --format=onnx: {what}\n'


@pytest.mark.skipif(not all(map(importlib.util.find_spec, PACKAGES)), reason='needs the extra onnx')
def test_onnx_runtimes_are_timed(run, tmp_path):
  assert shipped(run, tmp_path / 'out', '--bits=4', '--format=onnx', '--rounds=1') == 0
  assert {'jax', 'onnxruntime'} <= set(told(tmp_path / 'out')['latency'])
  params, header = shipping.load(tmp_path / 'out' / 'model.sparse')
  images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
  wanted = models.create(header.model, **header.settings).apply(params, images, train=False)
  (found,) = session(tmp_path / 'out' / 'model.onnx')(images)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_bits_of_an_unknown_layer_are_rejected(run, tmp_path, capsys):
  line = refused(capsys, f'--run={run}', f'--out={tmp_path / "out"}', '--bits=conv1=4')
  assert "--bits: the pattern 'conv1' must match a layer that is shared" in line
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda path: shutil.rmtree(path), 'must be the directory of a finished run'),
    (lambda path: (path / files.SUMMARY).unlink(), 'must be the directory of a finished run'),
    (lambda path: (path / files.CONFIG).write_text('{}'), 'must be the directory of a finished'),
    (lambda path: without(path / files.CONFIG, 'chain'), "its config.json has no 'chain'"),
    (lambda path: without(path / files.CONFIG, 'seed'), 'must be the directory of a finished run'),
    (lambda path: without(path / files.SUMMARY, 'macs'), "its summary.json has no 'macs'"),
    (lambda path: changed(path / files.CONFIG, batch_size=31), 'its settings, data and start now'),
    (lambda path: changed(path / files.CONFIG, batch_size=0), 'batch_size=0 must be'),
    (lambda path: changed(path / files.CONFIG, batchsize=9), "unknown field 'batchsize': did"),
    (lambda path: without(path / files.CONFIG, 'epochs'), "has no 'epochs': its hash is"),
  ],
)
def test_a_damaged_run_is_rejected(run, tmp_path, capsys, damage, message):
  copied = shutil.copytree(run, tmp_path / 'copied')
  damage(copied)
  assert message in refused(capsys, f'--run={copied}', f'--out={tmp_path / "out"}')
  assert not (tmp_path / 'out').exists()


def without(file, name):
  content = json.loads(file.read_text())
  del content[name]
  file.write_text(json.dumps(content))


def changed(file, **changes):
  file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_files(run, tmp_path, monkeypatch, capsys, number):
  def killed(*arguments, **options):
    signal.raise_signal(number)

  monkeypatch.setattr(shipment.latency, 'measure_latency', killed)
  with pytest.raises(SystemExit) as left:
    shipped(run, tmp_path / 'new' / 'out')
  assert left.value.code == 128 + number
  assert capsys.readouterr().err == f'ship: {signal.Signals(number).name}; nothing is written\n'
  assert not list((tmp_path / 'new').iterdir())


def test_a_full_disk_is_reported_and_leaves_no_files(run, tmp_path, monkeypatch, capsys):
  def full(*arguments, **options):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(shipment.shipping, 'save', full)
  assert shipped(run, tmp_path / 'out') == 2
  line = f'ship: No space left on device: {tmp_path / "out"}; nothing is written\n'
  assert capsys.readouterr().err == line
  assert not list(tmp_path.iterdir())


def test_help_names_every_flag(capsys):
  assert ship.main(['ship', '--help']) == 0
  text = capsys.readouterr().out
  assert all(f'--{name}=' in text for name in ('run', 'out', *request.FLAGS))
  assert all(name in text for name in request.NAMES)
