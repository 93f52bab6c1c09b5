"""Two processes of four devices train as one, and as one they end.

Of what follows, all that takes two processes is slow.
"""

import contextlib
import ipaddress
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import commands
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.experiment.machine import hosts
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.terminal.errors import UsageError
from tools.costs import places

RUN = (
  '--config=configs/quickstart.py',
  '--config.prune.begin_epochs=0.3',  # step 12 of 37 in the first epoch
  '--config.log.checkpoint_every_epochs=1',
)


def start(workdir, *arguments, devices=4, **options):
  """Starts both processes, with the tests' caches."""
  place = places.Place('two processes', processes=2, devices=devices, shares=2 * devices)
  variables = commands.environment(devices)
  return places.start(place, [*RUN, *arguments], workdir, variables, **options)


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
  statuses, said = end(processes, workdir)
  assert statuses[lost] == 128 + signal.SIGKILL
  assert statuses[1 - lost] == 1
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


def listening(pid):
  """The addresses on which a process takes TCP connections, as the kernel tells them."""
  links = [pathlib.Path(f'/proc/{pid}/fd', fd) for fd in os.listdir(f'/proc/{pid}/fd')]
  sockets = {os.readlink(link) for link in links if link.is_symlink()}
  found = []
  for table in ('tcp', 'tcp6'):
    for line in pathlib.Path('/proc/net', table).read_text().splitlines()[1:]:
      _, local, _, state, *rest = line.split()
      if state == '0A' and f'socket:[{rest[5]}]' in sockets:
        words = np.frombuffer(bytes.fromhex(local.partition(':')[0]), '>u4').astype('<u4')
        address = ipaddress.ip_address(words.tobytes())
        found.append(getattr(address, 'ipv4_mapped', None) or address)
  return found


def other_address():
  """An address of this machine that others can reach too; None if it has none."""
  with contextlib.suppress(OSError):
    found = hosts.address_towards('192.0.2.1:9')
    return None if hosts._is_loopback(found) else found


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path('/proc/net/tcp').exists(), reason='as Linux tells it')
@pytest.mark.parametrize('host', ['127.0.0.1', other_address()])
def test_each_process_listens_on_the_address_that_was_given_and_on_no_other(tmp_path, host):
  if host is None:
    pytest.skip('this machine has no address that others see')
  workdir = tmp_path / 'run'
  processes = start(workdir, '--config.epochs=2000.0', devices=1, host=host)
  wait_for_checkpoint(workdir, processes)  # by then all that listens does
  found = [listening(child) for process in processes for child in children(process)]
  processes[0].send_signal(signal.SIGTERM)
  end(processes, workdir)
  assert {str(address) for one in found for address in one} == {host}
  assert len(found[0]) > len(found[1]) > 0  # where they meet is on the first alone


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
    (('localhost:1', 2, None), '--process is missing: give all of --coordinator=HOST:PORT'),
    ((None, 2, 0), '--coordinator is missing'),
    (('localhost', 2, 0), '--coordinator=localhost must be HOST:PORT'),
    (('localhost:0', 2, 0), '--coordinator=localhost:0: the port must be from 1 to 65535'),
    (('localhost:65536', 2, 0), 'the port must be from 1 to 65535'),
    (('::1:1234', 2, 0), '--coordinator=::1:1234 must be HOST:PORT'),
    (('localhost:1', 0, 0), '--processes=0 must be 1 or more'),
    (('localhost:1', 2, 2), '--process=2 must be from 0 to 1'),
    (('localhost:1', 2, -1), '--process=-1 must be from 0 to 1'),
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


def test_a_scheduler_that_says_no_number_is_refused_in_one_line():
  refused = r'^the variable SLURM_STEP_NUM_TASKS=many must be the number of processes'
  with pytest.raises(UsageError, match=refused):
    hosts.place(None, None, None, {'SLURM_STEP_NUM_TASKS': 'many'})


def test_one_process_is_the_first_and_asks_nobody():
  assert hosts.count() == 1
  assert hosts.is_first()
  assert hosts.broadcast_result(lambda: 5) == 5
  assert (hosts.any_process(True), hosts.any_process(False)) == (True, False)


def test_an_address_of_ipv6_stands_in_brackets():
  assert hosts.place('[::1]:1234', 2, 0, {}).coordinator == '[::1]:1234'


def test_a_coordinator_that_does_not_exist_is_one_line():
  with pytest.raises(UsageError, match='--coordinator=nowhere:1: the processes cannot meet'):
    hosts.join(hosts.Place('nowhere:1', 2, 0))


def test_processes_that_do_not_meet_for_no_stated_reason_are_one_line(monkeypatch):
  def fail(*_, **__):
    raise RuntimeError('')

  monkeypatch.setattr(hosts.jax.distributed, 'initialize', fail)
  with pytest.raises(UsageError, match=r'the processes cannot meet: RuntimeError$'):
    hosts.join(hosts.Place('127.0.0.1:1234', 2, 0))


