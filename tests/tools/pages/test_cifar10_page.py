"""The page on CIFAR-10: costs worked by hand, and every row in its table."""

import json

import jax
import jax.numpy as jnp
import pytest

from configs import cifar10_short
from sparsejax.experiment.chain import rates
from sparsejax.experiment.chain.durations import Clock
from tools.pages import kept
from tools.pages.cifar10 import figures as cifar10_figures
from tools.pages.cifar10 import page as cifar10_page
from tools.pages.cifar10 import plan as cifar10
from tools.pages.cifar10 import rows as cifar10_rows

LAYERS = {
  'conv1': {'weights': 80, 'active_weights': 8, 'units': 8},
  'fc': {'weights': 20, 'active_weights': 0, 'units': 10},
}
EVALUATIONS = (  # (step, active multiply-accumulates): dense, cut in one step, then falling
  (0, 100),
  (1, 10),
  (11, 10),
  (21, 6),
)


def write(folder, *, cut=True, layers='deterministic'):
  """A kept run of 21 steps of 4 examples."""
  folder.mkdir(parents=True)
  prune = {'density': 0.1, 'allocation': 'global_rank', 'parameters': 'all', 'exclude': []}
  config = {'layers': layers, 'method': 'a method'}
  config |= {'prune': prune | {'floor': 1}} if cut else {}
  figures = {'parameters': 120, 'active_parameters': 12, 'weights': 100, 'active_weights': 8}
  figures |= {'scales': 8, 'active_scales': 2, 'macs': 100, 'epochs': 20.0, 'seconds': 7200}
  figures |= {'test_accuracy': 0.8, 'validation_accuracy': 0.81, 'active_fraction': 0.1}
  figures |= {'compression': 12.5, 'theoretical_speedup': 16.7, 'sparsity': 0.92, 'seed': 0}
  lines = [
    {'step': step, 'epoch': step / 1.05, 'examples': 4 * step, 'active_macs': macs}
    | {'validation_loss': 1.0, 'validation_accuracy': 0.8, 'active_fraction': 0.1}
    | {'below_1e-3': 0.9}
    for step, macs in (EVALUATIONS if cut else [(0, 100), (21, 100)])
  ]
  start = {'cpus': 2, 'processor': 'a chip', 'backend': 'cpu', 'python': '3.11', 'devices': ['cpu']}
  start |= {'versions': {'jax': '0.10'}, 'git_commit': '0123456789'}
  summary = {'method': 'a method', 'layers': LAYERS} | figures
  for name, content in (('config', config), ('summary', summary), ('environment', [start])):
    (folder / f'{name}.json').write_text(json.dumps(content))
  text = ''.join(json.dumps(line) + '\n' for line in [{'step': 3, 'epoch': 3}, *lines])
  (folder / 'metrics.jsonl').write_text(text)
  return folder


@pytest.fixture
def _kept(tmp_path, monkeypatch):
  """A trunk and a cut of vgg16, and nothing else."""
  monkeypatch.setattr(kept, 'RESULTS', tmp_path)
  monkeypatch.setattr(cifar10_page, 'FOLDER', tmp_path / 'cifar10')
  write(tmp_path / 'cifar10' / 'vgg16_trunk' / 'seed0', cut=False)
  write(tmp_path / 'cifar10' / 'vgg16_exact_1_percent' / 'seed0')


@pytest.mark.usefixtures('_kept')
def test_training_costs_six_flops_for_each_multiply_accumulate_that_is_left():
  rows = cifar10_rows.rows()
  # Half of the step of the cut is dense; then 10 steps at 10, and 10 that fall from 10 to 6.
  cut = 6 * 4 * (55 + 10 * 10 + 10 * 8)
  assert rows['vgg16_exact_1_percent'].values('training_flops') == [cut]
  assert rows['vgg16_trunk'].values('training_flops') == [6 * 4 * 21 * 100]
  assert rows['vgg16_exact_1_percent'].whole('training_flops') == [cut + 6 * 4 * 21 * 100]


def test_a_posterior_costs_twice_the_dense_network(tmp_path):
  run = cifar10_rows.read(write(tmp_path / 'run', layers='sparse_vd'))
  assert run.training_flops == 2 * 6 * 4 * 21 * 100


@pytest.mark.usefixtures('_kept')
def test_a_row_has_the_epochs_and_hours_of_its_trunk_too():
  row = cifar10_rows.rows()['vgg16_exact_1_percent']
  assert row.epochs == 40
  assert row.whole('hours') == [4.0]
  assert row.values('layers_emptied') == [1]


@pytest.mark.usefixtures('_kept')
def test_every_row_is_in_a_table_once_and_those_without_a_run_say_so(tmp_path):
  cifar10_page.write()
  text = (tmp_path / 'cifar10' / 'README.md').read_text()
  tables = text[text.index('\n## vgg16') :].split('\n')
  for entry in (*cifar10.SHORT_ROWS, *cifar10.GPU_ROWS):
    network = cifar10_rows.Row(entry, (), ()).network
    begin = tables.index(f'## {network.replace("_width", ", width ")}')
    name = entry.label.removeprefix(f'{network}_')
    own = [line for line in tables[begin:] if line.startswith(f'| {name} |')]
    assert own, entry.label
    is_there = entry.label in ('vgg16_trunk', 'vgg16_exact_1_percent')
    assert ('not run' in own[0]) != is_there
  (cut,) = (line for line in tables if line.startswith('| exact_1_percent |') and '12.5x' in line)
  assert '| global rank, all | 1 | 80.00 | 81.00 | 8 of 100 | 2 of 8 | 1 | 12.5x |' in cut
  assert cut.endswith('| 40 | 5.60e+04 | 4.0 |')


@pytest.mark.usefixtures('_kept')
def test_figures_are_drawn_where_there_are_runs_and_no_others_stay(tmp_path):
  folder = tmp_path / 'cifar10'
  (folder / cifar10_figures.DECAY).write_text('of runs that are gone')
  cifar10_page.write()
  found = {path.name for path in folder.glob('*.png')}
  assert found == {
    cifar10_figures.EXACT,
    cifar10_figures.BY_SIZE,
    cifar10_figures.THROUGH_THE_CUT,
    cifar10_figures.pareto_name('vgg16'),
  }
  text = (folder / 'README.md').read_text()
  assert all(f']({name})' in text for name in found)


def test_the_weight_decays_shrink_as_much_before_the_cut_as_the_logs_did():
  settings = cifar10_short.trunk('resnet20').scale_by_learning_rate.learning_rate.to_dict()
  clock = Clock(examples=45_000, batch_size=128, epochs=cifar10_short.TRUNK_EPOCHS)
  rates_ = jax.vmap(rates.build(settings, clock))(jnp.arange(clock.total_steps))
  for of_log, ours in cifar10.DECAYS.items():
    assert ours * float(rates_.sum()) == pytest.approx(of_log * 0.1 * 60 * 312, rel=1e-3)
