"""Every config in configs/: it builds, its names are known, and no two are the same experiment."""

import importlib
import inspect
import itertools
import json
import pathlib
import re
import sys

import golden
import pytest
from golden import hash_of, resolve
from ml_collections import ConfigDict

from sparsejax import models, nn
from sparsejax.experiment.chain import links, optimizer, pruning_links
from sparsejax.experiment.chain.durations import Clock, convert_to_steps
from sparsejax.experiment.config import argument, base, loading
from sparsejax.experiment.data import sources
from sparsejax.experiment.step import events
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.training import agenda
from tools import ROOT

pytestmark = pytest.mark.usefixtures('_from_the_root')

FOLDER = ROOT / 'configs'
NAMES = golden.names()
DEFAULT = json.loads(golden.CONFIGS.read_text())
EXAMPLES = {'cifar10': 40_000, 'mnist': 55_000, 'digits': 1_197, 'text': 28_000}
# Those that prune to a density, or to a threshold where none is given, and the link that does it.
PRUNED = {
  name: link
  for name, config in DEFAULT.items()
  if (link := pruning_links.link_of(config['chain'])) and config.get('prune.threshold') != 0.0
}


def completed(config):
  return base.complete(config).to_dict()


def clock_of(config):
  return Clock(EXAMPLES[config['data']['name']], config['batch_size'], config['epochs'])


def test_the_configs_are_found():
  assert 'quickstart' in NAMES
  assert 'resnet50_dc' in PRUNED


@pytest.mark.parametrize('name', NAMES)
def test_a_config_builds_and_every_name_in_it_is_known(name):
  config = resolve(name)
  clock = clock_of(config)
  link = pruning_links.link_of(config['chain'])
  schedule = link and pruning_links.pruning_schedule(config[link], clock, link)
  optimizer.build(config['chain'], config, clock)
  plan = agenda.agenda(config, clock, schedule)
  assert plan.total == clock.total_steps > 0
  assert (plan.last_cut is not None) == (link is not None)
  assert links.learning_rate(config['chain'], config, clock)(0) > 0
  events.check(config)
  model = config['model']
  models.create(model['name'], 10, layers=config['layers'], width=model['width'])
  assert config['data']['name'] in sources.SOURCES


def test_every_config_resolves_to_its_golden_copy():
  found = json.loads(json.dumps(golden.configs()))
  changed = {name for name in {*found, *DEFAULT} if found.get(name) != DEFAULT.get(name)}
  assert not changed, 'tests/helpers/golden.py writes the copies anew'


@pytest.mark.parametrize('file', sorted(FOLDER.glob('*.py')), ids=lambda file: file.stem)
def test_the_docstring_says_how_to_run_it_and_what_to_expect(file):
  told = importlib.import_module(f'configs.{file.stem}').__doc__
  assert f'python launch.py --config=configs/{file.name}' in told
  assert 'expected' in told.lower()


def test_a_network_may_stand_in_front_of_a_method_or_behind_it():
  assert resolve('vgg16_rigl', '0.01') == resolve('rigl', 'vgg16,0.01')
  assert resolve('vgg16_rigl') == resolve('rigl', 'vgg16')
  assert resolve('resnet50_l1', '2.1e-5,sgdr')['name'] == 'resnet50_l1'


def test_a_config_of_ones_own_takes_arguments_of_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine.py').write_text(
    'from sparsejax.experiment.config import base\n\n\n'
    'def get_config(seed: int, rate: float = 0.5):\n'
    '  config = base.get_config()\n'
    '  config.seed, config.scale_by_learning_rate.learning_rate = seed, rate\n'
    '  return config\n'
  )
  assert loading.load('mine.py:3,0.25').scale_by_learning_rate.learning_rate == 0.25
  assert loading.load('mine.py:3').seed == 3
  with pytest.raises(ValueError, match=r"^config=mine.py:x: seed 'x' must be an integer$"):
    loading.load('mine.py:x')


WRONG_FILES = {
  'at import': ('1 / 0\n', 'ZeroDivisionError: division by zero', 1),
  'in get_config': ("def get_config():\n  raise ValueError('no such rate')\n", 'no such rate', 2),
  'below it': ('def one():\n  return {}[1]\n\n\ndef get_config():\n  one()\n', 'KeyError: 1', 2),
  'in its syntax': ('\n\ndef get_config(:\n', 'SyntaxError: invalid syntax', 3),
  'in a neighbour': ('import mine_beside\n', 'SyntaxError: ', 'mine_beside.py:2'),
}


