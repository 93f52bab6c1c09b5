"""Runs on a text pass through all that runs on images do: a tiny transformer on the grammar."""

import json
import math
from unittest import mock

import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from experiments import build

import sparsejax
from sparsejax import models
from sparsejax.experiment.chain import optimizer
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.step import steps
from sparsejax.experiment.training.writers import Writers

pytestmark = pytest.mark.usefixtures('compiling_is_quick', '_from_the_root')

DENSE = (
  '--config=configs/transformer.py',
  '--config.model.width=16',
  '--config.model.depth=1',
  '--config.model.heads=2',
  '--config.data.name=grammar',
  '--config.data.context=16',
  '--config.data.limit=64',
  '--config.batch_size=16',
  '--config.epochs=2.0',
  '--config.evaluation.batch_size=4096',
  '--config.log.every_steps=3',
)
GRADUAL = (
  DENSE[0] + ':0.25',
  *DENSE[1:],
  '--config.prune.begin_steps=1',
  '--config.prune.end_steps=5',
  '--config.prune.every_steps=2',
)
RIGL = (
  *GRADUAL,
  "--config.chain=('prune',)",
  "--config.prune.inner=('scale_by_adam', 'scale_by_learning_rate')",
  '--config.prune.schedule=periodic',
  '--config.prune.update_rule=rigl',
)
SPARSE_VD = (
  *DENSE,
  "--config.chain=('add_kl_gradients', 'adam')",
  '--config.adam.learning_rate=0.01',
  '--config.layers=sparse_vd',
)


def launch(workdir, arguments):
  status, stdout, stderr = commands.launch(*arguments, f'--workdir={workdir}')
  assert status == 0, stderr
  return stdout


def test_the_loss_is_the_mean_over_the_positions_of_all_windows():
  experiment = build(*DENSE)
  variables = experiment.init_variables()
  dataset = experiment.dataset
  part = dataset.test._replace(images=dataset.test.images[:30], labels=dataset.test.labels[:30])
  evaluate = steps.make_evaluation(experiment.model, experiment.preprocessing, batch_size=8)
  found = evaluate(variables['params'], {}, steps.put_on_devices(part))  # the last batch is padded
  logits = experiment.model.apply(variables, part.images, train=False)
  loss = optax.softmax_cross_entropy_with_integer_labels(logits, part.labels).mean()
  accuracy = jnp.mean(jnp.argmax(logits, -1) == part.labels)
  np.testing.assert_allclose(found, (loss, accuracy), rtol=1e-6)


def test_bytes_reach_the_network_as_they_are():
  preprocessing = build(*DENSE).preprocessing
  every = jnp.arange(256, dtype=jnp.uint8)[None]
  keys = jax.random.split(jax.random.key(0), 1)
  for seen in (preprocessing.evaluate(every), preprocessing.train(keys, every)):
    np.testing.assert_array_equal(jnp.rint(seen), every)


def test_a_killed_run_that_goes_on_is_the_run_left_alone_to_the_bit(tmp_path):
  """Pruned gradually, with its figures: a perplexity is the exponential of a mean loss."""
  alone, stopped = tmp_path / 'alone', tmp_path / 'stopped'
  launch(alone, GRADUAL)
  append = Writers.append

  class Killed(BaseException):
    pass

  def append_or_end(self, line):
    if line['step'] > 5:
      raise Killed
    append(self, line)

  with mock.patch.object(Writers, 'append', append_or_end), pytest.raises(Killed):
    launch(stopped, GRADUAL)
  assert 'going on from step 4' in launch(stopped, GRADUAL)
  assert commands.metrics(alone) == commands.metrics(stopped)
  assert commands.summary(alone) == commands.summary(stopped)
  summary = json.loads((alone / 'summary.json').read_text())
  for split in ('train', 'validation', 'test'):
    loss = summary[f'{split}_loss']
    assert summary[f'{split}_perplexity'] == pytest.approx(math.exp(loss))
    assert summary[f'{split}_bits_per_byte'] == pytest.approx(loss / math.log(2))
  model = sparsejax.load(alone).model
  assert (model.width, model.depth, model.heads) == (16, 1, 2)
  layers = summary['layers']
  assert layers.pop('classifier')['active_weights'] == 16 * 256
  assert all(4 * layer['active_weights'] == layer['weights'] for layer in layers.values())
  products = 2 * 16 * 16 * 16
  assert summary['macs'] == 16 * summary['weights'] + products
  assert summary['active_macs'] == 16 * summary['active_weights'] + products
  assert commands.metrics(alone)[-1]['active_macs'] == summary['active_macs']


@pytest.mark.parametrize('arguments', [RIGL, SPARSE_VD], ids=['rigl', 'sparse_vd'])
def test_other_methods_run_on_it(tmp_path, arguments):
  launch(tmp_path, arguments)
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert 0 < summary['active_weights'] <= summary['weights']
  assert math.isfinite(summary['test_perplexity'])


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--config.data.flip=True'], 'data.flip=True must be False for a text'),
    (['--config.data.scale=centred'], "data.scale=centred must be 'standardised' for a text"),
    (['--config.data.split=first'], "data.split='first' is never read"),
    (['--config.data.validation=3'], 'data.validation=3 must be None'),
    (
      ['--config.model.name=lenet300', '--config.model.depth=None', '--config.model.heads=None'],
      'LeNet300: images.shape',
    ),
    (['--config.data.name=digits', '--config.data.context=None'], 'Transformer: inputs.shape'),
  ],
)
def test_what_a_text_cannot_have_is_refused(flags, message):
  status, _, stderr = commands.launch(*DENSE, *flags)
  assert status == 2
  assert message in stderr


def test_the_kl_is_divided_by_the_bytes_that_are_predicted():
  """The data term is the mean over these, so that the sum is the objective of the whole text."""
  clock = build(*DENSE).clock
  assert clock.labels == 16 * clock.examples
  model = models.create('lenet300', layers='sparse_vd', width=2)
  params = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), train=False)['params']
  zeros = jax.tree.map(jnp.zeros_like, params)

  def added(labels_per_example):
    clock = Clock(examples=6, batch_size=2, epochs=1, labels_per_example=labels_per_example)
    rate = {'learning_rate': 1.0}
    blocks = {'add_kl_gradients': {'weight': 1.0}, 'scale_by_learning_rate': rate}
    link = optimizer.build(tuple(blocks), blocks, clock)
    return link.update(zeros, link.init(params), params)[0]

  for one, four in zip(jax.tree.leaves(added(1)), jax.tree.leaves(added(4)), strict=True):
    np.testing.assert_allclose(one, 4 * four, rtol=1e-6)
