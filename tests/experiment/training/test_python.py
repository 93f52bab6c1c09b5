"""Experiments from Python: a config is trained, a finished run is read, the core needs no extra."""

import json
import shutil
import subprocess
import sys

import commands
import jax
import numpy as np
import pytest
import registered
from flax import linen as nn

import sparsejax
from configs import quickstart
from sparsejax.experiment.data import datasets
from sparsejax.experiment.step.augment import normalise
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.models.lenet import LeNet300

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')


def short():
  config = quickstart.get_config()
  config.epochs = 3.0
  config.prune.begin_epochs = 1.0
  return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of three epochs: its directory and what `run` returned."""
  workdir = tmp_path_factory.mktemp('python') / 'run'
  return workdir, sparsejax.run(short(), workdir=workdir, name='mine')


def test_a_config_is_trained_and_its_summary_returned(trained):
  workdir, summary = trained
  assert summary['name'] == 'mine'
  assert summary['epochs'] == 3.0
  assert json.loads((workdir / 'summary.json').read_text())['hash'] == summary['hash']


def test_a_finished_run_is_its_network_again(trained):
  workdir, summary = trained
  found = sparsejax.load(workdir)
  assert found.summary['test_accuracy'] == summary['test_accuracy']
  assert found.config['prune']['begin_epochs'] == 1.0
  digits = datasets.load('digits')
  images = normalise(digits.test.images, digits.mean, digits.std)
  logits = jax.jit(found.model.apply, static_argnames='train')(found.variables, images, train=False)
  accuracy = np.mean(np.argmax(logits, -1) == digits.test.labels)
  assert accuracy == pytest.approx(summary['test_accuracy'], abs=1e-6)


class LastByNameIsFirst(LeNet300):
  @nn.compact
  def __call__(self, images, *, train):
    x = images.reshape(len(images), -1)
    for name, features in (('z', 24), ('a', self.num_classes)):
      x = self.parts().dense(features, name=name)(x, train=train)
    return x


def test_the_classes_of_a_network_are_known_whatever_its_layers_are_called(tmp_path):
  sparsejax.register('model', 'last_by_name_is_first', LastByNameIsFirst)
  config = short()
  config.model.name = 'last_by_name_is_first'
  sparsejax.run(config, workdir=tmp_path / 'run')
  registered.forget()
  with pytest.raises(UsageError, match="there is no model 'last_by_name_is_first'"):
    sparsejax.load(tmp_path / 'run')
  sparsejax.register('model', 'last_by_name_is_first', LastByNameIsFirst)
  found = sparsejax.load(tmp_path / 'run')
  registered.forget()
  assert found.model.num_classes == found.summary['num_classes'] == 10
  assert found.variables['params']['a']['kernel'].shape == (24, 10)


def test_the_same_by_the_name_of_a_file(tmp_path):
  (tmp_path / 'note').write_text('of something else')
  with pytest.raises(UsageError, match='it holds note, but no run'):
    sparsejax.run('configs/quickstart.py:0.1', workdir=tmp_path)


@pytest.mark.parametrize(
  ('change', 'expected'),
  [
    (lambda c: c.update(epochs=float('nan')), 'config.epochs=nan must be a number above 0'),
    (lambda c: c.prune.update(m=8), 'config.prune.m=8 is never read'),
    (lambda c: c.data.update(split='frist'), "config.data.split='frist' must be one of"),
  ],
)
def test_what_can_not_be_is_refused_before_anything_is_written(change, expected, tmp_path):
  config = short()
  change(config)
  with pytest.raises(UsageError, match=expected):
    sparsejax.run(config, workdir=tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('damage', ['nothing there', 'summary.json', 'checkpoints/best/notes.json'])
def test_what_is_no_finished_run_is_said_to_be_none(damage, trained, tmp_path):
  run = tmp_path / 'run'
  if damage != 'nothing there':
    shutil.copytree(trained[0], run)
    (run / damage).write_text('{')
  with pytest.raises(UsageError, match='must be the directory of a finished run'):
    sparsejax.load(run)


CORE = """
import sys
class Missing:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in {'flax', 'ml_collections', 'orbax', 'absl_missing', 'rich'}:
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import jax, jax.numpy as jnp, optax, sparsejax
tx = optax.chain(optax.sgd(0.1), sparsejax.prune(sparsejax.one_shot(0, 0.5)))
params = {'kernel': jnp.arange(8.0).reshape(2, 4) + 1}
updates, _ = tx.update(params, tx.init(params), params)
print(int((optax.apply_updates(params, updates)['kernel'] != 0).sum()))
from sparsejax import launch
from sparsejax.internal import extras
sys.exit(extras.explained(launch.main, ['launch.py', '--config=configs/quickstart.py']))
"""


def test_the_core_prunes_without_the_extras_and_a_command_says_what_it_needs():
  found = subprocess.run(
    [sys.executable, '-c', CORE],
    cwd=commands.ROOT,
    env=commands.environment(),
    capture_output=True,
    text=True,
  )
  assert found.stdout == '4\n', found.stderr
  assert found.returncode == 2
  assert found.stderr.count('\n') == 1, found.stderr
  assert "is not installed: pip install 'sparsejax[experiments]'" in found.stderr
