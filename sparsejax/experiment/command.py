"""Runs any command: prints its help, reports an error in one line, chooses the exit status.

- 0: it is finished.
- 2: it cannot be done as asked; the line says what to give or to change, which may be a flag, a
  setting, a file, a folder or a full disk. A package that is not installed also gives 2.
- 128 + N: the signal N came; 130 is SIGINT, 143 SIGTERM, 129 SIGHUP.
- 1: anything else went wrong: training diverged, the disk gave an error, another process was lost.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from typing import NoReturn, TypeVar

from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.errors import (
  NonFiniteLossError,
  TerminatedError,
  UnreadableError,
  UsageError,
  in_one_line,
)
from sparsejax.experiment.terminal.say import complain, say_lines, show_traceback
from sparsejax.internal import needs, signals

FINISHED, CRASHED, USAGE, SIGNALLED = 0, 1, 2, 128
Options = TypeVar('Options')


def run(
  name: str,
  argv: Sequence[str],
  *,
  text: Callable[[], str],
  read: Callable[[Sequence[str]], Options],
  act: Callable[[Options], int | None],
  folder: Callable[[Options], object],
  left: str = files.STAYS,
  refusal: type[ValueError] = UsageError,
  failures: tuple[type[Exception], ...] = (),
) -> int:
  """Runs a command; returns its exit status.

  Args:
    name: what its lines begin with.
    argv: the command line, with the command's name.
    text: returns the text that --help prints.
    read: returns the options of a command line without the command's name.
    act: does what the options ask for; returns the exit status if it is not 0.
    folder: returns where the options say to write, to be named when its disk is full.
    left: what a full disk, or a path that cannot be used, leaves.
    refusal: the error with which `read` and `act` refuse what cannot be done as asked.
    failures: the command's own errors that are reported in one line, with the status 1.

  Example:
    >>> run('say', ['say', 'a'], text=str, read=list, act=print, folder=str)
    ['a']
    0
  """
  if any(argument in ('--help', '-h') for argument in argv[1:]):
    say_lines(text())
    return FINISHED
  options = None
  try:
    options = read(argv[1:])
    return act(options) or FINISHED
  except refusal as error:
    return _fail(name, USAGE, in_one_line(error))
  except TerminatedError as error:
    return _fail(name, SIGNALLED + error.signal, in_one_line(error))
  except OSError as error:
    message = files.path_error(error, None if options is None else folder(options), left)
    if message is None and not isinstance(error, failures):
      raise
    is_broken = message is None or error.errno in files.BROKEN_DISK
    return _fail(name, CRASHED if is_broken else USAGE, message or in_one_line(error))
  except (NonFiniteLossError, UnreadableError, *failures) as error:
    return _fail(name, CRASHED, in_one_line(error))


def guarded(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  """Runs a whole command and returns its exit status; a missing package becomes one line.

  A traceback is printed so that nothing it quotes can change the terminal.

  Args:
    main: the command, which imports what it needs.
    argv: its command line.
  """
  sys.excepthook = show_traceback
  try:
    return main(argv)
  except ModuleNotFoundError as error:
    if not needs.is_third_party(error):
      raise
    complain(needs.missing(error))
    return USAGE


def _fail(name: str, status: int, message: str) -> int:
  """Prints a line; returns the exit status."""
  complain(f'{name}: {message}')
  return status


def set_up_process(*, keep_memory: bool = True) -> None:
  """Sets up this process' memory, threads and warnings, and its cache of compiled programs.

  This must be called before JAX's first computation.

  Args:
    keep_memory: whether freed memory is kept for its next use.
  """
  from sparsejax.experiment.machine import allocator, compilation, threads
  from sparsejax.experiment.terminal import logs

  logs.show_warnings()
  if keep_memory:
    allocator.keep_freed_memory()
  threads.serve_devices(os.environ)
  compilation.use_cache()


@contextlib.contextmanager
def leaving_on_signals(name: str, note: str = '') -> Generator[None]:
  """Makes a signal in the block raise SystemExit, so that the block removes what it began.

  Args:
    name: what the line that reports the signal begins with.
    note: what that line ends with.
  """

  def leave(number: int, frame: object) -> NoReturn:
    del frame
    complain(f'{name}: {signal.Signals(number).name}{note}')
    raise SystemExit(SIGNALLED + number)

  with signals.handled(leave):
    yield
