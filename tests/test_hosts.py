"""Two processes of four devices train as one, and as one they end.

Of what follows, all that takes two processes is slow.
"""

import contextlib
import os
import signal
import subprocess
import time

import commands
import numpy as np
import pytest

from results import places
from sparsejax.experiment import checkpoint, hosts
from sparsejax.experiment.errors import UsageError

RUN = (
  '--config=configs/quickstart.py',
  '--config.prune.begin_epochs=0.3',  # step 12 of 37 in the first epoch
  '--config.log.checkpoint_every_epochs=1',
)


def start(workdir, *arguments, devices=4):
  """Starts both processes, with the tests' caches."""
  place = places.Place('two processes', processes=2, devices=devices, shares=2 * devices)
  return places.start(place, [*RUN, *arguments], workdir, commands.environment(devices))


def end(processes, workdir):
  """Waits for both; returns their statuses and what they said."""
  try:
    statuses = [process.wait(timeout=300) for process in processes]
  finally:
    for process in processes:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
  said = [places.log_of(workdir, index).read_text() for index in range(len(processes))]
  return statuses, said


@pytest.mark.slow
def test_two_processes_lose_as_one_device_does(tmp_path):
  two = tmp_path / 'two'
  every_step = ('--config.epochs=1.0', '--config.log.every_steps=1')
  statuses, said = end(start(two, *every_step), two)
  assert statuses == [0, 0], said
  one = tmp_path / 'one'
  status, _, stderr = commands.launch_apart(*RUN, *every_step, f'--workdir={one}')
  assert status == 0, stderr
  losses = [
    [line['train_loss'] for line in commands.metrics(path) if 'train_loss' in line]
    for path in (one, two)
  ]
  assert len(losses[0]) == len(losses[1]) == 37
  # As in test_parallel: sums in another order, until a unit turns on in one run only.
  np.testing.assert_allclose(losses[0][:11], losses[1][:11], rtol=1e-5)
  np.testing.assert_allclose(losses[0][:20], losses[1][:20], rtol=1e-2)
  summaries = [commands.summary(path) for path in (one, two)]
  assert summaries[0]['active_weights'] == summaries[1]['active_weights'] == 2510
  assert 'test accuracy' in said[0]
  assert 'test accuracy' not in said[1]


def wait_for_checkpoint(workdir, processes):
  while not (checkpoint.committed(workdir / 'checkpoints') if workdir.exists() else []):
    assert all(process.poll() is None for process in processes)
    time.sleep(0.05)


def children(process):
  """The process that trains is a child of the command."""
  listed = subprocess.run(
    ['ps', '-o', 'pid=', '--ppid', str(process.pid)], capture_output=True, text=True, check=True
  )
  return [int(pid) for pid in listed.stdout.split()]


LENGTH = '--config.epochs=8.0'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run of both that nobody disturbs."""
  workdir = tmp_path_factory.mktemp('hosts') / 'whole'
  statuses, said = end(start(workdir, LENGTH, devices=2), workdir)
  assert statuses == [0, 0], said
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize('lost', [0, 1])
def test_a_lost_process_ends_the_other_and_both_go_on_to_the_bit(tmp_path, whole, lost):
  workdir = tmp_path / 'killed'
  processes = start(workdir, LENGTH, devices=2)
  wait_for_checkpoint(workdir, processes)
  (victim,) = children(processes[lost])
  os.kill(victim, signal.SIGKILL)
  begun = time.monotonic()
  statuses, said = end(processes, workdir)
  assert statuses[lost] == 128 + signal.SIGKILL
  assert statuses[1 - lost] == 1
  assert time.monotonic() - begun < 60
  last = said[1 - lost].strip().splitlines()[-1]
  assert last == f'launch.py: {hosts.LostError()}'
  assert not (workdir / 'summary.json').exists()
  statuses, said = end(start(workdir, LENGTH, devices=2), workdir)
  assert statuses == [0, 0], said
  assert 'going on from step' in said[0]
  assert commands.metrics(workdir) == commands.metrics(whole)
  assert commands.summary(workdir) == commands.summary(whole)


@pytest.mark.slow
def test_a_signal_to_one_of_them_saves_and_ends_both(tmp_path):
  workdir = tmp_path / 'run'
  processes = start(workdir, '--config.epochs=200.0', devices=1)
  wait_for_checkpoint(workdir, processes)
  processes[1].send_signal(signal.SIGTERM)
  statuses, said = end(processes, workdir)
  assert statuses == [143, 143], said
  assert 'saved at step' in said[0]


@pytest.mark.slow
def test_what_the_first_refuses_ends_both(tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'mine.txt').write_text('')
  statuses, said = end(start(workdir, devices=1), workdir)
  assert statuses == [2, 2]
  for text in said:
    assert 'it holds mine.txt, but no run' in text.strip().splitlines()[-1]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (('localhost:1', 2, None), '--process is missing: allowed are all of --coordinator=HOST:PORT'),
    ((None, 2, 0), '--coordinator is missing'),
    (('localhost', 2, 0), '--coordinator=localhost: allowed is HOST:PORT'),
    (('localhost:1', 0, 0), '--processes=0: allowed is 1 or more'),
    (('localhost:1', 2, 2), '--process=2: allowed is 0 to 1'),
    (('localhost:1', 2, -1), '--process=-1: allowed is 0 to 1'),
  ],
)
def test_a_place_that_can_not_be_is_refused(given, message):
  with pytest.raises(UsageError, match=message):
    hosts.place(*given, {})


@pytest.mark.parametrize(
  ('environment', 'several'),
  [
    ({}, False),
    ({'SLURM_STEP_NUM_TASKS': '1', 'SLURM_NTASKS': '8'}, False),  # in the batch script itself
    ({'SLURM_STEP_NUM_TASKS': '8'}, True),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
    ({'OMPI_COMM_WORLD_SIZE': '1'}, False),
  ],
)
def test_schedulers_say_whether_there_are_several(environment, several):
  assert (hosts.place(None, None, None, environment) is not None) == several


def test_one_process_is_the_first_and_asks_nobody():
  assert hosts.count() == 1
  assert hosts.is_first()
  assert hosts.from_first(lambda: 5) == 5
  assert (hosts.any_of(True), hosts.any_of(False)) == (True, False)