GUARD = """
import sys
from sparsejax.experiment.machine import hosts
sys.exit(hosts.run_guarded(sys.argv[1:]))
"""
# Says its number, and would go on for a minute after the guard's end; saves first.
GUARDED = """
import os, pathlib, signal, sys, time
from sparsejax.experiment.machine import hosts

def save(*_):
  pathlib.Path(sys.argv[1], 'saved').touch()
  sys.exit(0)

signal.signal(signal.SIGTERM, save)
hosts.end_with_guard()
pathlib.Path(sys.argv[1], 'pid').write_text(str(os.getpid()))
time.sleep(60)
"""


def test_a_process_whose_guard_was_killed_saves_and_ends(tmp_path):
  child = [sys.executable, '-c', GUARDED, str(tmp_path)]
  guard = subprocess.Popen([sys.executable, '-c', GUARD, *child], env=commands.environment(1))
  wait_for(lambda: (tmp_path / 'pid').exists())
  wait_for(lambda: (tmp_path / 'pid').read_text())
  pid = int((tmp_path / 'pid').read_text())
  guard.kill()
  guard.wait()
  wait_for((tmp_path / 'saved').exists, seconds=30)
  wait_for(lambda: not is_running(pid))


def wait_for(condition, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)


def is_running(pid):
  try:
    os.kill(pid, 0)
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except (ProcessLookupError, FileNotFoundError):
    return False


def hear(monkeypatch, *sent):
  """Makes this process the second of two, which hears the first send these one after the other."""
  waiting = list(sent)

  def receive(mine):
    theirs = np.asarray(waiting.pop(0))
    assert theirs.shape == np.shape(mine)
    return theirs

  monkeypatch.setattr(hosts, 'count', lambda: 2)
  monkeypatch.setattr(hosts, 'is_first', lambda: False)
  monkeypatch.setattr(hosts, 'any_process', bool)
  monkeypatch.setattr(hosts.multihost_utils, 'broadcast_one_to_all', receive)


def told(value):
  text = json.dumps(value).encode()
  return np.int32(len(text)), np.frombuffer(text, np.uint8)


STATE = {'bias': jnp.float32([1.5, -0.0]), 'step': jnp.int32(3)}
SHAPES = ['float32[2]', 'int32[]']
NOTES = {'seconds': 2.5, 'phases': {}}


def test_the_state_of_the_first_arrives_to_the_bit(monkeypatch):
  arrays = np.float32([2.5, -0.0]).tobytes() + np.int32(7).tobytes()
  words = told({'found': [SHAPES, NOTES]})
  hear(monkeypatch, *words, np.frombuffer(arrays, np.uint8))
  state, notes = hosts.broadcast_state(None, STATE)
  assert notes == NOTES
  assert state['step'] == 7
  np.testing.assert_array_equal(state['bias'], [2.5, 0.0])
  assert np.signbit(state['bias'][1])


def test_a_state_of_other_shapes_is_refused_before_it_is_read(monkeypatch):
  hear(monkeypatch, *told({'found': [['float32[3]', 'int32[]'], NOTES]}))
  with pytest.raises(UsageError, match='give all of them the same settings'):
    hosts.broadcast_state(None, STATE)


def test_what_the_first_refuses_is_refused_here(monkeypatch):
  hear(monkeypatch, *told({'error': 'workdir=x: it holds notes.txt', 'is_usage': True}))
  with pytest.raises(UsageError, match='it holds notes'):
    hosts.broadcast_result(None)


def test_what_ends_the_first_ends_the_others_too(monkeypatch):
  hear(monkeypatch, *told({'error': 'OSError: Input/output error', 'is_usage': False}))
  with pytest.raises(
    hosts.FirstFailedError, match=r'the first process .* by OSError: Input/output er'
  ):
    hosts.broadcast_result(None)


def test_the_first_tells_the_others_of_whatever_ends_it(monkeypatch):
  sent = []

  def send(mine):
    sent.append(mine)
    return mine

  monkeypatch.setattr(hosts, 'count', lambda: 2)
  monkeypatch.setattr(hosts.multihost_utils, 'broadcast_one_to_all', send)
  with pytest.raises(ZeroDivisionError):
    hosts.broadcast_result(lambda: 1 / 0)
  message = json.loads(sent[-1].tobytes())
  assert message == {'error': 'ZeroDivisionError: division by zero', 'is_usage': False}


def test_processes_of_two_experiments_do_not_train_as_one(monkeypatch):
  hear(monkeypatch, *told({'found': '01234567, seed 0'}))
  with pytest.raises(UsageError, match='different experiments, this one for 01234567, seed 1:'):
    hosts.check_same('01234567, seed 1')
