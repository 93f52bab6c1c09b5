"""Every sweep in configs/sweeps/: it can be run, and is what its page says."""

import importlib
import pathlib

import pytest

from sparsejax import sweep_worker
from sparsejax.search.plan import base, settings

FOLDER = pathlib.Path(__file__).parents[2] / 'configs' / 'sweeps'
NAMES = sorted({file.stem for file in FOLDER.glob('*.py')} - {'__init__', 'base'})


def sweep_of(name, *argument):
  asked = importlib.import_module(f'configs.sweeps.{name}').get_config(*argument).to_dict()
  return settings.check(asked, sweep_worker.resolver(asked['overrides']))


def starts(sweep):
  """How many configurations begin in each bracket."""
  firsts = [slot.bracket for slot in sweep.slots if slot.rung == 0]
  return [firsts.count(bracket) for bracket in sorted(set(firsts))]


@pytest.mark.parametrize('name', NAMES)
def test_a_sweep_can_be_run(name):
  sweep = sweep_of(name)
  assert len(sweep.slots) > 1
  assert sweep.parameters
  assert set(sweep.settings) == set(base.get_config().to_dict())


def test_the_searches_are_those_of_their_pages():
  assert starts(sweep_of('quickstart')) == [27, 12, 6, 4]
  log = sweep_of('learning_rate')
  assert starts(log) == [125, 34, 10, 4]
  assert max(slot.epochs for slot in log.slots) == 180
  assert len(sweep_of('l1_strengths').combinations) == 7 * 3 * 3
  assert len(sweep_of('exact_sparsity').combinations) == 5 * 3 * 3
  assert starts(sweep_of('kl_weights')) == [16]
  assert sweep_of('satisficing').settings['constraints'][0]['at_most'] == 0.0766


def ends(parameter):
  return parameter.samples[0], parameter.samples[-1]


def test_the_logs_space_is_its_own():
  ranges = {p.key.split('.')[-1]: ends(p) for p in sweep_of('learning_rate').parameters}
  assert ranges == {
    'value': (0.01, 0.4),
    'factor': (0.0, 0.5),
    'batch_size': (64, 256),
    'weight_decay': (5e-6, 1e-4),
  }
  assert ends(sweep_of('l1_strengths').parameters[0]) == ('1e-7', '1e-4')
  assert ends(sweep_of('kl_weights').parameters[0]) == (1e-4, 1.0)


def test_a_sweep_over_another_network_is_one_argument_away():
  vgg = sweep_of('learning_rate', 'configs/vgg16_dc.py')
  assert vgg.settings['configs'] == ['configs/vgg16_dc.py']
  assert sweep_of('kl_weights', 'configs/resnet50_bc.py').parameters


def test_every_trial_of_the_grids_is_an_experiment_of_its_own():
  for name in ('l1_strengths', 'exact_sparsity'):
    sweep = sweep_of(name)
    resolve = sweep_worker.resolver(())
    every = [settings.resolved(sweep.settings, values, resolve) for values in sweep.combinations]
    assert len({repr(trial) for trial in every}) == len(every)
