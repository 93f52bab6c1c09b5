"""The same network in PyTorch: a process of its own, which runs a block of steps on request.

The two exchange lines of JSON over the process's input and output. It may run another Python.
"""

import json
import pathlib
import subprocess
import tempfile
from typing import Any

import jax
import numpy as np

from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.training.posterior import DETERMINISTIC
from sparsejax.experiment.training.setup import Experiment
from sparsejax.internal.timing import Timed

PROGRAM = pathlib.Path(__file__).parent / 'torch_peer'
# The arguments of PyTorch's SGD for each Optax transformation, with Optax's defaults.
SGD = {
  'add_decayed_weights': {'weight_decay': 0.0},
  'trace': {'decay': 0.9, 'nesterov': False},
  'scale_by_learning_rate': {},
  'sgd': {'momentum': 0.0, 'nesterov': False},
}


class PeerError(RuntimeError):
  """The other process ended, or its answer is impossible."""


class Peer:
  """PyTorch's side of a comparison, until `close`.

  Args:
    python: the interpreter that has PyTorch.
    experiment: the experiment whose network, batch, precision and optimizer PyTorch takes over.
    chain: the transformations of the optimizer, without those for sparsity.
    threads: the number of threads that it may use.

  Raises:
    UsageError: the interpreter does not exist, it has no PyTorch, or PyTorch has no counterpart to
      compare with.
  """

  def __init__(self, python: str, experiment: Experiment, chain: tuple[str, ...], threads: int):
    settings = request(experiment, chain) | {'threads': threads}
    self._folder = tempfile.TemporaryDirectory()
    folder = pathlib.Path(self._folder.name)
    split = experiment.dataset.train
    split.images.tofile(folder / 'images')
    np.asarray(split.labels, np.int64).tofile(folder / 'labels')
    self._errors = folder / 'errors'
    try:
      with self._errors.open('w') as errors:
        self._process = subprocess.Popen(
          [python, str(PROGRAM)],
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          stderr=errors,
          text=True,
        )
    except OSError as error:
      self._folder.cleanup()
      raise UsageError(f'--torch-python={python}: {error.strerror}') from error
    try:
      answer = self.ask(settings | {'folder': str(folder)})
      self.version, self.variants = answer['version'], tuple(answer['variants'])
      self.failures: dict[str, str] = {}  # why a variant does not run here
      params = jax.eval_shape(experiment.init_variables)['params']
      check_layers(torch_shapes(params), answer['layers'])
    except BaseException:
      self.close()
      raise

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()

  def prepare(self) -> None:
    """Makes a first step of every variant, which compiles it, and keeps the variants that ran.

    Raises:
      PeerError: no variant ran.
    """
    for variant in self.variants:
      try:
        self.timed(variant)(1)
      except PeerError as error:
        self.failures[variant] = str(error)
    self.variants = tuple(name for name in self.variants if name not in self.failures)
    if not self.variants:
      raise PeerError(next(iter(self.failures.values())))

  def timed(self, variant: str) -> Timed:
    """Returns a function from a number of steps to the seconds that this variant takes for them."""
    return lambda steps: self.ask({'variant': variant, 'steps': steps})['seconds']

  def ask(self, question: dict[str, Any]) -> dict[str, Any]:
    """Returns the answer to a question.

    Raises:
      UsageError: the answer refuses the question.
      PeerError: no answer came, or the answer says what went wrong.
    """
    stdin, stdout = self._process.stdin, self._process.stdout
    assert stdin is not None  # both are pipes
    assert stdout is not None
    try:
      stdin.write(json.dumps(question) + '\n')
      stdin.flush()
      line = stdout.readline()
    except BrokenPipeError:
      line = ''
    if not line:
      raise PeerError(f'PyTorch: its process ended: {self._last_words()}')
    answer = json.loads(line)
    if 'refused' in answer:
      raise UsageError(f'--against=torch: {answer["refused"]}')
    if 'failed' in answer:
      raise PeerError(f'PyTorch: {answer["failed"]}')
    return answer

  def _last_words(self) -> str:
    self._process.wait()
    lines = [line for line in self._errors.read_text().splitlines() if line]
    return lines[-1] if lines else f'status {self._process.returncode}'

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.communicate()
    self._folder.cleanup()


