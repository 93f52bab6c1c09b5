"""One command in this process: what it said, how it ended, and what it left."""

import contextlib
import io
import logging as logging_of_python
import os
import pathlib
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SLOW = 300  # seconds, after which a command hangs


class Outcome(NamedTuple):
  """How a command ended.

  Attributes:
    status: its exit status; None where an error left it.
    out: what it said.
    err: what it complained of.
    error: the traceback, where there was one.
  """

  status: int | None
  out: str
  err: str
  error: str = ''

  @property
  def lines(self) -> list[str]:
    return self.err.splitlines()


class HangError(BaseException):
  """A command did not end."""


@contextlib.contextmanager
def in_time(seconds: float) -> Generator[None]:
  """Raises a HangError if the block takes longer than this."""

  def ring(number, frame):
    raise HangError(f'no end after {seconds:g} seconds')

  before = signal.signal(signal.SIGALRM, ring)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def before(until: float, cases: Iterable[Any]) -> Iterator[Any]:
  """Yields cases until it is later than `until`, by `time.monotonic`."""
  for case in cases:
    if time.monotonic() > until:
      return
    yield case


def call(main: Callable[[Sequence[str]], int], argv: Sequence[str], here: pathlib.Path) -> Outcome:
  """Runs a command's main in a folder."""
  from absl import logging

  from sparsejax.experiment.machine import allocator

  out, err, error = io.StringIO(), io.StringIO(), ''
  handler = logging.get_absl_handler()
  with (
    contextlib.chdir(here),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch.object(handler.python_handler, 'stream', err),
    mock.patch.object(logging_of_python.root, 'handlers', [handler]),  # not a test runner's
    mock.patch.object(allocator, 'keep_freed_memory'),  # which would be for good
    mock.patch.dict(os.environ),
  ):
    try:
      with in_time(SLOW):
        status = main(argv)
    except SystemExit as ended:
      status = ended.code if isinstance(ended.code, int) else 1
    except (Exception, HangError, KeyboardInterrupt):
      status, error = None, traceback.format_exc()
  return Outcome(status, out.getvalue(), err.getvalue(), error)


def listing(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Returns the size of everything in a folder, and when it was written."""
  found = {}
  for path in folder.rglob('*'):
    about = path.lstat()
    size = 0 if path.is_dir() else about.st_size
    found[str(path.relative_to(folder))] = size, 0 if path.is_dir() else about.st_mtime_ns
  return found
