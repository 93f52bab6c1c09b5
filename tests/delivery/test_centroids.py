"""Training shared values: clusters move together, zeros stay, the best by validation is kept."""

import pathlib

import experiments
import jax
import numpy as np
import pytest

from sparsejax import models
from sparsejax.delivery import centroids, request, shipped_network

pytestmark = pytest.mark.usefixtures('compiling_is_quick', 'one_device')


@pytest.fixture(scope='module')
def experiment():
  return experiments.build(experiments.QUICK, '--config.model.width=8', '--config.data.limit=128')


@pytest.fixture(scope='module')
def half(experiment):
  """The network with half of its weights, and how it is evaluated."""
  variables = {'batch_stats': {}, **experiment.init_variables()}
  params = jax.tree.map(lambda leaf: leaf * (leaf > 0) if leaf.ndim > 1 else leaf, variables)
  evaluate = shipped_network.make_evaluation(experiment, experiment.model)
  return shipped_network.Network(experiment.model, params), evaluate


def asked(**changes):
  plain = request.read(['--run=a', '--out=b', '--bits=2', '--epochs=2', '--learning_rate=0.01'])
  assert plain.run == pathlib.Path('a')
  return plain._replace(**changes)


def kernels(variables):
  return {name: np.asarray(layer['kernel']) for name, layer in variables['params'].items()}


def test_clusters_move_together_and_zeros_stay(experiment, half):
  model, evaluate = half
  shared, bits = centroids.share_weights(model.variables, asked(), evaluate)
  found = centroids.train(
    experiment, shipped_network.Network(model.model, shared), asked(), evaluate
  )
  assert bits == 2
  before, after = kernels(shared), kernels(found)
  for name in before:
    np.testing.assert_array_equal(before[name] == 0, after[name] == 0)
    pairs = set(zip(before[name].ravel().tolist(), after[name].ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(before[name])) <= 5
  assert any(not np.array_equal(before[name], after[name]) for name in before)
  loss = 'validation_loss'
  assert evaluate(found, 'validation')[loss] < evaluate(shared, 'validation')[loss]


def test_training_that_makes_validation_worse_is_discarded(experiment, half):
  model, evaluate = half
  shared, _ = centroids.share_weights(model.variables, asked(), evaluate)
  wild = asked(learning_rate=1e6, epochs=1)
  found = centroids.train(experiment, shipped_network.Network(model.model, shared), wild, evaluate)
  jax.tree.map(np.testing.assert_array_equal, found, shared)


def test_the_fewest_bits_are_the_first_within_the_tolerance(half):
  variables, tried = half[0].variables, []

  def evaluate(found, split):
    values = max(len(np.unique(kernel)) for kernel in kernels(found).values())
    tried.append(values)
    return {'validation_accuracy': 0.9 if values > 17 else 0.5 if values > 9 else 0.4}

  found, bits = centroids.share_weights(variables, asked(bits='auto', tolerance=0.0), evaluate)
  assert bits == 5
  assert max(len(np.unique(kernel)) for kernel in kernels(found).values()) > 17
  assert len(tried) == 5  # the network itself, and 2 to 5 bits
  _, bits = centroids.share_weights(variables, asked(bits='auto', tolerance=0.45), evaluate)
  assert bits == 4


def test_a_network_that_cannot_be_made_smaller_is_unchanged(half, monkeypatch, capsys):
  def refused(*arguments):
    raise ValueError('keep the variables as they are')

  monkeypatch.setattr(models, 'remove_dead', refused)
  monkeypatch.setattr(models, 'shrink', refused)
  assert shipped_network.without_dead_weights(half[0], (8, 8, 1)) is half[0]
  assert shipped_network.shrink(half[0], (8, 8, 1)) is half[0]
  said = capsys.readouterr().out
  assert 'only zero weights are removed: keep the variables' in said
  assert 'the arrays of the network keep their shapes: keep the variables' in said
