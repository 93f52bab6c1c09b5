"""Four devices train as one: the same losses, the same masks, the same state on every replica."""

from unittest import mock

import commands
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import sparsejax
from configs import quickstart
from sparsejax import models
from sparsejax.experiment.config import base
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.rundir.state import initial
from sparsejax.experiment.step.steps import Arrays, Preprocessing, make_train_step
from sparsejax.experiment.training import setup

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

RUN = (
  '--config=configs/quickstart.py',
  '--config.epochs=2.0',
  '--config.prune.begin_epochs=0.3',  # step 12 of 37 in the first epoch
  '--config.log.every_steps=1',
)


def test_losses_and_masks_do_not_depend_on_the_number_of_devices(tmp_path):
  runs = {}
  for devices in (1, 4):
    workdir = tmp_path / f'on{devices}'
    status, _, stderr = commands.launch(*RUN, f'--workdir={workdir}', devices=devices)
    assert status == 0, stderr
    runs[devices] = commands.metrics(workdir), commands.summary(workdir)
  (one, of_one), (four, of_four) = runs.values()
  assert [line['step'] for line in one] == [line['step'] for line in four]
  losses = [[line['train_loss'] for line in lines if 'train_loss' in line] for lines in (one, four)]
  # Sums taken in another order differ by rounding, until a unit whose input is nearly zero is on
  # in one run and off in the other. That takes one in 1e6 inputs, some hundred steps of this
  # network; a wrong gradient, batch or mask shows at once.
  np.testing.assert_allclose(losses[0][:11], losses[1][:11], rtol=1e-5)
  np.testing.assert_allclose(losses[0][:20], losses[1][:20], rtol=1e-2)
  validation = [lines[-1]['validation_loss'] for lines in (one, four)]
  np.testing.assert_allclose(*validation, rtol=0.2)
  assert of_one['active_weights'] == of_four['active_weights'] == 2510
  masks = [_masks(tmp_path / f'on{devices}') for devices in runs]
  assert len(masks[0]) == 3
  for path, mask in masks[0].items():
    disagree = np.sum(mask != masks[1][path])
    # Rounding may swap the last weight that stays with the first that goes.
    assert disagree <= 0.002 * mask.size, path


def _masks(workdir):
  """The kernels' masks of a run's last checkpoint: where its parameters are not zero."""
  newest = checkpoint.committed(workdir / 'checkpoints')[-1]
  with ocp.StandardCheckpointer() as checkpointer:
    arrays = checkpointer.restore((newest / checkpoint.ARRAYS).absolute())
  params = arrays['train']['params']
  return {layer: np.asarray(leaves['kernel']) != 0 for layer, leaves in params.items()}


def test_replicas_agree_on_masks_and_parameters_to_the_bit():
  """Each shard of all state after a cut, with a random criterion, four devices."""
  rng = np.random.default_rng(0)
  dataset = Arrays(
    rng.integers(0, 256, (64, 8, 8, 1)).astype(np.uint8), rng.integers(0, 10, 64).astype(np.int32)
  )
  model = models.create('lenet300', width=12)
  tx = optax.chain(
    optax.sgd(0.1, momentum=0.9),
    sparsejax.prune(sparsejax.one_shot(2, 0.3), criterion=sparsejax.criteria.random),
  )
  preprocessing = Preprocessing((0.5,), (0.5,))
  step = make_train_step(model, tx, preprocessing, batch_size=16, steps_per_epoch=4)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
  train, data = parallel.replicate((initial(variables, tx, 0).train, dataset))
  order = parallel.replicate(jnp.arange(64))
  for new, _ in parallel.train_calls(step, convolutional=False)(train, data, order, 4):
    train = new
  masks = optax.tree.get(train.opt_state, 'masks')
  assert sum(int(jnp.sum(~mask)) for mask in jax.tree.leaves(masks)) > 0
  for leaf in jax.tree.leaves(train._replace(key=jax.random.key_data(train.key))):
    shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
    assert len(shards) == 4
    assert all(np.array_equal(shard, shards[0]) for shard in shards)


@pytest.mark.parametrize(
  ('stats', 'least'),
  [([None], None), ([{}], None), ([{'bytes_limit': 80}, {'bytes_limit': 30}], 30)],
)
def test_a_network_must_fit_into_the_memory_of_a_device(monkeypatch, stats, least):
  devices = [mock.Mock(memory_stats=lambda one=one: one) for one in stats]
  with mock.patch.object(parallel.jax, 'local_devices', return_value=devices):
    assert parallel.least_memory() == least
  monkeypatch.setattr(parallel, 'least_memory', lambda: least)
  config = base.complete(quickstart.get_config()).to_dict()
  if least is None:  # that of the machine is enough
    setup.build(config)
  else:
    with pytest.raises(ValueError, match=r'GiB for training, whatever the batch; a device has 0'):
      setup.build(config)


def test_a_batch_that_the_devices_cannot_share_is_refused():
  with pytest.raises(
    ValueError, match='batch_size=6 must be a multiple of the number of devices, 4'
  ):
    parallel.per_replica_batch_size(6, 'batch_size')
  assert parallel.per_replica_batch_size(8, 'batch_size') == 2


def test_every_example_of_a_batch_goes_to_one_replica():
  seen = parallel.map_replicas(
    lambda start: jax.lax.all_gather(parallel.batch_indices(start, 3), parallel.AXIS)
  )
  assert sorted(np.ravel(seen(jnp.int32(24))).tolist()) == list(range(24, 36))


def test_join_averages_and_total_sums():
  def function(x):
    mine = x * (1 + jax.lax.axis_index(parallel.AXIS))
    return parallel.join(mine), parallel.total(mine)

  mean, total = parallel.map_replicas(function)(jnp.float32(2.0))
  assert (float(mean), float(total)) == (5.0, 20.0)


@pytest.mark.parametrize('convolutional', [False, True])
def test_calls_make_the_steps_asked_for_and_compile_once(convolutional):
  traces = []

  def step(state, data, order):
    traces.append(None)
    return state + parallel.join(data[order[0]])

  run = parallel.train_calls(step, convolutional=convolutional)
  state = parallel.replicate(jnp.float32(0))
  data, order = parallel.replicate((jnp.arange(3.0), jnp.array([2, 0, 1])))
  done = 0
  for count in (1, 4, 2):
    for new, made in run(state, data, order, count):
      state, done = new, done + made
  assert done == 7
  assert float(state) == 14.0
  assert len(traces) == 1


def test_replicas_draw_different_noise():
  gathered = parallel.map_replicas(
    lambda key: jax.lax.all_gather(jax.random.bits(parallel.fold_in_replica(key)), parallel.AXIS)
  )(jax.random.key(0))
  assert len(set(np.asarray(gathered).tolist())) == 4