@pytest.mark.parametrize('case', WRONG_FILES)
@pytest.mark.parametrize('named', ['mine.py', './mine.py', '../here/mine.py', 'ABSOLUTE'])
def test_a_wrong_file_is_told_with_its_line_however_it_is_named(named, case, tmp_path, monkeypatch):
  text, message, where = WRONG_FILES[case]
  here = tmp_path / 'here'
  here.mkdir()
  (here / 'mine.py').write_text(text)
  (here / 'mine_beside.py').write_text('\ndef f(:\n')
  monkeypatch.chdir(here)
  monkeypatch.setattr(sys, 'path', [str(here), *sys.path])
  path = named.replace('ABSOLUTE', str(here / 'mine.py'))
  where = where if isinstance(where, str) else f'{pathlib.Path(path)}:{where}'
  with pytest.raises(UsageError, match=f'{re.escape(where)}: {message}') as told:
    loading.load(path)
  assert '\n' not in str(told.value)


def test_the_only_argument_without_a_type_is_the_whole_text():
  assert argument.read(lambda text='a': text, 'resnet20,exact') == ['resnet20,exact']


@pytest.mark.parametrize('name', PRUNED)
def test_the_argument_is_the_active_fraction(name):
  config = resolve(name, '0.005')
  block = config[PRUNED[name]]
  assert block['density'] == 0.005
  assert block['allocation'] in ('global_rank', 'erk')
  optimizer.build(config['chain'], config, clock_of(config))


@pytest.mark.parametrize('name', PRUNED)
def test_one_keeps_everything(name):
  config = resolve(name, '1.0')
  link = PRUNED[name]
  schedule = pruning_links.pruning_schedule(config[link], clock_of(config), link)
  assert set(schedule.densities) == {1.0}


@pytest.mark.parametrize('name', PRUNED)
@pytest.mark.parametrize('text', ['0', '1.5', '-0.1', 'nan', 'half'])
def test_no_fraction_is_refused(name, text):
  def resolved_schedule():
    config = resolve(name, text)
    link = PRUNED[name]
    return pruning_links.pruning_schedule(config[link], clock_of(config), link)

  with pytest.raises(ValueError, match=rf'{PRUNED[name]}\.density=|half'):
    resolved_schedule()


def test_the_form_of_the_butterfly():
  found = [resolve('butterfly_resnet18', form)['model']['name'] for form in ('log', 'general')]
  assert found == ['butterfly_resnet18', 'butterfly_resnet18_general']
  with pytest.raises(ValueError, match="form 'tree' must be log or general"):
    resolve('butterfly_resnet18', 'tree')


def test_no_two_configs_are_the_same_experiment():
  resolved = {name: resolve(name) for name in NAMES}
  resolved |= {f'{name}:0.3': resolve(name, '0.3') for name in PRUNED}
  for (one, a), (other, b) in itertools.combinations(resolved.items(), 2):
    assert hash_of(a) != hash_of(b), (one, other)


def test_the_seed_and_the_log_make_no_other_experiment():
  config = loading.load('configs/quickstart.py')
  before = hash_of(completed(config))
  config.seed, config.log.every_steps, config.log.tensorboard = 7, 1, True
  assert hash_of(completed(config)) == before
  config.prune.floor = 2
  assert hash_of(completed(config)) != before


def test_families_of_layers_and_their_settings_are_experiments_of_their_own():
  chain = ('add_kl_gradients', 'sgd')
  found = set()
  for name in base.LAYER_DEFAULTS:
    for std in (None, 0.01, 0.5):
      config = base.get_config(chain, layers=name)
      assert config[name].kernel_std is None  # whatever was set in the config before
      config[name].kernel_std = std
      found.add(hash_of(completed(config)))
  assert len(found) == 9


# The defaults against what they are the defaults of.


