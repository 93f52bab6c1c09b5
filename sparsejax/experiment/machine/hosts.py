"""Several processes that train as one: which one writes, what all must know, and what a loss does.

Every process holds the same state and makes the same steps on its own devices. Only the first one
touches the run directory and sends what it finds there to the others, so that only the data set
must be readable everywhere. With a single process every function here is a plain call.
"""

import contextlib
import ipaddress
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from sparsejax.experiment.machine import parallel
from sparsejax.experiment.machine.transfer import from_host, shaped_as_on_host, to_host
from sparsejax.experiment.terminal.errors import UsageError, in_one_line
from sparsejax.experiment.terminal.say import complain
from sparsejax.internal import private, signals

LOST_AFTER = 20  # seconds without a sign of life
# The schedulers' variables with the number of processes; JAX finds out the rest by itself.
BY_SCHEDULER = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
GUARDED = 'SPARSEJAX_GUARDED'  # the variable that gives a guarded process the pipe of its guard


class Place(NamedTuple):
  """The place of this process among those of a run; all None if the scheduler knows it.

  Attributes:
    coordinator: HOST:PORT of the first process.
    count: the number of processes.
    index: the number of this process.
  """

  coordinator: str | None
  count: int | None
  index: int | None


def place(
  coordinator: str | None, count: int | None, index: int | None, environment: Mapping[str, str]
) -> Place | None:
  """Returns the place of this process, or None if it is the only one.

  Args:
    coordinator: HOST:PORT as given on the command line, like the next two.
    count: the number of processes.
    index: the number of this process.
    environment: the environment variables, perhaps a scheduler's.

  Raises:
    UsageError: only some of the three are given, or one is impossible.

  Example:
    >>> place('localhost:1234', 2, 0, {})
    Place(coordinator='localhost:1234', count=2, index=0)
    >>> place(None, None, None, {'SLURM_STEP_NUM_TASKS': '1'})
  """
  given = {'coordinator': coordinator, 'processes': count, 'process': index}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    several = any(_process_count(environment, name) > 1 for name in BY_SCHEDULER)
    return Place(None, None, None) if several else None
  if coordinator is None or count is None or index is None:
    raise UsageError(
      f'--{missing[0]} is missing: give all of --coordinator=HOST:PORT, --processes=N and '
      '--process=K, or none'
    )
  port = re.fullmatch(r'(?:\[[^]]+\]|[^:]+):([0-9]{1,9})', coordinator)
  if port is None:
    raise UsageError(f'--coordinator={coordinator} must be HOST:PORT of the first process')
  if not 0 < int(port[1]) < 2**16:
    raise UsageError(f'--coordinator={coordinator}: the port must be from 1 to 65535')
  if count < 1:
    raise UsageError(f'--processes={count} must be 1 or more')
  if not 0 <= index < count:
    raise UsageError(f'--process={index} must be from 0 to {count - 1}')
  return Place(coordinator, count, index)


def _process_count(environment: Mapping[str, str], name: str) -> int:
  text = environment.get(name) or '1'
  try:
    return int(text)
  except ValueError:
    raise UsageError(
      f'the variable {name}={text} must be the number of processes that train as one'
    ) from None


def join(where: Place) -> None:
  """Waits for the other processes of a run; call it before anything uses a JAX device.

  The first process listens for the others only on the host of `coordinator`, and each exchanges
  sums over the address from which it reaches that host.

  Raises:
    UsageError: the others do not come.
  """
  # On CPU two programs may run at once, and processes that take their sums in different orders
  # would wait for each other.
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  found = private.place_by_scheduler() if where.coordinator is None else (*where, None)
  coordinator = found[0] if found else None
  own = listens = None
  try:
    if coordinator is not None:
      own, listens = address_towards(coordinator), coordinator
      if _is_loopback(own) and not _is_local_address(coordinator):
        if where.coordinator is None:  # a scheduler gave a name that others may resolve
          own = listens = None
        else:
          logging.warning('%s is an address that only this machine can reach', coordinator)
    with signals.handled(signal.SIG_DFL):  # our handlers are not called while JAX waits
      jax.distributed.initialize(
        *(found or where),
        heartbeat_timeout_seconds=LOST_AFTER,
        coordinator_bind_address=listens,
      )
  except (RuntimeError, ValueError, OSError) as error:
    line = (str(error).strip() or type(error).__name__).splitlines()[-1]
    raise UsageError(f'--coordinator={coordinator}: the processes cannot meet: {line}') from None
  if own is not None and not private.sum_over_address(own):
    logging.warning("this JAX exchanges sums over the address of the machine's own name")
  if not is_first():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115  (the first process speaks for all)


def address_towards(coordinator: str) -> str:
  """Returns the address from which this machine reaches a HOST:PORT.

  Raises:
    OSError: the host does not exist or cannot be reached.

  Example:
    >>> address_towards('127.0.0.1:1234')
    '127.0.0.1'
  """
  host, _, port = coordinator.rpartition(':')
  wrong = None
  for family, kind, _, _, address in socket.getaddrinfo(
    host.strip('[]'), int(port), type=socket.SOCK_DGRAM
  ):
    try:
      with socket.socket(family, kind) as way:
        way.connect(address)  # this sends nothing
        return way.getsockname()[0]
    except OSError as error:  # the machine may lack IPv6, for example
      wrong = error
  raise wrong or OSError(f'{host} has no address')


def _is_loopback(address: str) -> bool:
  return ipaddress.ip_address(address.partition('%')[0]).is_loopback


def _is_local_address(coordinator: str) -> bool:
  """Returns whether the coordinator's address is one that only its own machine can reach."""
  return re.match(r'localhost:|127\.|\[::1\]', coordinator) is not None


