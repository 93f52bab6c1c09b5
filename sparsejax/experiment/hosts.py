"""Several processes that train as one: who writes, what all must know, what happens when one dies.

Every process holds the same state and makes the same steps on devices of its own. The first one
alone touches the run directory; what it finds there goes to the others, so nothing but the data set
need be readable everywhere. With one process every function here is the plain call.
"""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparsejax.experiment import parallel
from sparsejax.experiment.errors import UsageError
from sparsejax.experiment.state import from_host, to_host

LOST_AFTER = 20  # seconds without a sign of life
# How many processes a scheduler started in this step, where JAX finds out the rest by itself.
BY_SCHEDULER = ('SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
IS_GUARDED = 'SPARSEJAX_IS_GUARDED'


class Place(NamedTuple):
  """Where this process stands among those of a run; all None where the scheduler knows.

  Attributes:
    coordinator: HOST:PORT of the first process.
    count: of the processes.
    index: of this one.
  """

  coordinator: str | None
  count: int | None
  index: int | None


def place(
  coordinator: str | None, count: int | None, index: int | None, environment: Mapping[str, str]
) -> Place | None:
  """Returns this process' place, or None where it is the only one.

  Args:
    coordinator: as given on the command line, likewise the next two.
    count: of the processes.
    index: of this one.
    environment: variables, some of a scheduler.

  Raises:
    UsageError: some of the three given and not all, or one that can't be.

  Example:
    >>> place('localhost:1234', 2, 0, {})
    Place(coordinator='localhost:1234', count=2, index=0)
    >>> place(None, None, None, {'SLURM_STEP_NUM_TASKS': '1'})
  """
  given = {'coordinator': coordinator, 'processes': count, 'process': index}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    several = any(int(environment.get(name) or 1) > 1 for name in BY_SCHEDULER)
    return Place(None, None, None) if several else None
  if coordinator is None or count is None or index is None:
    raise UsageError(
      f'--{missing[0]} is missing: allowed are all of --coordinator=HOST:PORT, --processes=N and '
      '--process=K, or none'
    )
  if not re.fullmatch(r'.+:\d+', coordinator):
    raise UsageError(f'--coordinator={coordinator}: allowed is HOST:PORT of the first process')
  if count < 1:
    raise UsageError(f'--processes={count}: allowed is 1 or more')
  if not 0 <= index < count:
    raise UsageError(f'--process={index}: allowed is 0 to {count - 1}')
  return Place(coordinator, count, index)


def join(where: Place) -> None:
  """Waits for the other processes of a run; before anything asks JAX for a device.

  Raises:
    UsageError: they don't come.
  """
  # On CPU two programs may run at once, and the processes take their sums in different orders: each
  # would wait for the other.
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  try:
    jax.distributed.initialize(*where, heartbeat_timeout_seconds=LOST_AFTER)
  except (RuntimeError, ValueError) as error:
    line = str(error).strip().splitlines()[-1]
    raise UsageError(
      f'--coordinator={where.coordinator}: the processes do not meet: {line}'
    ) from None
  if not is_first():
    sys.stdout = open(os.devnull, 'w')  # noqa: SIM115  (the first one speaks for all)


def guarded(command: Sequence[str]) -> int:
  """Runs this program once more, as one of several processes; returns its exit status.

  JAX ends a process whose fellow is lost by aborting it, with a page of its own. Only somebody
  outside can say what that means.

  Args:
    command: to start it.
  """
  asked: list[int] = []
  child: subprocess.Popen | None = None

  def pass_on(number, frame):
    del frame
    asked.append(number)
    if child is not None:
      child.send_signal(number)

  previous = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    # In a session of its own, or a terminal would send it every signal a second time.
    child = subprocess.Popen(command, env=os.environ | {IS_GUARDED: '1'}, start_new_session=True)
    if asked:
      child.send_signal(asked[-1])
    status = child.wait()
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
  if status == -signal.SIGABRT:
    raise LostError
  return status if status >= 0 else 128 - status


class LostError(RuntimeError):
  """Another process of the run died, or could not be reached any more."""

  def __str__(self):
    return (
      'another process of this run was lost; the newest checkpoint is whole: start all of them '
      'again, and they go on from it'
    )


def is_first() -> bool:
  """Whether this process is the one that writes."""
  return jax.process_index() == 0


def count() -> int:
  """Returns how many processes train as one."""
  return jax.process_count()


def any_of(flag: bool) -> bool:
  """Returns whether the flag is up in any of the processes, all of which must ask."""
  if count() == 1:
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


def on_first(function: Callable[[], contextlib.AbstractContextManager]) -> Any:
  """Calls the function in the first process; elsewhere returns a context of None.

  Raises:
    UsageError: in every process, what the function raises in the first.
  """
  made: list[Any] = [contextlib.nullcontext()]

  def call():
    made[0] = function()

  from_first(call)
  return made[0]


def from_first(function: Callable[[], Any]) -> Any:
  """Returns in every process what the function returns in the first: anything that pickles.

  Raises:
    UsageError: in every process, what the function raises in the first.
  """
  if count() == 1:
    return function()
  found, error = None, None
  if is_first():
    try:
      found = function()
    except UsageError as raised:
      error = raised
  found, error = _from_first((found, error))
  if error is not None:
    raise error
  return found


def _from_first(value):
  """Sends bytes: floating-point numbers would go through a sum with zeros, which loses -0.0."""
  payload = np.frombuffer(pickle.dumps(value) if is_first() else b'', np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(payload.size)))
  if not is_first():
    payload = np.zeros(size, np.uint8)
  return pickle.loads(multihost_utils.broadcast_one_to_all(payload).tobytes())


def state_from_first(function: Callable[[], tuple[Any, Any]], like: Any) -> tuple[Any, Any]:
  """Returns in every process the state and the notes that the function returns in the first.

  Args:
    function: () -> (state, notes that pickle).
    like: a state of the same structure.

  Raises:
    UsageError: in every process, what the function raises in the first.
  """
  if count() == 1:
    return function()

  def call():
    state, notes = function()
    return jax.tree.leaves(to_host(state)), notes

  leaves, notes = from_first(call)
  arrays = jax.tree.unflatten(jax.tree.structure(like), leaves)
  return parallel.replicate(from_host(arrays, like)), notes
