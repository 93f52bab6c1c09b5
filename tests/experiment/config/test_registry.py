"""A user's own parts: named in a config file, trained with, and part of the run's hash."""

import json
import sys

import commands
import pytest
import registered

import sparsejax
from sparsejax.experiment.config import commandline
from sparsejax.experiment.training import registry, setup
from sparsejax.experiment.training.registry import data_set

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

PARTS = """
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax
from sparsejax import allocation, granularity, update_rules
from sparsejax.experiment.training.registry import data_set
from sparsejax.experiment.data.splits import Split, Whole
from sparsejax.models.lenet import LeNet300


def largest_negative(weights):
  return -weights  # CHANGED HERE


def halved(by=0.5):
  return optax.scale(by)


def read(folder, cache):
  rng = np.random.default_rng(0)
  labels = np.arange(64, dtype=np.int32) % 2
  images = np.where(labels[:, None, None, None] == 0, 40, 200) + rng.integers(0, 30, (64, 4, 4, 1))
  split = Split(images.astype(np.uint8), labels)
  return Whole(split, split)


def forget(state, settings, context):
  return state._replace(events=state.events + settings['count'])


sparsejax.register('criterion', 'largest_negative', largest_negative)
sparsejax.register('link', 'halved', halved)
sparsejax.register('allocation', 'even', allocation.uniform)
sparsejax.register('granularity', 'rows', granularity.filters)
sparsejax.register('update_rule', 'shrinking', update_rules.nested)
sparsejax.register('model', 'my_lenet', LeNet300)
sparsejax.register('data', 'two_greys', data_set(read, num_classes=2, validation=16))
sparsejax.register('event', 'forget', forget, {'count': 3.0})
"""
CONFIG = (
  PARTS
  + """

def get_config():
  from sparsejax.experiment.config import base

  chain = ('halved', 'trace', 'scale_by_learning_rate', 'prune')
  config = base.get_config(chain, ('forget',))
  config.epochs = 4.0
  config.batch_size = 16
  config.model.name = 'my_lenet'
  config.model.width = 8
  config.data.name = 'two_greys'
  config.forget.at_epochs = 1.0
  config.prune.begin_epochs = 2.0
  config.prune.criterion = 'largest_negative'
  config.prune.allocation = 'even'
  config.prune.granularity = 'rows'
  config.prune.update_rule = 'shrinking'
  config.prune.parameters = 'kernels'
  config.prune.density = 0.5
  return config
"""
)


@pytest.fixture
def _forgotten():
  """What a test registers is gone after it."""
  yield
  registered.forget()


def hash_of(file, workdir):
  status, _, stderr = commands.launch(f'--config={file}', f'--workdir={workdir}')
  assert status == 0, stderr
  return json.loads((workdir / 'summary.json').read_text())['hash']


@pytest.mark.usefixtures('_forgotten')
def test_a_run_of_parts_of_ones_own_whose_code_names_the_experiment(tmp_path):
  file, other = tmp_path / 'mine.py', tmp_path / 'changed.py'
  file.write_text(CONFIG)
  first = hash_of(file, tmp_path / 'one')
  summary = json.loads((tmp_path / 'one' / 'summary.json').read_text())
  assert summary['layers']['fc1']['active_units'] == 4  # rows, evenly
  registered.forget()  # as another process would not know them
  other.write_text(CONFIG.replace('-weights  # CHANGED HERE', '-2 * weights'))
  assert hash_of(other, tmp_path / 'two') != first
  registered.forget()
  with pytest.raises(ValueError, match="there is no model 'my_lenet': parts=FILE must name the"):
    sparsejax.load(tmp_path / 'one')
  assert sparsejax.load(tmp_path / 'one', parts=file).summary == summary


