"""Four devices train as one: the same losses, the same masks, the same state on every replica."""

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.experiment import parallel

RUN = (
  '--config=configs/quickstart.py',
  '--config.epochs=12.0',
  '--config.prune.begin_epochs=5.0',
  '--config.log.every_steps=20',
)


def test_losses_and_masks_do_not_depend_on_the_number_of_devices(tmp_path):
  runs = {}
  for devices in (1, 4):
    workdir = tmp_path / f'on{devices}'
    status, _, stderr = commands.launch(tmp_path, *RUN, f'--workdir={workdir}', devices=devices)
    assert status == 0, stderr
    runs[devices] = commands.metrics(workdir), commands.summary(workdir)
  (one, of_one), (four, of_four) = runs.values()
  assert [line['step'] for line in one] == [line['step'] for line in four]
  for key in ('train_loss', 'validation_loss'):
    losses = [[line[key] for line in lines if key in line] for lines in (one, four)]
    assert len(losses[0]) > 3
    np.testing.assert_allclose(*losses, rtol=2e-3)
    np.testing.assert_allclose(losses[0][:3], losses[1][:3], rtol=2e-5)
  assert of_one['active_weights'] == of_four['active_weights'] == 2510
  assert of_one['layers'].keys() == of_four['layers'].keys()


def test_a_batch_that_the_devices_cannot_share_is_refused():
  with pytest.raises(ValueError, match='batch_size=6: allowed is a multiple of the devices, 4'):
    parallel.share_of(6, 'batch_size')
  assert parallel.share_of(8, 'batch_size') == 2


def test_every_example_of_a_batch_goes_to_one_replica():
  seen = parallel.on_all(
    lambda start: jax.lax.all_gather(parallel.batch_indices(start, 3), parallel.AXIS)
  )
  assert sorted(np.ravel(seen(jnp.int32(24))).tolist()) == list(range(24, 36))


def test_join_averages_and_total_sums():
  def function(x):
    mine = x * (1 + jax.lax.axis_index(parallel.AXIS))
    return parallel.join(mine), parallel.total(mine)

  mean, total = parallel.on_all(function)(jnp.float32(2.0))
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
  gathered = parallel.on_all(
    lambda key: jax.lax.all_gather(jax.random.bits(parallel.fold_in_replica(key)), parallel.AXIS)
  )(jax.random.key(0))
  assert len(set(np.asarray(gathered).tolist())) == 4
