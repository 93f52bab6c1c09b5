"""Whole runs whose networks have what their masks leave, layer by layer and in whole units."""

import json

import numpy as np
import pytest

import sparsejax
from sparsejax.experiment.config import base
from sparsejax.experiment.run import run
from sparsejax.experiment.terminal.errors import PausedError

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')

WEIGHTS = {'fc1': 64 * 300, 'fc2': 300 * 100, 'fc3': 100 * 10}
KEPT = {'fc1': 1920, 'fc2': 15_000, 'fc3': 500}  # a tenth of the first, half of the others
SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')


def straight(**changes):
  """Four epochs of straight-through gradients, to the final densities in the second."""
  config = base.get_config(('straight_through',))
  config.epochs, config.batch_size = 4.0, 32
  config.straight_through.inner = SGD
  base.complete(config)
  config.scale_by_learning_rate.learning_rate = 0.05
  config.straight_through.update(schedule='cubic', begin_epochs=0.5, end_epochs=1.5, every_steps=10)
  config.straight_through.update(allocation='by_layer', density='fc1=0.1,.*=0.5')
  config.log.update(every_steps=20, checkpoint_every_epochs=1.0)
  config.update(changes)
  return base.complete(config)


def lines_of(workdir):
  return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def active(variables):
  kernels = {name: np.asarray(layer['kernel']) for name, layer in variables['params'].items()}
  return {name: int(np.count_nonzero(kernel)) for name, kernel in kernels.items()}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('straight') / 'run'
  return workdir, sparsejax.run(straight(), workdir=workdir, name='straight')


def test_every_figure_of_a_straight_through_run_is_of_its_masked_network(trained):
  workdir, summary = trained
  assert active(sparsejax.load(workdir).variables) == KEPT
  layers = {path.split('/')[0]: row for path, row in summary['layers'].items()}
  assert {name: row['active_weights'] for name, row in layers.items()} == KEPT
  kept, whole = sum(KEPT.values()), sum(WEIGHTS.values())
  assert summary['active_weights'] == kept
  assert summary['sparsity'] == pytest.approx(1 - kept / whole)
  assert summary['test_accuracy'] > 0.8
  phases = {name: phase['active_weights'] for name, phase in summary['phases'].items()}
  assert phases == {'dense': whole, 'pruned': kept, 'retrained': kept}
  counts = {line['step']: line['active_macs'] for line in lines_of(workdir)}
  after = [count for step, count in counts.items() if step > 1.5 * (summary['steps'] // 4) + 1]
  assert len(after) > 3
  assert set(after) == {kept}


def at_two_epochs(line):
  return line['epoch'] >= 2


TIMES = ('seconds', 'examples_per_second')


def test_a_straight_through_run_that_is_stopped_goes_on_as_if_it_was_not(trained, tmp_path):
  settings = straight().to_dict() | {'name': 'straight'}
  defaults, path = base.defaults(settings), tmp_path / 'run'
  with pytest.raises(PausedError):
    run(settings, defaults, version=base.VERSION, workdir=path, watch=at_two_epochs)
  run(settings, defaults, version=base.VERSION, workdir=path)
  found, expected = (
    [{key: value for key, value in line.items() if key not in TIMES} for line in lines_of(place)]
    for place in (path, trained[0])
  )
  assert found == expected


def test_a_run_starts_from_the_masked_network_and_tells_what_becomes_of_its_zeros(
  trained, tmp_path, capsys
):
  workdir, _ = trained
  start = dict(init_from=str(workdir), epochs=1.0)
  config = straight(**start)
  config.straight_through.update(begin_epochs=0.0, end_epochs=0.5, density='.*=0.05')
  summary = sparsejax.run(config, workdir=tmp_path / 'again')
  assert summary['active_weights'] == round(0.05 * sum(WEIGHTS.values()))
  told = capsys.readouterr().out
  assert f'{sum(KEPT.values()):,} of its 50,200 weights are active, and the others will' in told
  assert "train again, as 'straight_through' has it" in told
  held = base.get_config((*SGD, 'hold'))
  held.update(epochs=1.0, batch_size=32, init_from=str(workdir))
  sparsejax.run(held, workdir=tmp_path / 'held')
  assert active(sparsejax.load(tmp_path / 'held').variables) == KEPT


def test_units_go_in_multiples(tmp_path):
  """Half of 300 and of 100 units, rounded down to a multiple of 8."""
  config = base.get_config((*SGD, 'prune'))
  config.update(epochs=1.0, batch_size=32)
  config.prune.update(begin_epochs=0.5, parameters='kernels', exclude=('fc3',), density=0.5)
  config.prune.update(allocation='uniform', granularity='filters', in_multiples=8)
  sparsejax.run(config, workdir=tmp_path / 'run')
  params = sparsejax.load(tmp_path / 'run').variables['params']
  units = {name: int(np.any(params[name]['kernel'] != 0, 0).sum()) for name in WEIGHTS}
  assert units == {'fc1': 144, 'fc2': 48, 'fc3': 10}
