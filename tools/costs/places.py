"""Runs programs on several forced CPU devices in several processes, all on this machine."""

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
    label: its name in tables.
    processes: the number of processes that train as one.
    devices: the number of devices of each process.
    shares: how many times one device's batch the whole batch is; more than the devices if one does
      the work of many.
  """

  label: str
  processes: int
  devices: int
  shares: int


def environment(place: Place) -> dict[str, str]:
  """Returns the environment variables that a process of the place needs."""
  count = f'--xla_force_host_platform_device_count={place.devices}'
  found = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': count}
  threads.serve_devices(found)
  return found


def launch(place: Place, arguments: Sequence[str], workdir: pathlib.Path) -> None:
  """Runs launch.py to its end, in every process of the place; a finished run is left as it is.

  Raises:
    RuntimeError: a process failed; the message is its output.
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
  """Starts launch.py in every process of the place, each in its own session.

  Args:
    place: the place.
    arguments: the arguments of launch.py, except the run directory and the place.
    workdir: the run directory; the processes' output goes to `log_of` it.
    variables: environment variables in addition to this process' own and the place's.
    host: the name by which the processes know this machine.
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
  """Returns the file, beside the run directory, for the output of one of its processes."""
  return workdir.with_name(f'{workdir.name}.{index}.log')


def _end(process: subprocess.Popen) -> None:
  """Ends a process and its children if an error or Ctrl-C left them running."""
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def call(place: Place, function: Callable, *arguments: Any) -> Any:
  """Calls a function in every process of the place; returns the first process' result.

  Args:
    place: the place; its processes are started for this call and end after it.
    function: a function of a module, since other processes must find it.
    *arguments: its arguments, which must pickle.
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
  os.environ |= environment(place)  # JAX reads it when it is first asked for a device
  if place.processes == 1:
    return function(*arguments)
  hosts.join(hosts.Place(f'localhost:{port}', place.processes, index))
  try:
    return function(*arguments)
  finally:
    jax.distributed.shutdown()


def free_port() -> int:
  """Returns a free port of this machine."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]
