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


NO_PATHS = (None, 3, ['run'], {'a': 1}, b'run', '', 'a\0b', object())


@pytest.mark.parametrize(
  ('call', 'wrong', 'expected'),
  [
    *((lambda v: sparsejax.run(v), v, 'config=.* must be') for v in NO_PATHS if v != {'a': 1}),
    *((lambda v: sparsejax.load(v), v, 'run=.* must be the directory of') for v in NO_PATHS),
    *(
      (lambda v: sparsejax.load('run', parts=v), v, 'parts=.* must be a file of Python')
      for v in NO_PATHS[1:]
    ),
    *(
      (lambda v: sparsejax.run(short(), workdir=v), v, 'workdir=.* must be a folder, or None')
      for v in NO_PATHS[1:]
    ),
    (lambda v: sparsejax.run(v), quickstart, r'config=<module .* must be a ConfigDict'),
    (lambda v: sparsejax.run(v), {1: 2}, 'config: 1 must be the name of a field'),
    (lambda v: sparsejax.run(v), {'prune': {1: 2}}, 'config.prune: 1 must be the name of a field'),
    (lambda v: sparsejax.run(v), 'a\nb', r'config=a\\nb: there is no such file'),
    (lambda v: sparsejax.load(v), 'a\nb', r'run=a\\nb must be the directory of'),
    (lambda v: sparsejax.run(short(), name=v), None, 'name=None must be a string'),
    (lambda v: sparsejax.run(short(), restart=v), 'no', "restart='no' must be True or False"),
  ],
)
def test_an_argument_of_another_type_is_told_in_a_line(
  call, wrong, expected, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UsageError, match=expected) as told:
    call(wrong)
  assert '\n' not in str(told.value)
  assert not list(tmp_path.iterdir())


ONLY_THE_CORE = """
import importlib.machinery, sys
CORE = {'jax', 'jaxlib', 'ml_dtypes', 'numpy', 'opt_einsum', 'optax', 'absl', 'scipy', 'sparsejax'}
CORE |= sys.stdlib_module_names
class Installed(importlib.machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    package = name.partition('.')[0]
    return super().find_spec(name, path, target) if package in CORE or package[0] == '_' else None
sys.meta_path[:] = [
  Installed if finder is importlib.machinery.PathFinder else finder
  for finder in sys.meta_path
  if 'editable' not in str(finder)
]
"""
PRUNES = """
import jax, jax.numpy as jnp, optax, sparsejax
tx = optax.chain(optax.sgd(0.1), sparsejax.prune(sparsejax.one_shot(0, 0.5)))
params = {'kernel': jnp.arange(8.0).reshape(2, 4) + 1}
updates, _ = tx.update(params, tx.init(params), params)
print(int((optax.apply_updates(params, updates)['kernel'] != 0).sum()))
"""
COMMANDS = """
import os, runpy
os.environ['SPARSEJAX_STUDY'] = ''
config = '--config=configs/quickstart.py'
sweep = ['--config=configs/sweeps/quickstart.py', '--workdir=/tmp/none']
for name, argv in {
  'launch': [config], 'sweep': sweep, 'sweep_worker': ['/tmp/none', 'sweep'], 'benchmark': [config],
  'report': ['docs', '--out=/tmp/none'], 'deploy': ['--run=docs'],
}.items():
  sys.argv = [name, *argv]
  try:
    runpy.run_module(f'sparsejax.{name}', run_name='__main__')
  except SystemExit as ended:
    print(name, ended.code)
"""
IMPORTS = """
for text in (
  'from sparsejax import run', 'sparsejax.load', 'sparsejax.register', 'import sparsejax.models',
  'from sparsejax.nn import get', 'import sparsejax.models.plain',
  'from sparsejax.experiment.config import base',
):
  try:
    exec(f'import sparsejax\\n{text}')
  except ModuleNotFoundError as error:
    print(text, '|', error, '|', error.name.partition('.')[0])
"""


def with_only_the_core(program):
  return subprocess.run(
    [sys.executable, '-c', ONLY_THE_CORE + program],
    cwd=commands.ROOT,
    env=commands.environment(),
    capture_output=True,
    text=True,
  )


def test_the_core_prunes_without_the_extras():
  found = with_only_the_core(PRUNES)
  assert found.stdout == '4\n', found.stderr


def test_every_command_says_what_it_needs_beyond_the_core():
  found = with_only_the_core(COMMANDS)
  ended = [line.split() for line in found.stdout.splitlines()]
  assert [name for name, _ in ended] == [
    *('launch', 'sweep', 'sweep_worker', 'benchmark', 'report', 'deploy')
  ]
  assert {status for _, status in ended} == {'2'}, found.stderr
  lines = found.stderr.splitlines()
  assert len(lines) == len(ended), found.stderr
  for line in lines:
    assert line.endswith(" is not installed: pip install 'sparsejax[experiments]'"), line


def test_what_is_imported_says_what_it_needs_beyond_the_core():
  found = with_only_the_core(IMPORTS)
  told = [line.split(' | ') for line in found.stdout.splitlines()]
  assert len(told) == 7, found.stdout + found.stderr
  for text, message, package in told:
    extra = 'models' if 'models' in text or 'nn' in text else 'experiments'
    assert message.endswith(f"pip install 'sparsejax[{extra}]'"), text
    assert message.startswith(f'the package {package} is not installed: ')