@pytest.mark.usefixtures('_forgotten')
def test_only_what_a_config_uses_is_part_of_its_hash(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(CONFIG)
  settings = commandline.resolve([f'--config={file}'])
  found = registry.digests(settings)
  assert set(found) == {
    *('criterion.largest_negative', 'link.halved', 'allocation.even', 'granularity.rows'),
    *('update_rule.shrinking', 'model.my_lenet', 'data.two_greys', 'event.forget'),
  }
  assert set(found) <= set(setup.build(settings).digests)
  quick = commandline.resolve(['--config=configs/quickstart.py'])
  assert registry.digests(quick) == {}


@pytest.mark.usefixtures('_forgotten')
def test_a_name_is_taken_once_and_the_same_code_may_come_again(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(CONFIG)
  for _ in range(2):
    commandline.resolve([f'--config={file}'])
  with pytest.raises(ValueError, match="the criterion 'magnitude' exists already"):
    registry.register('criterion', 'magnitude', hash_of)
  with pytest.raises(ValueError, match="the criterion 'largest_negative' exists already"):
    registry.register('criterion', 'largest_negative', hash_of)
  with pytest.raises(ValueError, match="unknown kind of part 'criterium': did you mean"):
    registry.register('criterium', 'mine', hash_of)


class Unhashable:
  """A criterion with an equality and no hash."""

  def __eq__(self, other):
    return True

  def __call__(self, weights):
    return weights


NAMES = (None, 3, '', 'a.b', 'a/b', 'a b', 'a=b', ['a'], '3a', b'a', {1})
ONE, READ = (lambda weights: weights), (lambda folder, cache: None)


@pytest.mark.usefixtures('_forgotten')
@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    *((('criterion', name, ONE), r'name=.* must be a string of letters') for name in NAMES),
    *(
      ((kind, 'mine', 0.5), 'part=0.5 must be a function')
      for kind in set(registry.KINDS) - {'data', 'posterior'}
    ),
    (('posterior', 'mine', 0.5), 'it is of type float: it must be a posterior.Family'),
    (('data', 'mine', READ), r'must be what data_set\(read, ...\) returns'),
    (('data', 'mine', data_set(None, 2, 1)), 'read=None must be a function'),
    (('data', 'mine', data_set(READ, 0, 1)), 'num_classes=0 must be an integer of 2 or more'),
    (('data', 'mine', data_set(READ, 2, '1')), "validation='1' must be an integer of 1 or more"),
    (('criterion', 'mine', Unhashable()), 'that can be hashed, .*unhashable type'),
    (
      ('criterion', 'mine', lambda: 0),
      r'must be a function \(weights\) to be a criterion: too',
    ),
    (('allocation', 'mine', ONE), r'must be a function \(\) to be an allocation: missing a'),
    (
      ('event', 'mine', ONE),
      r'must be a function \(state, settings, context\) to be an event',
    ),
    (('criterion', 'mine', ONE, {'a': 1}), "settings={'a': 1} are never read"),
    (('event', 'mine', lambda a, b, c: a, 3), 'settings=3 must be a dict of numbers'),
    (('event', 'mine', lambda a, b, c: a, {1: 2}), 'settings={1: 2} must be a dict of numbers'),
    (('event', 'mine', lambda a, b, c: a, {'a': None}), "its setting 'a' is None"),
    (('link', 'seed', lambda by: by), 'a config has something else with that name'),
    (('event', 'adam', lambda a, b, c: a), 'a config has something else with that name'),
    ((['link'], 'mine', ONE), 'unknown kind of part'),
  ],
)
def test_what_can_not_be_a_part_is_refused_when_it_is_registered(arguments, expected):
  with pytest.raises(ValueError, match=expected) as told:
    registry.register(*arguments)
  assert '\n' not in str(told.value)
  assert not registry._own


@pytest.mark.usefixtures('_forgotten')
def test_another_function_of_the_same_file_is_another_part():
  registry.register('criterion', 'mine', ONE)
  registry.register('criterion', 'mine', ONE)
  with pytest.raises(ValueError, match="the criterion 'mine' exists already"):
    registry.register('criterion', 'mine', shaped)


def shaped(weights, by=1.0, of=None, kinds=()):
  return weights


@pytest.mark.usefixtures('_forgotten')
def test_what_is_registered_is_named_where_it_is_missing(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(CONFIG)
  with pytest.raises(ValueError, match=r'must be one of .*largest_negative.*; did you mean'):
    commandline.resolve([f'--config={file}', '--config.prune.criterion=largest_negativ'])
  assert 'mine' not in sys.modules
