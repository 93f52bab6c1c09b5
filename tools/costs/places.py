"""Where something runs: on so many forced CPU devices of so many processes, all on this machine."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from sparsejax.experiment.machine import hosts, threads
from tools import ROOT


class Place(NamedTuple):
  """One way to train.

  Attributes:
    label: what tables call it.
    processes: that train as one.
    devices: of each process.
    shares: of one device's batch in the whole batch; more than the devices where one does the work
      of many.
  """

  label: str
  processes: int
  devices: int
  shares: int


def environment(place: Place) -> dict[str, str]:
  """Returns what a process of the place must find in its environment."""
  count = f'--xla_force_host_platform_device_count={place.devices}'
  found = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': count}
  threads.serve_devices(found)
  return found


def launch(place: Place, arguments: Sequence[str], workdir: pathlib.Path) -> None:
  """Runs launch.py to its end, in every process of the place; a finished run is left as it is.

  Raises:
    RuntimeError: one of them failed; what it said is the message.
  """
  with contextlib.ExitStack() as stack:
    processes = start(place, arguments, workdir)
    for process in processes:
      stack.callback(_end, process)
    statuses = [process.wait() for process in processes]
  for index, (process, status) in enumerate(zip(processes, statuses, strict=True)):
    if status:
      said = log_of(workdir, index).read_text()[-2000:]
      raise RuntimeError(f'{" ".join(process.args[1:])}: status {status}\n{said}')


def start(
  place: Place,
  arguments: Sequence[str],
  workdir: pathlib.Path,
  variables: Mapping[str, str] | None = None,
  host: str = 'localhost',
) -> list[subprocess.Popen]:
  """Starts launch.py in every process of the place, each in a session of its own.

  Args:
    place: where it runs.
    arguments: of launch.py, but for the run directory and the place.
    workdir: the run directory; what the processes say is in `log_of` it.
    variables: of the environment, beside this process' own and those of the place.
    host: by which the processes know this machine.
  """
  port = free_port()
  workdir.parent.mkdir(parents=True, exist_ok=True)
  processes = []
  for index in range(place.processes):
    own = [f'--coordinator={host}:{port}', f'--processes={place.processes}']
    own = [*own, f'--process={index}'] if place.processes > 1 else []
    with log_of(workdir, index).open('w') as log:
      process = subprocess.Popen(
        [sys.executable, 'launch.py', *arguments, f'--workdir={workdir}', *own],
        cwd=ROOT,
        env=os.environ | (variables or {}) | environment(place),
        stdout=log,
        stderr=log,
        start_new_session=True,
      )
    processes.append(process)
  return processes


def log_of(workdir: pathlib.Path, index: int) -> pathlib.Path:
  """Returns the file, beside the run directory, of what one of its processes says."""
  return workdir.with_name(f'{workdir.name}.{index}.log')


def _end(process: subprocess.Popen) -> None:
  """Ends a process and its children, where an error or Ctrl-C left them running."""
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def call(place: Place, function: Callable, *arguments: Any) -> Any:
  """Returns what the function returns in the first process of the place, having run in all.

  Args:
    place: whose processes are started for this and end after it.
    function: of a module, since other processes must find it.
    *arguments: that pickle.
  """
  context, port = multiprocessing.get_context('spawn'), free_port()
  with concurrent.futures.ProcessPoolExecutor(place.processes, mp_context=context) as pool:
    found = [
      pool.submit(_inside, place, index, port, function, arguments)
      for index in range(place.processes)
    ]
    first, *_ = [future.result() for future in found]
    return first


def _inside(place, index, port, function, arguments):
  os.environ |= environment(place)  # read when JAX is first asked for a device
  if place.processes == 1:
    return function(*arguments)
  hosts.join(hosts.Place(f'localhost:{port}', place.processes, index))
  try:
    return function(*arguments)
  finally:
    jax.distributed.shutdown()


def free_port() -> int:
  """Returns a port of this machine that nobody listens on."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]
