"""The benchmark: its keys, what follows from times, its other side. No time is asserted."""

import json
import math
import mmap
import os
import subprocess
import sys
import time

import commands
import jax
import pytest
from experiments import QUICK, build

from sparsejax import benchmark, models
from sparsejax.benchmarks import memory, peer, programs, step_figures
from sparsejax.experiment.config import commandline
from sparsejax.experiment.machine import allocator, threads

KEYS = (
  *('examples_per_second', 'step_seconds', 'compile_seconds', 'flops_per_example'),
  *('achieved_flops', 'matmul_flops', 'utilisation', 'chain_overhead', 'peak_bytes'),
  *('peer_examples_per_second', 'ratio'),
)
VARIATIONAL = "('add_kl_gradients','scale_by_adam','scale_by_learning_rate')"
TORCH_PYTHON = os.environ.get('SPARSEJAX_TORCH_PYTHON', sys.executable)

# Answers as the process of PyTorch does, with times of its own choice; one way fails.
STAND_IN = """#!{python}
import json, sys
asked = json.loads(sys.stdin.readline())
ways = {ways}
print(json.dumps(dict(version='0', variants=list(ways), layers={layers})), flush=True)
for line in sys.stdin:
  question = json.loads(line)
  seconds = ways[question['variant']]
  works = seconds is not None
  answer = dict(seconds=seconds * question['steps']) if works else dict(failed='no compiler')
  print(json.dumps(answer), flush=True)
"""

pytestmark = pytest.mark.usefixtures('compiling_is_quick', '_from_the_root')


def run(*arguments, environment=None):
  """The command as a process of its own: (status, stdout, stderr)."""
  done = subprocess.run(
    [sys.executable, '-m', 'sparsejax.benchmark', *arguments],
    cwd=commands.ROOT,
    env=environment or commands.environment(),
    capture_output=True,
    text=True,
  )
  return done.returncode, done.stdout, done.stderr


def stand_in(path, ways, layers):
  path.write_text(STAND_IN.format(python=sys.executable, ways=ways, layers=layers))
  path.chmod(0o755)
  return str(path)