def test_every_link_with_defaults_exists_and_has_those_settings():
  clock = Clock(40_000, 128, 180.0)
  for name, settings in base.LINK_DEFAULTS.items():
    if name in pruning_links.PRUNING_LINKS:
      assert set(convert_to_steps(settings, clock)) == set(pruning_links.SETTINGS[name])
    elif name == 'rewind':
      assert set(convert_to_steps(settings, clock)) == {'to'}
    elif name == 'bound_variances':
      assert set(settings) == set(optimizer.BOUND_SETTINGS)
    elif name not in links.PROXIMAL:  # whose configs test_proximal_config.py builds
      assert set(settings) <= set(inspect.signature(links.known()[name]).parameters)


def test_every_event_with_defaults_exists_and_none_is_without():
  assert set(base.EVENT_DEFAULTS) == set(events.EVENTS)


def test_the_default_config_resolves_for_every_link_of_the_defaults():
  directions = [name for name in base.LINK_DEFAULTS if links.stage(name) == links.DIRECTION]
  for name in directions:
    config = completed(base.get_config((name, 'scale_by_learning_rate', 'prune')))
    assert {name, 'scale_by_learning_rate', 'prune'} <= set(config)
    optimizer.build(config['chain'], config, Clock(40_000, 128, 180.0))
  assert models.MODELS[config['model']['name']]
  assert nn.get(config['layers'])


def test_blocks_are_those_of_the_chain_and_of_what_runs_inside_prune():
  config = base.get_config(('sgd', 'prune'))
  config.prune.inner = ('trace',)
  with config.unlocked():
    config.scale_by_adam = ConfigDict({'b1': 0.5})
  found = set(completed(config)) & set(base.LINK_DEFAULTS)
  assert found == {'prune', 'trace'}


def test_blocks_that_a_config_sets_stay():
  config = base.get_config()
  config.trace.decay = 0.5
  assert completed(config)['trace'] == {'decay': 0.5, 'nesterov': False}


# The configs, by the numbers that they are named after.


def test_the_logs_recipe():
  config = resolve('vgg16_dense')
  clock = clock_of(config)
  rate = links.learning_rate(config['chain'], config, clock)
  edges = [0, 60 * 312 - 1, 60 * 312, 120 * 312, clock.total_steps - 1]
  assert [float(rate(step)) for step in edges] == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.001])
  assert (config['trace']['decay'], config['add_decayed_weights']['weight_decay']) == (0.9, 5e-4)
  assert (config['batch_size'], config['epochs']) == (128, 180.0)


def test_the_logs_cut_falls_with_the_learning_rate():
  configs = {name: resolve(name) for name, link in PRUNED.items() if link == 'prune'}
  at_once = {n: c for n, c in configs.items() if c['prune']['schedule'] == 'one_shot'}
  assert 'resnet50_dc' in at_once
  for name, config in at_once.items():
    clock = clock_of(config)
    rate = links.learning_rate(config['chain'], config, clock)
    (cut,) = pruning_links.pruning_schedule(config['prune'], clock).steps
    assert rate(cut) == pytest.approx(0.1 * rate(cut - 1)), name


def test_sgdr_ends_with_its_fourth_cycle():
  config = resolve('resnet50_sgdr')
  clock = clock_of(config)
  rate = links.learning_rate(config['chain'], config, clock)
  assert [float(rate(epoch * 312)) for epoch in (0, 10, 30, 70)] == pytest.approx([0.2] * 4)
  assert 0 <= float(rate(clock.total_steps - 1)) < 1e-6


def test_weights_go_back_to_where_the_retraining_begins():
  """Both rewind at every cut, the rate and the weights to epoch 100 of 180."""
  config = resolve('resnet56_weights_rewound', '0.5')
  clock = clock_of(config)
  rate = links.learning_rate(config['chain'], config, clock)
  cuts = pruning_links.pruning_schedule(config['prune'], clock).steps
  assert [cut / 312 for cut in cuts] == [180, 260, 340, 420]
  assert config['rewind'] == {'to_epochs': 100.0}
  assert [float(rate(cut)) for cut in cuts] == [float(rate(100 * 312))] * 4
  assert clock.total_steps == 500 * 312


def test_batch_norm_is_made_anew_right_after_the_surgery():
  config = resolve('resnet20_lobs')
  plan = agenda.agenda(config, clock_of(config), None)
  assert plan.events == {160 * 312: ('lobs', 'recalibrate_batch_norm')}
