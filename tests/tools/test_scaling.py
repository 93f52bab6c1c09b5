"""What tools/costs/scaling.py makes of the lines of its runs."""

import re

import jax
import pytest

from sparsejax.experiment.config import base, commandline, loading
from tools import ROOT
from tools.costs import places, scaling

LINES = [
  {'examples_per_second': 2.0, 'train_loss': 3.0},  # holds the compilation
  {'examples_per_second': 100.0, 'train_loss': 2.0},
  {'examples_per_second': 80.0, 'train_loss': 1.5, 'validation_loss': 1.0},
  {'examples_per_second': 90.0, 'train_loss': 1.0},
]


def test_windows_with_compilation_or_validation_are_not_timed():
  assert scaling.rates(LINES) == [100.0, 90.0]


def test_ideal_is_one_devices_step_as_often_as_there_are_shares():
  rows = [{'shares': 1, 'step_seconds': 0.5}, {'shares': 4, 'step_seconds': 3.0}]
  assert [row['of_ideal'] for row in scaling.with_ratios(rows)] == [1.0, 1.5]


@pytest.mark.usefixtures('_from_the_root')
@pytest.mark.parametrize('case', scaling.CASES.values(), ids=scaling.CASES)
def test_the_config_of_a_case_is_there_and_is_dense(case):
  for place in (scaling.ONE, scaling.EIGHT):
    settings = commandline.resolve(scaling.arguments_of(case, place, None))
    assert settings['chain'] == base.SGD
    assert settings['batch_size'] == case.batch_size * place.shares


NAMED = re.compile(r'configs/[\w/]+\.py(?::[\w.,]+)?')


@pytest.mark.usefixtures('_from_the_root')
def test_every_config_that_a_tool_names_is_there():
  files = [*(ROOT / 'tools').rglob('*.py'), *(ROOT / 'sparsejax').rglob('*.py')]
  named = {name for file in files for name in NAMED.findall(file.read_text())}
  assert len(named) > 3
  for name in named:
    if 'NAME' not in name:
      loading.load(name)


@pytest.mark.parametrize('case', scaling.CASES.values(), ids=scaling.CASES)
def test_windows_divide_epochs_or_epochs_divide_windows(case):
  """Or windows would hold different numbers of epochs' ends."""
  for place in scaling.PLACES:
    steps, rest = divmod(case.examples, case.batch_size * place.shares)
    assert rest == 0
    assert steps % case.window == 0 or case.window % steps == 0


def model(difference, found, *, has_batch_norm=False):
  row = {'place': '8 devices', 'processes': 1, 'devices': 8, 'shares': 8, 'batch_size': 64}
  row |= {'step_seconds': 0.25, 'examples_per_second': 256.0, 'of_ideal': 1.25, 'train_loss': 0.5}
  row |= {'all_reduce_bytes': {'predicted': 4000, 'found': found}}
  pair = {'places': ['2 processes of 4', '8 devices'], 'losses': [0.5, 0.5]}
  pair |= {'alike_steps': difference, 'all_steps': 2 * difference, 'first_step': difference / 10}
  of_model = {'model': 'lenet300', 'batch_size': 8, 'has_batch_norm': has_batch_norm}
  return of_model | {'rows': [row], 'compared': [pair]}


def report(*models):
  environment = {'time': '2026-01-02T03:04:05', 'git_commit': '0123456789', 'threads': 2}
  environment |= {'processor': 'a processor', 'load_average': 0.1, 'python': '3.11'}
  environment |= {'versions': {'jax': '0.10.2'}}
  return {'environment': environment, 'repeats': 2, 'windows': 8, 'models': models}


def test_the_page_shows_what_was_measured():
  text = scaling.text_of(report(model(1e-7, 4000)))
  assert '| 8 devices | 64 | 250.00 ms | 256 | 1.25 | 4,000 | 4,000 | 0.500000 |' in text
  assert '| lenet300 | 2 processes of 4 and 8 devices | 1.0e-08 | 1.0e-07 | 2.0e-07 |' in text
  assert 'share the 2 core(s)' in text
  assert 'Wrong' not in text


def test_the_page_says_what_disagrees():
  assert scaling.disagreements([model(1e-7, 4000)]) == []
  text = scaling.text_of(report(model(0.5, 4004), model(float('nan'), 4000)))
  assert '**Wrong**: lenet300: 2 processes of 4 and 8 devices differ by 5.0e-01' in text
  assert 'lenet300: 8 devices: 4004 bytes averaged, 4000 predicted' in text
  assert 'differ by nan' in text


def test_with_batch_norm_only_the_first_losses_must_be_the_same():
  assert scaling.disagreements([model(5e-4, 4000, has_batch_norm=True)]) == []
  [line] = scaling.disagreements([model(5e-2, 4000, has_batch_norm=True)])
  assert line == 'lenet300: 2 processes of 4 and 8 devices differ by 5.0e-03'


def test_a_function_is_called_on_the_devices_of_the_place():
  place = scaling.Place('3 devices', processes=1, devices=3, shares=3)
  assert places.call(place, jax.device_count) == 3