def test_the_command_prints_and_writes_every_figure_and_a_trace(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(allocator, 'keep_freed_memory', lambda: None)  # it would be for good
  out, trace = tmp_path / 'figures.json', tmp_path / 'trace'
  arguments = ['benchmark', QUICK, '--rounds=1', f'--out={out}', f'--profile={trace}']
  with commands.on_devices(1):
    assert benchmark.main(arguments) == 0
  figures = json.loads(capsys.readouterr().out)
  assert json.loads(out.read_text()) == figures
  assert tuple(figures)[: len(KEYS)] == KEYS
  assert figures['peer_examples_per_second'] is None
  assert figures['ratio'] is None
  assert all(figures[key] > 0 for key in KEYS[:-2])
  assert figures['utilisation'] == figures['achieved_flops'] / figures['matmul_flops']
  per_second = figures['flops_per_example'] * figures['examples_per_second']
  assert math.isclose(figures['achieved_flops'], per_second)
  assert figures['memory']['predicted_bytes'] > 0
  assert figures['environment']['threads'] == threads.available()
  assert {'step', 'bare_step', 'product'} <= set(figures['spread'])
  assert list(trace.rglob('perfetto_trace.json.gz'))


def test_a_compilation_takes_no_longer_than_the_call_that_times_it():
  begun = time.perf_counter()
  compiled, seconds = step_figures.timed_compilation(jax.jit(lambda x: x + 1).trace(1.0))
  assert 0 < seconds <= time.perf_counter() - begun
  assert compiled(1.0) == 2


def test_what_follows_from_times():
  times = {
    'step': [2.0, 4.0, 2.0],
    'bare_step': [1.6, 4.0, 1.0],
    'forward': [0.5] * 3,
    'gradient': [1.5] * 3,
    'chain': [0.25] * 3,
    'bare_chain': [0.125] * 3,
    'product': [0.5] * 3,
    'eager': [4.0] * 3,
    'compiled': [3.0, 1.0, 1.0],
  }
  figures = step_figures.speeds(
    times, batch_size=8, flops=100.0, product_flops=50.0, peers=('eager', 'compiled')
  )
  expected = {
    'examples_per_second': 4.0,
    'step_seconds': 2.0,
    'flops_per_example': 12.5,
    'achieved_flops': 50.0,
    'matmul_flops': 100.0,
    'utilisation': 0.5,
    'chain_overhead': 1.25,  # of the ratios in each round 1.25, 1, 2, and not of the medians
    'peer_examples_per_second': 8.0,
    'ratio': 0.5,
    'peers': {'eager': 2.0, 'compiled': 8.0},
  }
  assert {key: figures[key] for key in expected} == expected
  assert figures['parts'] == {
    'forward_seconds': 0.5,
    'backward_seconds': 1.0,
    'chain_seconds': 0.25,
    'bare_chain_seconds': 0.125,
  }
  assert figures['spread']['compiled'] == [1.0, 3.0]


@pytest.mark.parametrize(
  ('config', 'bare'),
  {
    'quickstart': ('add_decayed_weights', 'trace', 'scale_by_learning_rate'),
    'lenet300_rigl': ('add_decayed_weights', 'trace', 'scale_by_learning_rate'),
    'lenet300_sparse_vd': ('scale_by_adam', 'scale_by_learning_rate'),
    'resnet56_weights_rewound': ('add_decayed_weights', 'trace', 'scale_by_learning_rate'),
  }.items(),
)
def test_the_bare_optimizer_is_the_chain_without_the_links_of_sparsity(config, bare):
  settings = commandline.resolve([f'--config=configs/{config}.py'])
  assert programs.bare_chain(settings) == bare


def test_a_chain_without_sparsity_has_no_overhead():
  experiment = build(QUICK, "--config.chain=('trace','scale_by_learning_rate')")
  assert programs.bare_optimizer(programs.Subject(experiment)) == {}
  names = ('step', 'forward', 'gradient', 'chain', 'product')
  times = {name: [1.0, 2.0] for name in names}
  figures = step_figures.speeds(times, batch_size=1, flops=1.0, product_flops=1.0)
  assert figures['chain_overhead'] == 1.0


def test_the_passes_leave_the_parameters_and_the_step_moves_them():
  subject = programs.Subject(build(QUICK))
  kernel = subject.variables['params']['fc1']['kernel']
  for tx, moves in ((programs.FORWARD, False), (programs.GRADIENT, False)):
    step = programs.training_step(subject, tx)
    step(3)
    assert (step._state.params['fc1']['kernel'] != kernel).any() == moves
    assert step._state.step == 3
  step = programs.training_step(subject, subject.experiment.tx)
  step(3)
  assert (step._state.params['fc1']['kernel'] != kernel).any()


def test_operations_are_those_of_the_products_whatever_the_devices():
  subject = programs.Subject(build(QUICK))  # 64 -> 300 -> 100 -> 10, four devices
  forward = 64 * 300 + 300 * 100 + 100 * 10
  back = forward + 300 * 100 + 100 * 10  # the images need no gradient
  flops = programs.step_flops(subject) / 32
  # Beside them what is done to each weight on each device, which a batch of 32 does not hide.
  assert 1 < flops / (2 * (forward + back)) < 1.2


def test_operations_of_convolutions_are_counted_whole():
  data = commands.write_npz(commands.CACHES / f'benchmark-{os.getpid()}.npz', size=16)
  shape, width = (16, 16, 3), 8
  experiment = build(
    QUICK, f'--config.data.name={data}', '--config.model.name=lenet5', '--config.model.width=8'
  )
  positions = models.positions(experiment.model, shape)
  params = jax.eval_shape(experiment.init_variables)['params']
  macs = {name: positions[name] * params[name]['kernel'].size for name in positions}
  assert macs['conv1'] == 12 * 12 * 25 * 3 * width
  expected = 2 * (3 * sum(macs.values()) - macs['conv1'])
  flops = programs.step_flops(programs.Subject(experiment)) / 32
  assert 1 < flops / expected < 1.1


def test_the_peak_is_that_of_the_block():
  size = 2**26

  def run():  # past the allocator, which may keep what is freed
    with mmap.mmap(-1, size) as pages:
      pages.write(bytes(size))

  held = memory.peak_during(run)
  assert held['peak_bytes'] >= held['resident_before_bytes']
  if os.path.exists('/proc/self/clear_refs'):
    assert held['peak_bytes'] - held['resident_before_bytes'] >= size / 2
    assert memory.peak_during(lambda: None)['peak_bytes'] < held['peak_bytes']


REFUSED = {
  'nothing': ([], '--config is missing'),
  'stray argument': ([QUICK, 'stray'], "unexpected argument 'stray'"),
  'unknown flag': ([QUICK, '--wrkdir=x'], "unexpected argument '--wrkdir=x'"),
  'a flag of the launch command': ([QUICK, '--workdir=x'], "unexpected argument '--workdir=x'"),
  'unknown field': ([QUICK, '--config.modle.width=8'], "did you mean 'model.width'"),
  'model': ([QUICK, '--config.model.name=lenet30'], "did you mean 'lenet300'"),
  'batch': ([QUICK, '--config.batch_size=30'], 'batch_size=30 must be a multiple'),
  'block without a link': (
    [QUICK, "--config.chain=('sgd',)", '--config.prune.density=0.1'],
    "'prune' is not in chain, events or layers",
  ),
  'against': ([QUICK, '--against=tensorflow'], "invalid choice: 'tensorflow'"),
  'rounds': ([QUICK, '--rounds=0'], '--rounds=0 must be 1 or more'),
  'not a number': ([QUICK, '--rounds=many'], "'many'"),
  'out': ([QUICK, '--out=nowhere/x.json'], '--out=nowhere/x.json must be a writable file'),
  'folder': ([QUICK, '--out=tests'], '--out=tests must be a writable file'),
  'file of 300 letters': ([QUICK, f'--out={"x" * 300}'], 'must be a file: File name too long'),
  'trace in no folder': ([QUICK, '--profile='], '--profile= must name a folder'),
  'profile': (
    [QUICK, '--profile=launch.py/x'],
    "--profile='launch.py/x' must be a folder: Not a directory",
  ),
  'python': ([QUICK, '--against=torch', '--torch-python=/nowhere'], '--torch-python=/nowhere'),
  'layers': (
    [QUICK, '--against=torch', '--config.layers=sparse_vd', f'--config.chain={VARIATIONAL}'],
    'config.layers=sparse_vd must be deterministic with --against=torch',
  ),
  'dropout': (
    [QUICK, '--against=torch', '--config.model.dropout=0.5'],
    'config.model.dropout=0.5 must be 0.0',
  ),
  'optimizer': (
    [QUICK, '--against=torch', "--config.chain=('adam',)", '--config.adam.learning_rate=0.1'],
    "'adam' is not part of SGD",
  ),
}


@pytest.mark.parametrize(('arguments', 'expected'), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_line_and_status_2(arguments, expected, capsys):
  assert benchmark.main(['benchmark', *arguments]) == 2
  output = capsys.readouterr()
  assert output.out == ''
  assert output.err.count('\n') == 1, output.err
  assert output.err.startswith('benchmark: ')
  assert expected in output.err


def test_a_python_without_pytorch_is_told_how_to_get_it(tmp_path, capsys):
  python = tmp_path / 'python'
  python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # no packages at all
  python.chmod(0o755)
  arguments = ['benchmark', QUICK, '--against=torch', f'--torch-python={python}']
  assert benchmark.main(arguments) == 2
  output = capsys.readouterr()
  assert output.err.count('\n') == 1, output.err
  assert 'pip install torch' in output.err


def test_help_names_every_option(capsys):
  assert benchmark.main(['benchmark', '--help']) == 0
  output = capsys.readouterr().out
  for option in ('--against', '--torch-python', '--out', '--plain', '--profile', '--rounds'):
    assert option in output


def test_the_other_side_is_asked_and_a_way_that_fails_is_left_out(tmp_path):
  experiment = build(QUICK)
  layers = peer.torch_shapes(jax.eval_shape(experiment.init_variables)['params'])
  python = stand_in(tmp_path / 'python', {'eager': 0.5, 'compiled': None}, layers)
  chain = programs.bare_chain(experiment.config)
  with peer.Peer(python, experiment, chain, threads=1) as other:
    other.prepare()
    assert other.variants == ('eager',)
    assert other.failures == {'compiled': 'PyTorch: no compiler'}
    figures = step_figures.measure(experiment, peer=other, count=1)
  assert figures['peer_examples_per_second'] == 64.0
  assert figures['ratio'] == figures['examples_per_second'] / 64.0
  assert figures['environment']['torch'] == '0'


def test_another_network_on_the_other_side_is_no_comparison(tmp_path, capsys):
  python = stand_in(tmp_path / 'python', {'eager': 0.5}, {'fc1.weight': [300, 65]})
  arguments = ['benchmark', QUICK, '--against=torch', f'--torch-python={python}']
  assert benchmark.main(arguments) == 1
  assert capsys.readouterr().err == "benchmark: PyTorch: 'fc1.bias' is None there and [300] here\n"


def test_a_process_that_ends_leaves_its_last_words(tmp_path, capsys):
  python = tmp_path / 'python'
  python.write_text('#!/bin/sh\necho out of memory >&2\nexit 1\n')
  python.chmod(0o755)
  arguments = ['benchmark', QUICK, '--against=torch', f'--torch-python={python}']
  assert benchmark.main(arguments) == 1
  assert capsys.readouterr().err == 'benchmark: PyTorch: its process ended: out of memory\n'


def test_what_the_other_side_has_to_know():
  experiment = build(QUICK, '--config.data.flip=True', '--config.model.dtype=bfloat16')
  asked = peer.request(experiment, programs.bare_chain(experiment.config))
  assert json.loads(json.dumps(asked)) == asked
  assert asked['optimizer'] == {
    'lr': pytest.approx(0.05),
    'weight_decay': 5e-4,
    'momentum': 0.9,
    'nesterov': False,
  }
  assert (asked['model'], asked['width'], asked['batch_size']) == ('lenet300', 300, 32)
  assert (asked['dtype'], asked['flip'], asked['crop_padding']) == ('bfloat16', True, 0)


def test_every_network_there_is_ours_layer_by_layer():
  program = """
import json, sys
sys.path.insert(0, sys.argv[1])
try:
  import torch, models
except ImportError:
  sys.exit(3)
shapes = {name: [28, 28, 1] if 'lenet' in name else [32, 32, 3] for name in models.MODELS}
with torch.device('meta'):
  print(json.dumps([
    (name, shape, models.layers(models.MODELS[name](shape, 10, int(sys.argv[2]))))
    for name, shape in shapes.items()
  ]))
"""
  width = 24
  done = subprocess.run(
    [TORCH_PYTHON, '-c', program, str(peer.PROGRAM), str(width)], capture_output=True, text=True
  )
  if done.returncode == 3:
    pytest.skip(f'no PyTorch in {TORCH_PYTHON}; SPARSEJAX_TORCH_PYTHON names one that has it')
  assert done.returncode == 0, done.stderr
  theirs = json.loads(done.stdout)
  ours = {name for name in models.MODELS if 'butterfly' not in name}
  assert {name for name, _, _ in theirs} == ours - {'transformer'}
  for name, shape, layers in theirs:
    model = models.create(name, width=width)
    images = jax.ShapeDtypeStruct((1, *shape), 'float32')
    init = jax.eval_shape(lambda x, m=model: m.init(jax.random.key(0), x, train=False), images)
    peer.check_layers(peer.torch_shapes(init['params']), layers)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='there is such a device')
def test_a_gpu_that_is_not_there_is_refused_though_the_processor_is_asked_for_counting():
  environment = commands.environment() | {'JAX_PLATFORMS': 'cuda'}
  status, stdout, stderr = run(QUICK, environment=environment)
  assert (status, stdout) == (2, '')
  assert stderr.splitlines()[-1].startswith('benchmark: JAX_PLATFORMS=cuda: JAX finds no such')
