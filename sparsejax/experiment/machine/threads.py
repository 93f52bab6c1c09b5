"""How many threads XLA's devices on CPU share."""

import os
import re
from collections.abc import MutableMapping

THREADS = 'NPROC'  # where XLA reads how many it shall make of a pool; without it one for each core
NUMBER = 'JAX_NUM_CPU_DEVICES'  # which JAX heeds before the flag of XLA
DEVICES = r'--xla_force_host_platform_device_count=(\d+)'
A_DEVICE = 2  # one that waits for the other devices, one for what its own program hands out


def available() -> int:
  """Returns how many cores this process may run on."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def serve_devices(environment: MutableMapping[str, str], cores: int | None = None) -> None:
  """Asks XLA for two threads for each of several CPU devices, unless a number is asked for.

  Programs of all devices run in one pool of threads. By default it has one for each core or each
  device, whichever are more; where every thread but one waits in a collective, and the last for a
  part of a matrix product that it has handed to the pool, none is left to compute it, and after 40
  seconds XLA ends the process. To be called before JAX looks for its devices.

  Args:
    environment: of the process; the number is set in it.
    cores: that there are; as many threads there will be at least. None: those of this process.

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
