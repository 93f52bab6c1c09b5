"""The signals that end a command: from its first import on they print one line, no traceback.

Before and after training there is nothing to save, so the process ends at once, with status 128
plus the signal's number. While it trains, or others train for it, `handled` lets it save first.
"""

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable, Generator, Sequence
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], None]


def heeded() -> list[signal.Signals]:
  """Returns the signals that end a command, without SIGHUP if it is ignored, as under nohup."""
  is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  return [number for number in ENDING if number != signal.SIGHUP or not is_ignored]


@contextlib.contextmanager
def handled(handler: Handler | signal.Handlers) -> Generator[None]:
  """Makes every heeded signal call the handler while the block runs.

  Only the main thread can set signal handlers; in other threads nothing changes.
  """
  previous = {}
  try:
    for number in heeded():
      previous[number] = signal.signal(number, handler)
  except ValueError:
    yield
    return
  try:
    yield
  finally:
    for number, before in previous.items():
      signal.signal(number, before)


@contextlib.contextmanager
def noted(note: Callable[[int], None]) -> Generator[None]:
  """Calls `note` on the first signal of each kind while the block runs; a second acts as usual.

  A second SIGHUP is ignored, because a closing terminal sends two: one from the kernel and one
  from the shell.
  """
  before = {number: signal.getsignal(number) for number in ENDING}

  def handle(number, frame):
    del frame
    signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else before[number])
    note(number)

  with handled(handle):
    yield


def command_name(script: str | None, argv: Sequence[str]) -> str:
  """Returns the command of this package that a process was started for, or '' if it was for none.

  Args:
    script: the file that the interpreter was given; None with -m.
    argv: the interpreter's command line, as in `sys.orig_argv`.

  Example:
    >>> command_name(None, ['python', '-m', 'sparsejax.sweep', '--workdir=x'])
    'sweep'
    >>> command_name('train.py', ['python', 'train.py', '-m', 'sparsejax.sweep'])
    ''
  """
  if script is not None:
    path, root = pathlib.Path(script).resolve(), pathlib.Path(__file__).resolve().parents[2]
    return path.name if path in (root / 'launch.py', root / 'tools' / 'reproduce.py') else ''
  module = argv[argv.index('-m') + 1] if '-m' in argv[:-1] else ''
  package, _, name = module.partition('.')
  return {'launch': 'launch.py'}.get(name, name) if package == 'sparsejax' else ''


def end_in_one_line(command: str) -> None:
  """Makes a signal end this process at once, with a line that says so.

  An exception could not do so everywhere: imports, callbacks and destructors swallow some.

  Args:
    command: what the line begins with; if it is '', nothing is done.
  """

  def end(number, frame):
    del frame
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):  # a terminal that closed
      os.write(2, f'{command}: {name}; what was saved before is kept\n'.encode())
    os._exit(128 + number)

  if command:
    for number in heeded():
      signal.signal(number, end)