def run_guarded(command: Sequence[str]) -> int:
  """Runs this program again, as one of several processes; returns its exit status.

  When a process is lost, JAX aborts the others with a page of its own text. Only a process outside
  can explain what that means.

  Args:
    command: the command line that starts it.
  """
  received: list[int] = []
  child: subprocess.Popen | None = None

  def forward(number, frame):
    del frame
    received.append(number)
    if child is not None:
      child.send_signal(number)

  watched, kept = os.pipe()  # `kept` closes with this process, however it ends
  with signals.handled(forward):
    # It gets its own session, or a terminal would send it every signal a second time.
    child = subprocess.Popen(
      command,
      env=os.environ | {GUARDED: str(watched)},
      pass_fds=(watched,),
      start_new_session=True,
    )
    os.close(watched)
    if received:
      child.send_signal(received[-1])
    status = child.wait()
  os.close(kept)
  if status == -signal.SIGABRT:
    raise LostError
  if -status in received:  # while it waited for the others
    complain(f'launch.py: {signal.Signals(-status).name}; what was saved before is kept')
  return status if status >= 0 else 128 - status


def end_with_guard() -> None:
  """Makes this run_guarded process save and end, as after SIGTERM, once its guard is gone."""

  def watch(pipe: int):
    os.read(pipe, 1)  # nothing is ever written, so this waits for the other end to close
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=watch, args=(int(os.environ[GUARDED]),), daemon=True).start()


class LostError(RuntimeError):
  """Another process of the run died or can no longer be reached."""

  def __str__(self):
    return (
      'another process of this run was lost; the newest checkpoint is whole: start all processes '
      'again to go on from it'
    )


class FirstFailedError(RuntimeError):
  """The first process cannot go on, and so the others cannot either."""

  def __str__(self):
    return f'the first process of this run ended by {self.args[0]}'


def is_first() -> bool:
  """Returns whether this is the first process, the one that writes."""
  return jax.process_index() == 0


def count() -> int:
  """Returns the number of processes that train as one."""
  return jax.process_count()


def any_process(flag: bool) -> bool:
  """Returns whether the flag is set in any process; all processes must call this."""
  if count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


def open_on_first(function: Callable[[], contextlib.AbstractContextManager]) -> Any:
  """Returns the context that the function opens in the first process, an empty one in the others.

  Raises:
    UsageError: the function raised one in the first process; every process raises it.
  """
  made: list[Any] = [contextlib.nullcontext()]

  def call():
    made[0] = function()

  broadcast_result(call)
  return made[0]


def broadcast_result(function: Callable[[], Any]) -> Any:
  """Calls the function in the first process and returns its result in every process.

  Args:
    function: () -> a value that JSON can hold.

  Raises:
    UsageError: the function raised one in the first process; every process raises it.
    FirstFailedError: the function raised another error in the first process, which itself raises
      that error.
  """
  if count() == 1:
    return function()
  reply, raised = {}, None
  if is_first():
    try:
      reply = {'found': function()}
    except UsageError as error:
      reply, raised = {'error': str(error), 'is_usage': True}, error
    except Exception as error:  # without this the others would wait
      reason = f'{type(error).__name__}: {in_one_line(error)}'
      reply, raised = {'error': reason, 'is_usage': False}, error
  text = json.dumps(reply).encode()
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  reply = json.loads(_broadcast_bytes(text, size))
  if 'error' in reply:
    raise raised or (UsageError if reply['is_usage'] else FirstFailedError)(reply['error'])
  return reply['found']


def _broadcast_bytes(payload: bytes, size: int) -> bytes:
  """Returns the bytes that the first process gave.

  Numbers themselves would be summed with zeros, which loses -0.0.
  """
  array = np.frombuffer(payload, np.uint8) if is_first() else np.zeros(size, np.uint8)
  return multihost_utils.broadcast_one_to_all(array).tobytes()


def check_same(experiment: str) -> None:
  """Raises a UsageError in every process unless all were started for the same experiment."""
  if any_process(broadcast_result(lambda: experiment) != experiment):
    raise UsageError(
      f'the processes were started for different experiments, this one for {experiment}: give '
      'all of them the same settings and the same data'
    )


def broadcast_state(function: Callable[[], tuple[Any, Any]], like: Any) -> tuple[Any, Any]:
  """Returns in every process the state and the notes that the function returns in the first.

  Args:
    function: () -> (state, notes that JSON can hold).
    like: a state of the same structure, shapes and dtypes.

  Raises:
    UsageError: the function raised one in the first process, or the processes' states have
      different shapes; every process raises it.
  """
  if count() == 1:
    return function()
  own_leaves: list[np.ndarray] = []

  def call():
    state, notes = function()
    own_leaves.extend(jax.tree.leaves(to_host(state)))
    return [_shapes(own_leaves), notes]

  shapes, notes = broadcast_result(call)
  empty = shaped_as_on_host(like)
  if any_process(shapes != _shapes(jax.tree.leaves(empty))):
    raise UsageError('the processes train different networks: give all of them the same settings')
  leaves = jax.tree.leaves(empty)
  sent = _broadcast_bytes(
    b''.join(leaf.tobytes() for leaf in own_leaves), sum(leaf.nbytes for leaf in leaves)
  )
  ends = list(itertools.accumulate(leaf.nbytes for leaf in leaves))
  leaves = [
    np.frombuffer(sent[end - leaf.nbytes : end], leaf.dtype).reshape(leaf.shape)
    for leaf, end in zip(leaves, ends, strict=True)
  ]
  arrays = jax.tree.unflatten(jax.tree.structure(empty), leaves)
  return parallel.replicate(from_host(arrays, like)), notes


def _shapes(leaves: Sequence[np.ndarray]) -> list[str]:
  return [f'{leaf.dtype}{list(leaf.shape)}' for leaf in leaves]
