"""How many threads XLA's devices on CPU share."""

import re
from collections.abc import MutableMapping

THREADS = 'NPROC'  # where XLA reads how many it shall make of a pool; without it one for each core
DEVICES = r'--xla_force_host_platform_device_count=(\d+)'
A_DEVICE = 2  # one that waits for the other devices, one for what its own program hands out


def serve_devices(environment: MutableMapping[str, str]) -> None:
  """Asks XLA for two threads for each of several CPU devices, unless a number is asked for.

  Programs of all devices run in one pool of threads. By default it has one for each core or each
  device, whichever are more; where every thread but one waits in a collective, and the last for a
  part of a matrix product that it has handed to the pool, none is left to compute it, and after 40
  seconds XLA ends the process. To be called before JAX looks for its devices.

  Args:
    environment: of the process; the number is set in it.

  Example:
    >>> variables = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
    >>> serve_devices(variables)
    >>> variables['NPROC']
    '16'
  """
  forced = re.findall(DEVICES, environment.get('XLA_FLAGS', ''))
  devices = int(forced[-1]) if forced else int(environment.get('JAX_NUM_CPU_DEVICES') or 1)
  if devices > 1:
    environment.setdefault(THREADS, str(A_DEVICE * devices))
