"""The number of threads that XLA's devices on CPU share."""

import os
import re
from collections.abc import MutableMapping

THREADS = 'NPROC'  # the size of XLA's pool of threads; unset, it is one for each core
NUMBER = 'JAX_NUM_CPU_DEVICES'  # JAX gives this precedence over XLA's flag
DEVICES = r'--xla_force_host_platform_device_count=(\d+)'
A_DEVICE = 2  # one to wait for the other devices, one for the work that its program hands out


def available() -> int:
  """Returns the number of cores that this process may run on."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def serve_devices(environment: MutableMapping[str, str], cores: int | None = None) -> None:
  """Asks XLA for two threads for each of several CPU devices, unless a number is already set.

  The programs of all devices run in one pool of threads. By default it has one thread for each core
  or each device, whichever are more. If all threads but one wait in a collective, and the last one
  waits for a part of a matrix product that it has handed to the pool, no thread is left to compute
  that part, and after 40 seconds XLA ends the process. Call this before JAX looks for its devices.

  Args:
    environment: the variables of the process, where the number is set.
    cores: the number of cores, which is the least number of threads; None takes this process'.

  Example:
    >>> variables = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
    >>> serve_devices(variables, cores=2)
    >>> variables['NPROC']
    '16'
  """
  forced = re.findall(DEVICES, environment.get('XLA_FLAGS', ''))
  number = int(environment.get(NUMBER) or -1)
  devices = number if number >= 0 else int(forced[-1]) if forced else 1
  if devices > 1:
    most = max(A_DEVICE * devices, available() if cores is None else cores)
    environment.setdefault(THREADS, str(most))
