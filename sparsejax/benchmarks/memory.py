"""The memory that a program takes, as the compiler plans it and as the system sees it."""

import pathlib
import resource
import sys
from collections.abc import Callable
from typing import Any

from sparsejax.experiment.machine import parallel

PLANNED = ('argument', 'output', 'alias', 'temp')  # what an output overwrites is an alias


def planned(compiled: Any) -> dict[str, int]:
  """Returns the bytes on one device that the compiler planned, and their sum `predicted_bytes`.

  The result is empty if the compiler does not report it.
  """
  analysis = compiled.memory_analysis()
  if analysis is None:
    return {}
  parts = {f'{part}_bytes': getattr(analysis, f'{part}_size_in_bytes') for part in PLANNED}
  return parts | {'predicted_bytes': sum(parts.values()) - 2 * parts['alias_bytes']}


def peak_during(run: Callable[[], Any]) -> dict[str, int]:
  """Returns the most bytes held while `run` runs, `peak_bytes`, and the bytes held before.

  On an accelerator these are the bytes of the fullest device since the process started; on CPU they
  are the resident bytes, including the interpreter, JAX and the data set.
  """
  before, _ = _resident()
  run()
  on_device = parallel.most_memory()
  if on_device is not None:
    return {'peak_bytes': on_device}
  return {'peak_bytes': _resident()[1], 'resident_before_bytes': before}


def _resident() -> tuple[int, int]:
  """Returns the resident bytes, and the most since the last call.

  Without Linux's /proc both are the most since the process started.
  """
  try:
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    values = dict(line.split(':', 1) for line in lines)
    now, most = (1024 * int(values[key].split()[0]) for key in ('VmRSS', 'VmHWM'))
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the maximum starts anew
    return now, most
  except (OSError, KeyError):
    unit = 1 if sys.platform == 'darwin' else 1024
    most = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most, most