def request(experiment: Experiment, chain: tuple[str, ...]) -> dict[str, Any]:
  """Returns the settings of an experiment that the other process needs.

  Raises:
    UsageError: something in the experiment has no counterpart in PyTorch.
  """
  config, preprocessing = experiment.config, experiment.preprocessing
  for field, value, allowed in (
    ('layers', config['layers'], DETERMINISTIC),
    ('model.dropout', config['model']['dropout'], 0.0),
    ('model.widths', config['model']['widths'], {}),
  ):
    if value != allowed:
      raise UsageError(f'config.{field}={value} must be {allowed} with --against=torch')
  return {
    'model': config['model']['name'],
    'width': experiment.model.width,
    'num_classes': experiment.model.num_classes,
    'dtype': config['model']['dtype'],
    'device': 'cpu' if jax.default_backend() == 'cpu' else 'cuda',
    'batch_size': experiment.clock.batch_size,
    'image_shape': list(experiment.image_shape),
    'mean': np.asarray(preprocessing.mean).tolist(),
    'std': np.asarray(preprocessing.std).tolist(),
    'crop_padding': preprocessing.crop_padding,
    'flip': preprocessing.flip,
    'optimizer': sgd(config, chain) | {'lr': float(experiment.learning_rate(0))},
  }


def sgd(blocks: Any, chain: tuple[str, ...]) -> dict[str, Any]:
  """Returns the arguments of `torch.optim.SGD`, except the learning rate, for a chain of SGD.

  Raises:
    UsageError: the chain has a transformation that is not part of SGD.

  Example:
    >>> sgd({'trace': {'decay': 0.5}}, ('trace', 'scale_by_learning_rate'))
    {'weight_decay': 0.0, 'momentum': 0.5, 'nesterov': False}
  """
  if unknown := set(chain) - set(SGD):
    raise UsageError(
      f"config.chain={chain}: '{min(unknown)}' is not part of SGD; with --against=torch give only "
      f'{", ".join(SGD)} and sparsity transformations'
    )
  settings = {name: SGD[name] | dict(blocks.get(name) or {}) for name in chain}
  decay = settings.get('add_decayed_weights', {}).get('weight_decay', 0.0)
  momentum = settings.get('trace') or settings.get('sgd') or {}
  return {
    'weight_decay': decay,
    'momentum': momentum.get('decay', momentum.get('momentum')) or 0.0,
    'nesterov': momentum.get('nesterov', False),
  }


def torch_shapes(params: Any) -> dict[str, list[int]]:
  """Returns the shape of every parameter by its name, with the axes in PyTorch's order."""
  shapes = {}
  for path, leaf in jax.tree.leaves_with_path(params):
    *layer, name = (part.key for part in path)
    # Ours are (height, width, inputs, outputs) and (inputs, outputs); PyTorch's outputs come first.
    axes = (3, 2, 0, 1) if leaf.ndim == 4 else range(leaf.ndim)[::-1]
    name = {'kernel': 'weight', 'scale': 'weight'}.get(name, name)
    shapes['.'.join((*layer, name))] = [leaf.shape[axis] for axis in axes]
  return shapes


def check_layers(ours: dict[str, list[int]], theirs: dict[str, list[int]]) -> None:
  """Raises a PeerError that names a parameter that PyTorch lacks or has in another shape.

  Example:
    >>> check_layers({'fc1.bias': [300]}, {'fc1.bias': [100]})
    Traceback (most recent call last):
    sparsejax.benchmarks.peer.PeerError: PyTorch: 'fc1.bias' is [100] there and [300] here
  """
  for name in sorted({*ours, *theirs}):
    if ours.get(name) != theirs.get(name):
      raise PeerError(f"PyTorch: '{name}' is {theirs.get(name)} there and {ours.get(name)} here")
